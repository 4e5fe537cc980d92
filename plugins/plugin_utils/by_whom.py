# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of modules that note who ran them."""

from __future__ import annotations

import getpass
import socket

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


def who():
    """Who runs Ansible, and where."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


class ByWhom(ActionBase):
    """Calls the module of the same name and tells it who runs Ansible."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = {"who": who(), **self._task.args}
        if not arguments.get("name"):
            raise AnsibleActionFail("It is not clear which app is meant. Name it: -e app=NAME")
        result.update(
            self._execute_module(self._task.resolved_action, module_args=arguments, task_vars=task_vars)
        )
        return result
