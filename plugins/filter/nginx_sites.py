# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: nginx_sites
short_description: Turns fastapi_apps into the variable of the role nginx
version_added: 0.1.0
author: The daoman.fastapi contributors (@daoman)
description:
  - >-
    Makes a site of each application: its name, domain and aliases, what stands below C(nginx), and as its only
    server the application's live socket.
  - Directories of C(nginx.static) that are relative to the source become absolute.
  - An application that does not fit its spec is an error that lists all problems.
positional: _input
options:
  _input:
    description: The applications, as in C(fastapi_apps).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
# nginx_sites: "{{ fastapi_apps | daoman.fastapi.nginx_sites }}"
"""

RETURN = r"""
_value:
  description: The applications as C(nginx_sites).
  type: list
  elements: dict
"""

from ansible_collections.daoman.fastapi.plugins.module_utils import apps
from ansible_collections.daoman.fastapi.plugins.plugin_utils.filters import of_apps


class FilterModule:
    def filters(self):
        return {"nginx_sites": of_apps(apps.nginx_sites)}
