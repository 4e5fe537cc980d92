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
        dummy, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        files = [
            self._file(path, item, name, value, origin, task_vars or {})
            for item in args["files"] for path, name, value, origin in self._each(item, item["path"], args["role"])
        ]
        links = [
            {"path": path, "target": _filled(item["target"], value)}
            for item in args["links"] for path, dummy, value, dummy in self._each(item, item["path"], args["role"])
        ]
        args.update(files=files, links=links)
        result.update(self._execute_module(
            module_name="daoman.fastapi.nginx_tree", module_args=args, task_vars=task_vars))
        return result

    def _each(self, item, path, role):
        """Once, or for each item of the variable: (path, what the template calls the item, the item, its origin)."""
        variable = item["each"]
        if not variable:
            yield path, None, None, item.get("origin")
            return
        values = self._templar.resolve_variable_expression(variable)
        if role:
            values, problems = spec.check_option(spec.load(role)[variable], values, variable)
            if problems:
                raise AnsibleActionFail("\n".join(problems))
        for index, value in enumerate(values):
            yield _filled(path, value), item.get("as"), value, "%s[%d]" % (variable, index)

    def _file(self, path, item, name, value, origin, task_vars):
        content = item["content"]
        template = (value or {}).get(item["override"]) or item["template"]
        if (template is None) == (content is None):
            raise AnsibleActionFail("files: %s needs either a template or content." % path)
        if template:
            variables = dict(task_vars, **{"nginx_tree_path": path, "nginx_tree_origin": origin})
            if name:
                variables[name] = value
            content = self._render(template, variables, origin or path)
        return {"path": path, "content": content, "origin": origin, "mode": item["mode"]}

    def _render(self, template, variables, origin):
        try:
            source = self._find(template, variables)
            search = []
            for folder in [os.path.dirname(source)] + variables.get("ansible_search_path", []) + [self._loader.get_basedir()]:
                search += [os.path.join(folder, "templates"), folder]
            variables.setdefault("ansible_managed", "Ansible managed")
            templar = self._templar.copy_with_new_env(searchpath=search, available_variables=variables)
            text = trust_as_template(self._loader.get_text_file_contents(source))
            return templar.template(text, escape_backslashes=False, overrides=OVERRIDES) or ""
        except AnsibleError as error:
            raise AnsibleActionFail("%s: the template %s cannot be rendered." % (origin, template)) from error

    def _find(self, template, variables):
        """Where Ansible looks, then in the user's project: beside the inventory, and where the command was run."""
        try:
            return self._find_needle("templates", template)
        except AnsibleError:
            for folder in (variables.get("inventory_dir"), os.getcwd()):
                for path in (os.path.join(folder or "", "templates", template), os.path.join(folder or "", template)):
                    if folder and os.path.isfile(path):
                        return path
            raise


def _filled(pattern, value):
    try:
        return pattern.format(**value) if value else pattern
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise AnsibleActionFail("%s cannot be filled in: %r" % (pattern, error))
