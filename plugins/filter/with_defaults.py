# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: with_defaults
short_description: Fill in the nested defaults of a role's option
version_added: 0.1.0
author: The daoman.fastapi contributors (@daoman)
description:
  - C(defaults/main.yml) of a role holds the defaults of its variables, not of the options inside them. This filter
    takes those from the role's argument specification, so that templates and tasks need none of their own.
positional: role, option
options:
  _input:
    description: Value of the option.
    type: raw
    required: true
  role:
    description: Name of a role of this collection.
    type: str
    required: true
  option:
    description: Name of the option, a variable of the role.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the apps with every option
  ansible.builtin.debug:
    msg: "{{ gunicorn_app_apps | daoman.fastapi.with_defaults('gunicorn_app', 'gunicorn_app_apps') }}"
"""

RETURN = r"""
_value:
  description: The value with its defaults filled in.
  type: raw
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.daoman.fastapi.plugins.module_utils import spec


def with_defaults(value, role, option):
    filled, problems = spec.check_option(spec.load(role)[option], value, option)
    if problems:
        raise AnsibleFilterError("\n".join(problems))
    return filled


class FilterModule:
    def filters(self):
        return {"with_defaults": with_defaults}
