# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs commands on the host for a release, as root or as the app's user, and walks its trees."""

from __future__ import annotations

import os
import pwd
import subprocess

from ansible_collections.daoman.fastapi.plugins.module_utils.release import ReleaseError


class Shell:
    """Runs commands with a clean environment. `env` is what the user wants seen by git, pip and uv."""

    def __init__(self, env=None, timeout=900):
        self.env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "GIT_TERMINAL_PROMPT": "0",
            # The host's own certificates: a private index or proxy is trusted as the rest of the host trusts it.
            "UV_SYSTEM_CERTS": "1",
            **{str(key): str(value) for key, value in (env or {}).items()},
        }
        self.timeout = timeout

    def run(self, argv, phase, message, user=None, cwd="/", env=None, timeout=None, check=True):
        """Run a command; its output and exit code. ReleaseError with `message` and the output when it fails."""
        environment = {"HOME": "/root", **self.env, **(env or {})}
        identity = {}
        if user:
            account = pwd.getpwnam(user)
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        timeout = timeout or self.timeout
        try:
            done = subprocess.run(
                argv,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
                umask=0o022,
                **identity,
            )
        except subprocess.TimeoutExpired as exc:
            output = (exc.stdout or b"").decode("utf-8", "replace")
            raise ReleaseError(phase, f"{message}: not done within {timeout} s", output) from exc
        except OSError as exc:
            raise ReleaseError(phase, f"{message}: {argv[0]}: {exc.strerror}") from exc
        output = done.stdout.decode("utf-8", "replace")
        if check and done.returncode != 0:
            raise ReleaseError(phase, f"{message} ({' '.join(argv[:3])} ... ended with {done.returncode})", output)
        return output, done.returncode


def own(top, uid, gid, modes=None):
    """Give a tree to uid and gid; with `modes` (directory, file) set them too; what is executable stays so."""
    for directory, names, files in os.walk(top):
        for path in [directory] + [os.path.join(directory, name) for name in files]:
            os.lchown(path, uid, gid)
            if modes and not os.path.islink(path):
                is_directory = path == directory
                mode = modes[0 if is_directory else 1]
                if not is_directory and os.stat(path).st_mode & 0o100:
                    mode |= (mode & 0o444) >> 2
                os.chmod(path, mode)
        for name in names:
            if os.path.islink(os.path.join(directory, name)):
                os.lchown(os.path.join(directory, name), uid, gid)


def make_directory(path, uid=0, gid=0, mode=0o755):
    os.makedirs(path, exist_ok=True)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def write_file(path, text, mode):
    """Write a file as root with its final mode from the first moment on."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(
        os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        "w",
        encoding="utf-8",
        errors="surrogateescape",
    ) as stream:
        stream.write(text)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".new", path)


def point(link, target):
    """Make a symbolic link point to a target by an atomic rename."""
    new = link + ".new"
    if os.path.lexists(new):
        os.unlink(new)
    os.symlink(target, new)
    os.replace(new, link)
