# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs commands of the host as root, and writes files that are root's own."""

from __future__ import annotations

import os
import stat

from . import places
from .release import ReleaseError

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}

# A file that is being written has this at the end of its name.
UNFINISHED = ".new"


def clean_environment():
    """Leave this process, and what it starts, no environment but a plain one."""
    os.environ.clear()
    os.environ.update(ENVIRONMENT)


# Options of an app that limit the time of a phase; of the others it is release.build_timeout.
LIMITS = {"start": "service.timeout_start", "check": "service.timeout_start", "drain": "gunicorn.graceful_timeout"}
BOUNDED = ("fetch", "build", "before_build", "after_build", "migrate", "before_switch", "after_switch", "after_failure")


def not_done(phase, timeout):
    """That the time of a phase is over, and the option that limits it."""
    option = LIMITS.get(phase) or ("release.build_timeout" if phase in BOUNDED else "")
    return f"not done within {timeout} s" + (f" ({option})" if option else "")


class Shell:
    """Runs commands of the host within a time, as root. What an app's author wrote runs in a Cage.

    `run` is AnsibleModule.run_command or one like it.
    """

    def __init__(self, run, timeout=900):
        self._run = run
        self.timeout = timeout

    def run(self, argv, phase, message, cwd="/", env=None, timeout=None, check=True, shown=""):
        """Run a command; its output and exit code. ReleaseError with `message` and the output when it fails."""
        timeout = timeout or self.timeout
        code, out, err = self._run(
            ["timeout", "--kill-after=5", str(timeout), *argv],
            cwd=cwd,
            environ_update=env or {},
            umask=0o022,
            errors="surrogate_then_replace",
            # Or $HOME in a user's command would be root's.
            expand_user_and_vars=False,
        )
        output = out + err
        if code in {124, 137}:  # those of timeout
            raise ReleaseError(phase, f"{message}: {not_done(phase, timeout)}", output)
        if check and code != 0:
            raise ReleaseError(phase, f"{message} ({shown or ' '.join(argv[:3]) + ' ...'} ended with {code})", output)
        return output, code


def make_directory(path, uid=0, gid=0, mode=0o755):
    places.make(path)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def write_file(path, text, mode, encoding="utf-8", group=-1):
    """Write a file as root with its final mode from the first moment on; for a group to read, where one is given."""
    places.make(os.path.dirname(path))
    with open(
        os.open(path + UNFINISHED, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        "w",
        encoding=encoding,
        errors="surrogateescape",
        newline="",
    ) as stream:
        stream.write(text)
        if group >= 0:
            os.fchown(stream.fileno(), -1, group)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + UNFINISHED, path)


def point(link, target):
    """Make a symbolic link point to a target by an atomic rename."""
    new = link + ".new"
    if os.path.lexists(new):
        os.unlink(new)
    os.symlink(target, new)
    os.replace(new, link)


def open_plain(path, dir_fd=None):
    """A descriptor to read a plain file with; None where there is no such file, or a link, a directory or a fifo."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def read_bounded(path, most):
    """Text of a plain file: the beginning, and the end where it is longer. Never through a link, nor from a fifo."""
    descriptor = open_plain(path)
    if descriptor is None:
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        text = stream.read(most)
        size = stream.seek(0, os.SEEK_END)
        if size > most:
            stream.seek(max(size - most // 2, most // 2))
            text = text[: most // 2] + b"\n[...]\n" + stream.read(most // 2)
    return text.decode("utf-8", "replace")


def let_read(base, path, gid):
    """Let a group read a directory below `base`, and what is made in it later. Not by way of links."""
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    os.fchmod(descriptor, 0o751)
    for part in path.split("/"):
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        except OSError as exc:
            raise ReleaseError("build", f"the static directory '{path}' is no directory in {base}.") from exc
        finally:
            os.close(descriptor)
        descriptor = below
    try:
        os.fchown(descriptor, -1, gid)
        os.fchmod(descriptor, 0o2750)
    finally:
        os.close(descriptor)
