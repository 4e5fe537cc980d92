# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways into a host beside the connection that Ansible has: one that is new each time, and one that is kept."""

from __future__ import annotations

import copy
import json
import os
import shlex
import shutil
import tempfile

from ansible.errors import AnsibleError

# ssh takes the first value that it meets of an option, so these win over the user's.
ALIVE = "-o ServerAliveInterval=2 -o ServerAliveCountMax=3"
NEW = f"-o ControlMaster=no -o ControlPath=none {ALIVE}"
KEPT = "-o ControlMaster=auto -o ControlPath={path} -o ControlPersist={seconds} " + ALIVE


class NoWayIn(Exception):
    """The host was not reached, or did not let the user in, or not become root; with the words that were said."""


def is_ssh(connection):
    return connection._load_name.rpartition(".")[2] == "ssh"


def port_of(connection):
    return int(connection.get_option("port") or 22) if is_ssh(connection) else 0


def by_password(connection):
    return is_ssh(connection) and bool(connection.get_option("password"))


def another(connection, options="", timeout=0, port=0):
    """A connection like the given one: the same user, key, host, jump hosts and become method."""
    other = copy.copy(connection)
    other._options, other._origins = dict(connection._options), dict(connection._origins)
    if is_ssh(connection):
        other._connected = False
        other.set_option("ssh_args", f"{options} {connection.get_option('ssh_args') or ''}".strip())
        other.set_option("reconnection_retries", 0)
        # Or it would mix what is said with what went wrong.
        other.set_option("use_tty", False)
        if timeout:
            other.set_option("timeout", timeout)
        if port:
            other.set_option("port", port)
    return other


class Kept:
    """A connection that is held open by itself, and notices within six seconds that it is cut."""

    def __init__(self, connection, seconds):
        self.directory = tempfile.mkdtemp(prefix="fastapi-")
        path = os.path.join(self.directory, "ssh")
        self.connection = another(connection, KEPT.format(path=path, seconds=seconds))

    def __enter__(self):
        return self.connection

    def __exit__(self, *_exc):
        try:
            if is_ssh(self.connection):
                self.connection.reset()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


def say(connection, *words):
    """Run a command as Ansible would run a task, become included; its output, or NoWayIn."""
    command = shlex.join(words)
    if connection.become:
        command = connection.become.build_become_command(command, connection._shell)
    try:
        code, out, err = connection.exec_command(command, in_data=None, sudoable=True)
    except AnsibleError as error:
        raise NoWayIn(words_of(error)) from error
    out, err = out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
    answer = answer_of(out)
    if answer is not None:
        return answer
    if code:
        raise NoWayIn((err.strip() or out.strip() or f"the command ended with {code}")[-1000:])
    return {}


def answer_of(output):
    """The JSON that commit_confirmed.py says, in its output's last line."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except ValueError:
                return None
    return None


def words_of(error):
    text = str(getattr(error, "message", None) or error)
    # After the server's banner come the words that matter.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-6:])
