# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs commands on the host for a release, as root or as the app's user, and walks its trees."""

from __future__ import annotations

import os
import pwd

from . import places
from .release import ReleaseError

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "GIT_TERMINAL_PROMPT": "0",
    # The host's own certificates: a private index or proxy is trusted as the rest of the host trusts it.
    "UV_SYSTEM_CERTS": "1",
}

# A file that is being written has this at the end of its name.
UNFINISHED = ".new"


def clean_environment(build_env):
    """Leave this process, and what it starts, no environment but a plain one and what the user wants for building."""
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    os.environ.update(build_env)


class Shell:
    """Runs commands, within a time, as root or as a user of the host. `run` is AnsibleModule.run_command."""

    def __init__(self, run, timeout=900):
        self._run = run
        self.timeout = timeout

    def run(self, argv, phase, message, user=None, cwd="/", env=None, timeout=None, check=True, shown=""):
        """Run a command; its output and exit code. ReleaseError with `message` and the output when it fails."""
        timeout = timeout or self.timeout
        wrapped = ["timeout", "--kill-after=5", str(timeout)]
        if user:
            account = pwd.getpwnam(user)
            wrapped += ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        code, out, err = self._run(
            [*wrapped, *argv],
            cwd=cwd,
            environ_update=env or {},
            umask=0o022,
            errors="surrogate_then_replace",
            # Or $HOME in a user's command would be root's.
            expand_user_and_vars=False,
        )
        output = out + err
        if code in {124, 137}:  # those of timeout
            raise ReleaseError(phase, f"{message}: not done within {timeout} s", output)
        if check and code != 0:
            raise ReleaseError(phase, f"{message} ({shown or ' '.join(argv[:3]) + ' ...'} ended with {code})", output)
        return output, code


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
    places.make(path)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def write_file(path, text, mode, encoding="utf-8"):
    """Write a file as root with its final mode from the first moment on."""
    places.make(os.path.dirname(path))
    with open(
        os.open(path + UNFINISHED, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        "w",
        encoding=encoding,
        errors="surrogateescape",
        newline="",
    ) as stream:
        stream.write(text)
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


# Run by the app's user in its project: whatever links lie in the source or in the shared directory, nothing is done
# with root's rights. What the source brings at such a path is what the first release begins with.
SHARE = """
set -eu
shared=$1; shift
for path; do
    kept="$shared/$path"
    mkdir -p "$(dirname "$kept")" "$(dirname "$path")"
    if [ ! -e "$kept" ]; then
        if [ -e "$path" ]; then cp -a "$path" "$kept"; else mkdir "$kept"; fi
    fi
    rm -rf "$path"
    ln -s "$kept" "$path"
done
"""


def share(layout, shell, project, paths):
    """Replace paths of a project by links into the app's shared directory."""
    if paths:
        command = ["/bin/sh", "-c", SHARE, "share", layout.shared, *paths]
        shell.run(command, "fetch", "cannot link the shared paths", user=layout.name, cwd=project)


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
