# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of nginx_tree: turns templates into text. Documented with the module of the same name."""

from __future__ import annotations

import os

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.daoman.fastapi.plugins.module_utils import spec
from ansible_collections.daoman.fastapi.plugins.modules.nginx_tree import ARGUMENTS

OVERRIDES = {"trim_blocks": True, "lstrip_blocks": True}


class ActionModule(ActionBase):
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _valid, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        variables = {**(task_vars or {}), **self._typed(args["role"], task_vars or {})}
        variables.setdefault("ansible_managed", "Ansible managed")
        args["files"] = [
            self._file(item, path, value, origin, variables)
            for item in args["files"] for path, value, origin in self._each(item, variables)
        ]
        args["links"] = [
            {"path": path, "target": _filled(item["target"], value)}
            for item in args["links"] for path, value, _origin in self._each(item, variables)
        ]
        result.update(self._execute_module(
            module_name="daoman.fastapi.nginx_tree", module_args=args, task_vars=task_vars))
        return result

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

    def _each(self, item, variables):
        """Once, or for each value in the variable that the item names: (path, value, origin)."""
        name = item["each"]
        if not name:
            yield item["path"], None, item.get("origin")
            return
        values = self._templar.copy_with_new_env(available_variables=variables).resolve_variable_expression(name)
        for index, value in enumerate(values):
            yield _filled(item["path"], value), value, f"{name}[{index}]"

    def _file(self, item, path, value, origin, variables):
        template = (value or {}).get(item["override"]) or item["template"]
        if (template is None) == (item["content"] is None):
            raise AnsibleActionFail(f"{path} needs either a template or content.")
        content = item["content"]
        if template:
            variables = {**variables, **item["vars"], "nginx_tree_origin": origin}
            if value is not None:
                variables[item["as"]] = value
            content = self._render(template, variables, origin or path)
        return {"path": path, "content": content, "origin": origin, "mode": item["mode"]}

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


def _filled(pattern, value):
    try:
        return pattern if value is None else pattern.format(**value)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise AnsibleActionFail(f"{pattern} cannot be filled in: {error!r}") from error
