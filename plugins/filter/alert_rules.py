# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: alert_rules
short_description: The rule files of the role monitoring
version_added: 0.3.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Puts thresholds into the rule files of the role, makes the changes to single alerts, and adds where each has its
    runbook.
positional: changes, runbook, own
options:
  _input:
    description: The thresholds by name, all of them.
    type: dict
    required: true
  changes:
    description: What is to be another way, by alert, as in C(monitoring_alerts).
    type: dict
    required: true
  runbook:
    description: Address of the page with a section for each alert.
    type: str
    required: true
  own:
    description: Rule files of the user's, by name, as in C(monitoring_prometheus_rules).
    type: dict
    default: {}
"""

EXAMPLES = r"""
# files: "{{ thresholds | daoman.fastapi.alert_rules({'TargetDown': {'for': '5m'}}, 'https://example.com/alerts') }}"
"""

RETURN = r"""
_value:
  description: The files as M(daoman.fastapi.prometheus_config) takes them, below C(rules/).
  type: list
  elements: dict
"""

from ansible.plugins.filter.core import to_nice_yaml
from ansible_collections.daoman.fastapi.plugins.module_utils import alerts


def alert_rules(thresholds, changes, runbook, own=None):
    wanted = {f"rules/{name}": groups for name, groups in alerts.files(thresholds, changes, runbook).items()}
    wanted.update({f"rules/own-{name}.yml": groups for name, groups in (own or {}).items()})
    return [
        {"dest": dest, "content": to_nice_yaml(groups, sort_keys=False, width=1000)} for dest, groups in wanted.items()
    ]


class FilterModule:
    def filters(self):
        return {"alert_rules": alert_rules}
