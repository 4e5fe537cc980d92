# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's part of daoman.fastapi.host_check: tells the host which version of the collection this is."""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.daoman.fastapi.plugins.plugin_utils.collection_version import collection_version


class ActionModule(ActionBase):
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = {"collection": collection_version(), **self._task.args}
        result.update(
            self._execute_module(module_name="daoman.fastapi.host_check", module_args=arguments, task_vars=task_vars))
        return result
