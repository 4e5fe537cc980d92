# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of modules that note who ran them."""

from __future__ import annotations

import getpass
import os
import socket

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


def who():
    """Who runs Ansible, and where."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def this_run():
    """What tells this run of a playbook from all others: all its tasks are children of one process."""
    return " ".join((socket.gethostname(), str(os.getppid()), _started(os.getppid())))


def is_over(run):
    """Whether a run is known to have ended: its process was one of this host, and is there no more."""
    host, pid, started = run.split(" ") if run.count(" ") == 2 else ("", "", "")
    return host == socket.gethostname() and started not in ("", _started(pid))


def _started(pid):
    """When a process was started, in the kernel's ticks; "?" where there is none. Empty where that cannot be known."""
    if not os.path.exists("/proc/self/stat"):
        return ""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[19]
    except OSError:
        return "?"


class ByWhom(ActionBase):
    """Calls the module of the same name and tells it who runs Ansible."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = {"who": who(), **self._task.args}
        if not arguments.get("name"):
            raise AnsibleActionFail("It is not clear which app is meant. Name it: -e app=NAME")
        answer = self._execute_module(self._task.resolved_action, module_args=arguments, task_vars=task_vars)
        if is_over(answer.pop("locked_by_run", "")):
            arguments["break_lock"] = True
            answer = self._execute_module(self._task.resolved_action, module_args=arguments, task_vars=task_vars)
        answer.pop("locked_by", None)
        result.update(answer)
        return result
