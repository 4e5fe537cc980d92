# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: file_sd
short_description: Targets as Prometheus reads them from a file
version_added: 0.3.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Makes of C(monitoring_targets) what C(file_sd_configs) takes, in an order that does not depend on the inventory's.
positional: _input
options:
  _input:
    description: The targets, each with job, instance, address and perhaps labels.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
# content: "{{ monitoring_targets | daoman.fastapi.file_sd | to_nice_json }}"
"""

RETURN = r"""
_value:
  description: Groups of targets with their labels.
  type: list
  elements: dict
"""

from ansible_collections.daoman.fastapi.plugins.module_utils.monitoring_targets import file_sd


class FilterModule:
    def filters(self):
        return {"file_sd": file_sd}
