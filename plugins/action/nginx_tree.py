# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of nginx_tree: turns templates into text. Documented with the module of the same name."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible_collections.daoman.fastapi.plugins.modules.nginx_tree import ARGUMENTS
from ansible_collections.daoman.fastapi.plugins.plugin_utils.rendering import RenderingAction


class ActionModule(RenderingAction):
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _valid, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        variables = self._variables(args["role"], task_vars or {})
        args["kept"] = [
            _filled(item["path"], {"name": name})
            for item in args["files"] + args["links"] if item["each"] for name in args["kept"]
        ]
        args["files"] = [
            self._file(item, path, value, origin, variables)
            for item in args["files"] for path, value, origin in self._each(item, variables)
        ]
        args["links"] = [
            {"path": path, "target": _filled(item["target"], value)}
            for item in args["links"] for path, value, _origin in self._each(item, variables)
        ]
        # The texts may have secrets in them: they are neither for the host's journal nor for the output of -vvv.
        result.update(self._execute_module(
            module_name="daoman.fastapi.nginx_tree", module_args=args,
            task_vars={**(task_vars or {}), "ansible_no_target_syslog": True}))
        result.pop("invocation", None)
        return result

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


def _filled(pattern, value):
    try:
        return pattern if value is None else pattern.format(**value)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise AnsibleActionFail(f"{pattern} cannot be filled in: {error!r}") from error
