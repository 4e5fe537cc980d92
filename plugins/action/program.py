# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of program: reads the files. Documented with the module of the same name."""

from __future__ import annotations

import os

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.daoman.fastapi.plugins.modules.program import ARGUMENTS
from ansible_collections.daoman.fastapi.plugins.plugin_utils import program_source


class ActionModule(ActionBase):
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _valid, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        args["files"] = [self._single(item) for item in args["files"]]
        for item in args["directories"]:
            args["files"] += self._directory(item)
        result.update(
            self._execute_module(module_name="daoman.fastapi.program", module_args=args, task_vars=task_vars))
        return result

    def _single(self, item):
        if (item["src"] is None) == (item["content"] is None):
            raise AnsibleActionFail(f"files: {item['dest']} needs either src or content.")
        content = item["content"] if item["src"] is None else self._text(self._needle(item["src"]))
        return {"dest": item["dest"], "mode": item["mode"], "content": content}

    def _directory(self, item):
        if (item["src"] is None) == (item["module_utils"] is None):
            raise AnsibleActionFail(f"directories: {item['dest']} needs either src or module_utils.")
        top = program_source.module_utils(item["module_utils"]) if item["module_utils"] else self._needle(item["src"])
        found = [
            {"dest": os.path.join(item["dest"], path), "mode": "0644", "content": self._text(source)}
            for path, source in program_source.python_files(top)
        ]
        if not found:
            raise AnsibleActionFail(f"directories: there is no program in {top}.")
        return found

    def _needle(self, name):
        return self._find_needle("files", name)

    def _text(self, path):
        return self._loader.get_text_file_contents(path)
