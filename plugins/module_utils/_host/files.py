# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads files as root where an app may have laid something else in their place: a link, a fifo, a file without end.

A path is walked by descriptors from its first directory on (`/srv`, `/run`, which are root's and may be links), without
following links; what it ends at must be a regular file; and no more is read than was asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import stat

from .accounts import COMMENT
from .release import APP_NAME, ID, Layout

# Bytes of a file that are read where nothing else is said.
MOST = 1 << 20


@contextlib.contextmanager
def opened(path, flags=os.O_RDONLY):
    """A descriptor of a path that no link leads away from. OSError where one would."""
    first, *rest = os.path.abspath(path).strip("/").split("/")
    names = rest or [first]
    descriptor = os.open("/" + first if rest else "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names[:-1]:
            below = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        # A fifo without a writer would block the open, and a terminal become ours.
        safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        below = os.open(names[-1], flags | safe, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened_by_links(path):
    """The same of a path where links are in order, because whoever made them may read it: such as a certificate."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def stream(path, owner=None):
    """A stream of a regular file; OSError for anything else, such as a link, or of another owner."""
    with opened(path) as descriptor:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or owner not in (None, found.st_uid):
            raise OSError(f"{path} is not a regular file of its owner")
        return os.fdopen(os.dup(descriptor), "rb")


def read_bytes(path, most=MOST, end=False, links=False):
    """The first bytes of a file, or the last with `end`; OSError where it is none, or a link without `links`."""
    with opened_by_links(path) if links else opened(path) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        if end:
            os.lseek(descriptor, max(os.fstat(descriptor).st_size - most, 0), os.SEEK_SET)
        parts = []
        while most > 0:
            part = os.read(descriptor, min(most, 1 << 18))
            if not part:
                break
            parts.append(part)
            most -= len(part)
        return b"".join(parts)


def read_text(path, most=MOST):
    """The text of a file, or nothing."""
    try:
        return read_bytes(path, most).decode("utf-8", "replace")
    except OSError:
        return ""


def read_json(path, most=8 * MOST):
    """The dict in a file, or an empty one."""
    try:
        found = json.loads(read_bytes(path, most))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_app(name, root="/"):
    """Whether this is an app of the collection: its account is one that the role made, its directory is root's."""
    if not APP_NAME.match(name) or name.endswith("\n"):
        return False
    try:
        comment = pwd.getpwnam(name).pw_gecos.partition(",")[0]
        with opened(Layout(name, root).releases, os.O_PATH | os.O_DIRECTORY) as descriptor:
            return comment == COMMENT and os.fstat(descriptor).st_uid == 0
    except (KeyError, OSError):
        return False


def apps(root="/"):
    """Names of the apps on this host."""
    try:
        names = os.listdir(os.path.join(root, "srv"))
    except OSError:
        return []
    return sorted(name for name in names if is_app(name, root))


def is_release(name):
    return ID.match(name) is not None and not name.endswith("\n")
