# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: tls_certificates
short_description: Turns fastapi_apps into the variable of the role certbot_tls
version_added: 0.1.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Makes one certificate for each application, for its domain and its aliases.
  - An application that does not fit its spec is an error that lists all problems.
positional: _input, state
options:
  _input:
    description: The applications, as in C(fastapi_apps).
    type: list
    elements: dict
    required: true
  state:
    description: V(absent) gives the certificates of the applications that are to be removed.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
# certbot_tls_certificates: "{{ fastapi_apps | daoman.fastapi.tls_certificates }}"
"""

RETURN = r"""
_value:
  description: The certificates as C(certbot_tls_certificates).
  type: list
  elements: dict
"""

from ansible_collections.daoman.fastapi.plugins.module_utils import apps
from ansible_collections.daoman.fastapi.plugins.plugin_utils.filters import of_apps


class FilterModule:
    def filters(self):
        return {"tls_certificates": of_apps(apps.tls_certificates)}
