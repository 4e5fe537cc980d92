# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: placeholders
short_description: Turns certificates into those of the module placeholder_certificates
version_added: 0.2.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Leaves out what is to be removed, which nginx may still use, and what a placeholder has no need of.
options:
  _input:
    description: The certificates, as C(certbot_tls_certificates).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Sites have something to start with
  daoman.fastapi.placeholder_certificates:
    certificates: "{{ certbot_tls_certificates | daoman.fastapi.placeholders }}"
"""

RETURN = r"""
_value:
  description: The certificates, each with C(name) and C(domains).
  type: list
  elements: dict
"""

from ansible_collections.daoman.fastapi.plugins.module_utils import apps


class FilterModule:
    def filters(self):
        return {"placeholders": apps.placeholders}
