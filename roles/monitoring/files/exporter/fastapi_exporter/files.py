# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of others, opened so that nobody leads elsewhere, and nothing waits."""

from __future__ import annotations

import os
import stat


def open_regular(path, owner=None):
    """A stream of a regular file. OSError for a link, a pipe, a device, or a file of somebody else than `owner`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or owner not in (None, found.st_uid):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file of its owner")
    return os.fdopen(descriptor, "rb")
