# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a tree over that an untrusted account has laid out, and closes it to change.

Everything goes by directory descriptors and never through a link: at no moment does a name that somebody could swap
decide what is opened or changed. What is not a plain file, a directory or a link is refused. Links stay as they are and
are not followed; below a published directory they must stay inside it.
"""

from __future__ import annotations

import itertools
import os
import stat
import time

from .release import ReleaseError
from .shell import open_plain

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a fifo would keep the one waiting who opens it.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Of a directory through which nginx passes, and which it may not list.
PASSABLE = 0o751
# Each level is an open descriptor, of which a process has 1024.
DEEPEST = 200
# Entries of one tree; a large environment has 50,000.
MOST_ENTRIES = 1_000_000
# Seconds for a tree to be gone, and names of a directory that are read at once.
LONGEST_REMOVAL = 600
AT_ONCE = 10_000
# Of a file that decides what is installed.
MOST_TEXT = 64 << 20
# As many as the kernel follows.
MOST_LINKS = 40
ACL = ("system.posix_acl_access", "system.posix_acl_default")
KINDS = {
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Refused(ReleaseError):
    """The tree holds what may not become part of a release."""

    def __init__(self, path, what):
        super().__init__("build", f"{path!r} of the release is {what}: that is refused. Remove it from what is built.")


def open_below(top, path, flags=DIRECTORY):
    """A descriptor of `path` below `top`, of which no component is a link. OSError where there is none."""
    descriptor = os.open(top, DIRECTORY)
    try:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for index, part in enumerate(parts):
            if part == "..":
                raise NotADirectoryError(path)
            last = index == len(parts) - 1
            below = os.open(part, flags if last else DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Modes:
    """What the entries of a tree become: owner, group, and modes of directories and files; executable files stay so."""

    def __init__(self, uid, gid, directory=0o750, file=0o640):
        self.uid, self.gid, self.directory, self.file = uid, gid, directory, file

    def of(self, mode):
        if stat.S_ISDIR(mode):
            return self.directory
        return self.file | ((self.file & 0o444) >> 2 if mode & 0o100 else 0)


def take_over(top, builder, modes, published=(), passed=()):
    """Give a tree to root and close it; the links in what is published, which nginx does not follow by itself.

    :arg builder: uid that made it; what others own is refused, but root
    :arg published: directories below `top` that nginx reads: readable for all, and their parents passable
    :arg passed: further paths whose parents must be passable
    """
    normal = ([os.path.normpath(path) for path in paths] for paths in (published, passed))
    return _Taker(top, builder, modes, *normal).run()


class _Taker:
    def __init__(self, top, builder, modes, published, passed):
        self.top, self.builder, self.modes, self.published, self.passed = top, builder, modes, published, passed
        self.readable = Modes(modes.uid, modes.gid, 0o755, 0o644)
        self.count = 0
        self.links = []

    def run(self):
        for path in self.published:
            self._check_published(path)
        descriptor = os.open(self.top, DIRECTORY)
        self.device = os.fstat(descriptor).st_dev
        self._directory(descriptor, "", 0)
        return sorted(self.links)

    def _check_published(self, path):
        if path == ".":
            return
        try:
            os.close(open_below(self.top, path))
        except OSError as exc:
            raise ReleaseError(
                "build",
                f"the static directory '{path}' is not a directory of the source. It may not be a link, nor lie behind "
                "one, because nginx would serve what the link leads to.",
            ) from exc

    def _is_published(self, path):
        return any(each in (".", path) or path.startswith(each + "/") for each in self.published)

    def _is_parent(self, path):
        return any(path == "" or each.startswith(path + "/") for each in [*self.published, *self.passed])

    def _directory(self, descriptor, path, depth):
        """Takes ownership of `descriptor` and closes it."""
        try:
            if depth > DEEPEST:
                raise Refused(path, f"nested deeper than {DEEPEST} directories")
            public = self._is_published(path)
            # First the directory: from then on nobody else changes what it names.
            passable = PASSABLE if not public and self._is_parent(path) else None
            self._give(descriptor, self.readable if public else self.modes, path, passable)
            for name in self._names(descriptor, path):
                facts = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                self._entry(descriptor, name, facts, f"{path}/{name}" if path else name, public, depth)
        finally:
            os.close(descriptor)

    def _names(self, descriptor, path):
        with os.scandir(descriptor) as found:
            names = [entry.name for entry in itertools.islice(found, MOST_ENTRIES + 1 - self.count)]
        self.count += len(names)
        if self.count > MOST_ENTRIES:
            raise Refused(path, f"part of a tree of more than {MOST_ENTRIES} files")
        return names

    def _entry(self, parent, name, facts, path, public, depth):
        kind = stat.S_IFMT(facts.st_mode)
        if kind in KINDS:
            raise Refused(path, KINDS[kind])
        # Tasks of the user's own may have put something there, as root. A second name of a file would be another's.
        roots = facts.st_uid == 0 and (kind != stat.S_IFREG or facts.st_nlink == 1)
        if facts.st_uid != self.builder and not roots:
            raise Refused(path, f"owned by uid {facts.st_uid}, which did not build it")
        if kind == stat.S_IFLNK:
            if public:
                self._check_link(parent, name, path)
                self.links.append(path)
            os.chown(name, self.modes.uid, self.modes.gid, dir_fd=parent, follow_symlinks=False)
            return
        try:
            below = os.open(name, DIRECTORY if kind == stat.S_IFDIR else FILE, dir_fd=parent)
        except OSError as exc:
            raise Refused(path, f"not what it was a moment ago ({exc.strerror})") from exc
        if kind == stat.S_IFDIR:
            self._directory(below, path, depth + 1)
            return
        try:
            self._give(below, self.readable if public or self._is_published(path) else self.modes, path)
        finally:
            os.close(below)

    def _give(self, descriptor, modes, path, mode=None):
        facts = os.fstat(descriptor)
        if facts.st_dev != self.device:
            raise Refused(path, "on another file system")
        if not stat.S_ISDIR(facts.st_mode) and not stat.S_ISREG(facts.st_mode):
            raise Refused(path, "not a plain file")
        if (facts.st_uid, facts.st_gid) != (modes.uid, modes.gid):
            os.fchown(descriptor, modes.uid, modes.gid)
        mode = modes.of(facts.st_mode) if mode is None else mode
        for name in os.listxattr(descriptor) if facts.st_uid == self.builder else ():
            if name in ACL:
                os.removexattr(descriptor, name)
        if stat.S_IMODE(facts.st_mode) != mode:
            os.fchmod(descriptor, mode)

    def _check_link(self, parent, name, path):
        """A link that nginx could be led by must end inside the directory that is published."""
        target = os.readlink(name, dir_fd=parent)
        root = max((each for each in self.published if each == "." or path.startswith(each + "/")), key=len)
        base = "" if root == "." else root
        if resolve_inside(self.top, target, base, os.path.dirname(path)) is None:
            raise ReleaseError(
                "build",
                f"the link {path!r} in the static directory '{root}' leads out of it, to {target!r}, which nginx would "
                "serve. Remove the link, or copy what it leads to.",
            )


def resolve_inside(top, path, base="", start=""):
    """Where `path`, read from `start` below `top`, ends: a path below `top`. None where a link leads out of `base`."""
    parts = [part for part in start.split("/") if part]
    lowest = len([part for part in base.split("/") if part])
    todo, links = path.split("/"), 0
    if path.startswith("/"):
        return None
    while todo:
        part = todo.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if len(parts) <= lowest:
                return None
            parts.pop()
            continue
        link = _link_at(top, parts, part)
        if link is None:
            parts.append(part)
            continue
        links += 1
        if links > MOST_LINKS or link.startswith("/"):
            return None
        todo = link.split("/") + todo
    return "/".join(parts)


def _link_at(top, parts, name):
    """What a link says; None where there is no link, or nothing: what comes to lie there does so inside."""
    try:
        descriptor = open_below(top, "/".join(parts))
    except OSError:
        return None
    try:
        return os.readlink(name, dir_fd=descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def reader(top, directory):
    """A function that gives the text of a file in a directory below `top`, or None. Links are followed inside `top`."""

    def read(name):
        found = resolve_inside(top, name, start=directory)
        if found is None:
            return None
        try:
            parent = open_below(top, os.path.dirname(found))
        except OSError:
            return None
        descriptor = open_plain(os.path.basename(found) or ".", parent)
        os.close(parent)
        if descriptor is None:
            return None
        with os.fdopen(descriptor, "rb") as stream:
            return stream.read(MOST_TEXT).decode("utf-8", "replace")

    return read


def replace_by_link(top, path, target):
    """Root's own: put a link at `path` below `top`, in the place of whatever is there."""
    parent = os.path.dirname(path)
    descriptor = make_below(top, parent) if parent else os.open(top, DIRECTORY)
    name = os.path.basename(path)
    try:
        remove_at(descriptor, name)
        os.symlink(target, name, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def make_below(top, path, mode=0o750, gid=-1):
    """A descriptor of the directory `path` below `top`, made where it is missing; never through a link."""
    descriptor = os.open(top, DIRECTORY)
    for part in [part for part in path.split("/") if part not in ("", ".")]:
        try:
            os.mkdir(part, mode, dir_fd=descriptor)
            below = os.open(part, DIRECTORY, dir_fd=descriptor)
            os.fchown(below, 0, gid if gid >= 0 else os.fstat(descriptor).st_gid)
            os.fchmod(below, mode)
        except FileExistsError:
            below = os.open(part, DIRECTORY, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def remove_at(descriptor, name):
    """Remove whatever has this name in a directory, and all below it; nothing where there is nothing.

    However deep it is: what lies below is moved to the top before it is looked at. And however much is added meanwhile:
    a process of an app that was handed a descriptor can still write to a directory that no path leads to any more.
    Each is closed first, and there is a deadline.
    """
    try:
        facts = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(facts.st_mode):
        os.unlink(name, dir_fd=descriptor)
        return
    deadline = time.monotonic() + LONGEST_REMOVAL
    top = _closed(name, descriptor)
    try:
        for each in _entries(top, name, deadline):
            if _unlinked(top, each):
                continue
            below = _closed(each, top)
            try:
                for further in _entries(below, name, deadline):
                    if not _unlinked(below, further):
                        os.rename(further, f".removed-{os.urandom(8).hex()}", src_dir_fd=below, dst_dir_fd=top)
            finally:
                os.close(below)
            os.rmdir(each, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=descriptor)


def _closed(name, parent):
    """A descriptor of a directory to which nobody else can add anything from now on."""
    descriptor = os.open(name, DIRECTORY, dir_fd=parent)
    os.fchown(descriptor, os.geteuid(), -1)
    os.fchmod(descriptor, 0o700)
    return descriptor


def _entries(descriptor, what, deadline):
    """Names in a directory, until there are none: each must be gone before the next is asked for."""
    while True:
        with os.scandir(descriptor) as found:
            names = [entry.name for entry in itertools.islice(found, AT_ONCE)]
        if not names:
            return
        for name in names:
            if time.monotonic() > deadline:
                raise ReleaseError("remove", f"{what!r} is not gone within {LONGEST_REMOVAL} s: something adds to it.")
            yield name


def _unlinked(descriptor, name):
    """Whether it was no directory, and is gone."""
    if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=descriptor)
    return True


def remove(path):
    """Remove a file, a link or a whole tree whose parent is root's own; nothing where there is nothing."""
    try:
        parent = os.open(os.path.dirname(path), DIRECTORY)
    except FileNotFoundError:
        return
    try:
        remove_at(parent, os.path.basename(path))
    finally:
        os.close(parent)
