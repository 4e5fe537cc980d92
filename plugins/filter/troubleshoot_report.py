# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: troubleshoot_report
short_description: One report of what troubleshoot.sh found on several hosts
version_added: 0.3.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Puts the findings of all hosts into one list, the worst first, and the same one on several hosts once.
positional: outputs
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  outputs:
    description: What C(troubleshoot.sh --json) printed, by host. A host that is not in it was not examined.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what is wrong
  ansible.builtin.debug:
    msg: "{{ ['app1'] | daoman.fastapi.troubleshoot_report({'app1': examined.stdout}) }}"
"""

RETURN = r"""
_value:
  description: The lines of the report.
  type: list
  elements: str
"""

from ansible_collections.daoman.fastapi.plugins.module_utils import fleet_report


def troubleshoot_report(hosts, outputs):
    return fleet_report.lines({host: fleet_report.parse(outputs.get(host)) for host in hosts})


class FilterModule:
    def filters(self):
        return {"troubleshoot_report": troubleshoot_report}
