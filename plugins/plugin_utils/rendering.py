# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of modules that write whole files: turns templates into text."""

from __future__ import annotations

import os

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.daoman.fastapi.plugins.module_utils import spec

OVERRIDES = {"trim_blocks": True, "lstrip_blocks": True}


class RenderingAction(ActionBase):
    def _variables(self, role, task_vars):
        """What templates see: the task's variables, those of the role with all nested defaults filled in."""
        variables = {**task_vars, **self._typed(role, task_vars)}
        variables.setdefault("ansible_managed", "Ansible managed")
        return variables

    def _typed(self, role, task_vars):
        """The variables of a role as its spec has them: of the right types, with all nested defaults."""
        if not role:
            return {}
        options = spec.load(role)
        given = {name: self._templar.resolve_variable_expression(name) for name in options if name in task_vars}
        values, problems = spec.check(options, given)
        if problems:
            raise AnsibleActionFail("\n".join(problems))
        return values

    def _render(self, template, variables, origin):
        try:
            source = self._find(template, variables)
            search = []
            folders = (*variables.get("ansible_search_path", []), self._loader.get_basedir(), os.path.dirname(source))
            for folder in folders:
                search += [os.path.join(folder, "templates"), folder]
            templar = self._templar.copy_with_new_env(searchpath=search, available_variables=variables)
            text = trust_as_template(self._loader.get_text_file_contents(source))
            return templar.template(text, escape_backslashes=False, overrides=OVERRIDES) or ""
        except AnsibleError as error:
            raise AnsibleActionFail(f"{origin}: the template {template} cannot be rendered.") from error

    def _find(self, template, variables):
        """Where Ansible looks, then in the user's project: beside the inventory, and where the command was run."""
        try:
            return self._find_needle("templates", template)
        except AnsibleError:
            for folder in filter(None, (variables.get("inventory_dir"), os.getcwd())):
                for path in (os.path.join(folder, "templates", template), os.path.join(folder, template)):
                    if os.path.isfile(path):
                        return path
            raise
