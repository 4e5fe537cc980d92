# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories that the roles share on a host. Whoever comes first makes them, with owner and mode from here.

A mode that is meant for a directory must not reach those above it: with /var/lib/fastapi closed, nginx does not see
that a site is in maintenance.
"""

from __future__ import annotations

import os
import stat

# What is secret lies in files and directories of their own below these.
SHARED = {
    "/etc/fastapi": 0o755,
    "/usr/local/lib/fastapi": 0o755,
    "/var/lib/fastapi": 0o755,
    "/var/lib/fastapi/nginx": 0o755,
    "/var/lib/fastapi/placeholder": 0o755,
}


def make(path, root=""):
    """Make a directory and those above it, open to others whatever the umask is; shared ones as the table says."""
    made = []
    while not os.path.isdir(root + path):
        made.append(path)
        path = os.path.dirname(path)
    for each in reversed(made):
        # Somebody else may be at it as well.
        try:
            os.mkdir(root + each)
        except FileExistsError:
            continue
        os.chmod(root + each, SHARED.get(each, 0o755))


def correct(root=""):
    """Give shared directories that are there their owner and mode; those that had others."""
    wrong = []
    for path, mode in SHARED.items():
        try:
            status = os.lstat(root + path)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            continue
        if (status.st_uid, status.st_gid) != (0, 0):
            os.chown(root + path, 0, 0)
            wrong.append(path)
        if stat.S_IMODE(status.st_mode) != mode:
            os.chmod(root + path, mode)
            wrong.append(path)
    return sorted(set(wrong))
