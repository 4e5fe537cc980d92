# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: one_app
short_description: Name of the application that a playbook is to work on
version_added: 0.2.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Gives the name that the user said, or where there is but one application, its name.
  - An error that lists the names where there is a choice to make.
positional: _input, name
options:
  _input:
    description: The applications, as in C(fastapi_apps).
    type: list
    elements: dict
    required: true
  name:
    description: What the user said. Need not be one of the applications, which may be gone from the inventory.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Go back to the release before
  daoman.fastapi.release_rollback:
    name: "{{ fastapi_apps | default([]) | daoman.fastapi.one_app(app | default('')) }}"
"""

RETURN = r"""
_value:
  description: The name.
  type: str
"""

from ansible.errors import AnsibleFilterError


def one_app(apps, name=""):
    names = [app["name"] for app in apps]
    if name:
        return name
    if len(names) == 1:
        return names[0]
    known = f"of {', '.join(names)}" if names else "as fastapi_apps is empty"
    raise AnsibleFilterError(f"Which app? Say one {known}: -e app=NAME")


class FilterModule:
    def filters(self):
        return {"one_app": one_app}
