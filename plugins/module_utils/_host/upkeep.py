# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the links, sockets, directories, owners and modes of an app as the role makes them.

Whatever serves goes on: a link is set before anything is stopped.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import time

from .accounts import mounts
from .ask import connect_unix
from .order import Order
from .release import ReleaseError, read_text
from .shell import make_directory, point
from .switch import Instance, answer, strangers
from .tree import DIRECTORY, remove

# Seconds for a connection to a socket that systemd holds.
CONNECT = 2
# Of a socket unit that nobody gave another mode.
SOCKET_MODE = "\nSocketMode=0660\n"


def directories(layout, passable=False):
    """{path: (uid, gid, modes)} of the app's directories. The first mode is that of a new one.

    :arg passable: whether nginx passes through the shared directory to a static one
    """
    user, builder = pwd.getpwnam(layout.name), pwd.getpwnam(layout.build_account)
    root = os.geteuid()
    return {
        layout.base: (root, root, (0o755,)),
        layout.releases: (root, root, (0o755,)),
        layout.venvs: (root, user.pw_gid, (0o751,)),
        layout.build: (root, root, (0o711,)),
        layout.fetched: (builder.pw_uid, builder.pw_gid, (0o700,)),
        layout.scratch: (builder.pw_uid, builder.pw_gid, (0o700,)),
        layout.cache: (user.pw_uid, user.pw_gid, (0o700,)),
        layout.shared: (user.pw_uid, user.pw_gid, (0o751,) if passable else (0o750, 0o751)),
    }


def _shown(uid, gid, mode):
    return f"{_name(pwd.getpwuid, uid)}:{_name(grp.getgrgid, gid)} {mode:04o}"


def _name(find, number):
    try:
        return find(number)[0]
    except KeyError:
        return str(number)


def _facts(status):
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def wrong_directories(layout, passable=False):
    """{path: (found, wanted)} of the app's directories with another owner or mode, in words."""
    wrong = {}
    for path, (uid, gid, modes) in directories(layout, passable).items():
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(status.st_mode) and status.st_uid == os.geteuid():
            continue  # to another disk, for example: whoever made it keeps what it leads to
        if _facts(status) not in [(uid, gid, mode) for mode in modes]:
            wrong[path] = (_shown(*_facts(status)), _shown(uid, gid, modes[0]))
    return wrong


def keep_directories(layout, passable):
    """Make the app's directories, and give them their owners and modes. What was wrong, in words."""
    wrong = wrong_directories(layout, passable)
    for path in filter(os.path.islink, wrong):
        raise ReleaseError(
            "install", f"{path} is a link of another user than root. Look where it leads, and remove it."
        )
    for path, (uid, gid, modes) in directories(layout, passable).items():
        if path == layout.shared and path in wrong:
            _give_contents(path, uid, gid)
        elif path in {layout.fetched, layout.scratch} and path in wrong:
            remove(path)  # what another account owns there would fail the next build
        if path in wrong or not os.path.isdir(path):
            make_directory(path, uid, gid, modes[0])
    if os.path.lexists(layout.history) and os.lstat(layout.history).st_uid != os.geteuid():
        os.chown(layout.history, os.geteuid(), -1, follow_symlinks=False)
    return [f"{path} was {found}, and is {wanted}" for path, (found, wanted) in wrong.items()]


def _give_contents(path, uid, gid):
    """Give the app what is root's in its shared directory, which was root's as well. A second name is left alone."""
    if os.lstat(path).st_uid != os.geteuid():
        return
    _give_below(os.open(path, DIRECTORY), uid, gid)


def _give_below(descriptor, uid, gid):
    """Closes `descriptor`."""
    try:
        for name in os.listdir(descriptor):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                _give_below(os.open(name, DIRECTORY, dir_fd=descriptor), uid, gid)
            elif status.st_nlink == 1 and status.st_uid == os.geteuid():
                os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.fchown(descriptor, uid, gid)
    finally:
        os.close(descriptor)


def mounted_noexec(path):
    """The mount point that a path is on, where Python can load no compiled module of a package from it, or nothing."""
    try:
        if not os.statvfs(path).f_flag & os.ST_NOEXEC:
            return ""
    except OSError:
        return ""
    path = os.path.realpath(path)
    return max((point for point in mounts() if f"{path}/".startswith(f"{point.rstrip('/')}/")), key=len, default="/")


# -- what serves ------------------------------------------------------------------------------------------------------


def running(layout, shell):
    """Id of the release that runs and answers although live.sock leads to none, or None. `current` knows it best."""
    current = layout.current_id()
    found = sorted(strangers(layout, None), key=lambda id_: (id_ == current, id_), reverse=True)
    up = [id_ for id_ in found if layout.manifest(id_) and Instance(layout, id_, shell).serves()]
    ready = [id_ for id_ in up if answer(layout, id_)[0] == 200]
    return next(iter(ready or [id_ for id_ in up if id_ == current]), None)


def lead_back(layout, id_):
    """Point live.sock to what runs. What was wrong, in words."""
    point(layout.live, layout.socket(id_))
    return f"{layout.live} led to no release, and leads to {id_} again, which had gone on"


def problems(layout, live, shell):
    """What is wrong around the release that serves: pairs of words and a function that puts it right."""
    instance = Instance(layout, live, shell)
    manifest = layout.manifest(live)
    found = []
    if manifest and layout.current_id() != live:
        words = f"{layout.current} led to {_shown_link(layout.current)}, and leads to {live}"
        found.append((words, lambda: point(layout.current, os.path.join("releases", live))))
    before = Order(layout).replaced()
    if before and layout.manifest(before) and layout.previous_id() != before:
        words = f"{layout.previous} led to {_shown_link(layout.previous)}, and leads to {before}"
        found.append((words, lambda: point(layout.previous, os.path.join("releases", before))))
    if not instance.serves():
        return found  # it is started again
    path = layout.socket(live)
    if not _listens(path):
        found.append((f"nothing listened at {path}: the app's units were restarted", instance.restart))
        return found
    group = (manifest or {}).get("inputs", {}).get("socket_group", "")
    try:
        uid, gid = pwd.getpwnam(layout.name).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError:
        return found
    there = _facts(os.lstat(path))
    if there != (uid, gid, 0o660) and SOCKET_MODE in read_text(layout.release(live, "systemd", "socket")):

        def give():
            os.chown(path, uid, gid, follow_symlinks=False)
            os.chmod(path, 0o660)

        found.append((f"{path} was {_shown(*there)}, and is {_shown(uid, gid, 0o660)}", give))
    return found


def _shown_link(path):
    try:
        return os.readlink(path)
    except OSError:
        return "nothing"


def _listens(path):
    """Whether somebody takes connections there; a full queue is nobody's absence."""
    try:
        connect_unix(path, time.monotonic() + CONNECT).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:
        return True
    return True
