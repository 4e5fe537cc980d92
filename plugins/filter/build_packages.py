# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: build_packages
short_description: Debian packages with which apps are fetched and built
version_added: 0.1.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Tells from where the apps come what their hosts need, so that git and its thirty packages are installed only for
    apps in git repositories.
options:
  _input:
    description: Elements of C(gunicorn_app_apps), with their defaults filled in.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what is needed
  ansible.builtin.debug:
    msg: "{{ apps | daoman.fastapi.build_packages }}"
  vars:
    apps: "{{ gunicorn_app_apps | daoman.fastapi.with_defaults('gunicorn_app', 'gunicorn_app_apps') }}"
"""

RETURN = r"""
_value:
  description: Names of packages.
  type: list
  elements: str
"""

from ansible_collections.daoman.fastapi.plugins.module_utils._host import release


class FilterModule:
    def filters(self):
        return {"build_packages": release.build_packages}
