# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of certbot_renewal: brings the package that the hook imports. Documented with the module."""

from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.daoman.fastapi.plugins.module_utils.program_files import PACKAGE_SOURCE
from ansible_collections.daoman.fastapi.plugins.plugin_utils import program_source


class ActionModule(ActionBase):
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        package = program_source.python_files(program_source.module_utils(PACKAGE_SOURCE))
        args = {
            **self._task.args,
            "package": {path: self._loader.get_text_file_contents(source) for path, source in package},
        }
        result.update(self._execute_module("daoman.fastapi.certbot_renewal", module_args=args, task_vars=task_vars))
        return result
