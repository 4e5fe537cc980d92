# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: gunicorn_apps
short_description: Turns fastapi_apps into the variable of the role gunicorn_app
version_added: 0.1.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Takes of each application what C(gunicorn_app_apps) knows, with all defaults filled in.
  - The directories of C(nginx.static) that are relative to the source become C(static_paths), which nginx may read.
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
# gunicorn_app_apps: "{{ fastapi_apps | daoman.fastapi.gunicorn_apps }}"
"""

RETURN = r"""
_value:
  description: The applications as C(gunicorn_app_apps).
  type: list
  elements: dict
"""

from ansible_collections.daoman.fastapi.plugins.module_utils import apps
from ansible_collections.daoman.fastapi.plugins.plugin_utils.filters import of_apps


class FilterModule:
    def filters(self):
        return {"gunicorn_apps": of_apps(apps.gunicorn_apps)}
