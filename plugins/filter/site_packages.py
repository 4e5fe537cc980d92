# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: site_packages
short_description: Debian packages of all roles of the site playbook
version_added: 0.1.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Lists what the roles would install one after the other, so that one run of apt does for them all.
positional: app_packages, nginx_packages
options:
  _input:
    description: The apps, as C(fastapi_apps).
    type: list
    elements: dict
    required: true
  app_packages:
    description: Value of C(gunicorn_app_packages) where it is set.
    type: list
    elements: str
  nginx_packages:
    description: Value of C(nginx_packages) where it is set. Without one, the role's default.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Install | Packages of all roles are present
  ansible.builtin.apt:
    name: "{{ fastapi_apps | daoman.fastapi.site_packages }}"
"""

RETURN = r"""
_value:
  description: Names of packages.
  type: list
  elements: str
"""

from ansible_collections.daoman.fastapi.plugins.module_utils import apps
from ansible_collections.daoman.fastapi.plugins.plugin_utils.filters import of_apps


class FilterModule:
    def filters(self):
        return {"site_packages": of_apps(apps.site_packages)}
