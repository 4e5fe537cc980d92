# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: certbot_packages
short_description: Debian packages of the role certbot_tls
version_added: 0.2.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Lists what the role needs on the host, so that one run of apt can do for several roles.
positional: obtain, dns_plugin
options:
  _input:
    description: Value of C(certbot_tls_version). Empty means Debian's.
    type: str
    required: true
  obtain:
    description: Value of C(certbot_tls_obtain).
    type: bool
    default: true
  dns_plugin:
    description: Value of C(certbot_tls_dns_plugin).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Install | Packages are present
  ansible.builtin.apt:
    name: "{{ certbot_tls_version | daoman.fastapi.certbot_packages }}"
"""

RETURN = r"""
_value:
  description: Names of packages.
  type: list
  elements: str
"""

from ansible_collections.daoman.fastapi.plugins.module_utils import apps


class FilterModule:
    def filters(self):
        return {"certbot_packages": apps.certbot_packages}
