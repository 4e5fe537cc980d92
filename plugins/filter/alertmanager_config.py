# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: alertmanager_config
short_description: The configuration of Alertmanager
version_added: 0.3.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Makes routes, receivers and inhibitions of the variables of the role monitoring. Secrets are named as files.
positional: credentials
options:
  _input:
    description: The variables that begin with C(monitoring_alertmanager_), without that.
    type: dict
    required: true
  credentials:
    description: Directory in which the service finds its secrets.
    type: str
    required: true
"""

EXAMPLES = r"""
# content: "{{ settings | daoman.fastapi.alertmanager_config('/etc/alertmanager') | to_nice_yaml }}"
"""

RETURN = r"""
_value:
  description: The configuration.
  type: dict
"""

from ansible_collections.daoman.fastapi.plugins.module_utils.alertmanager import config


class FilterModule:
    def filters(self):
        return {"alertmanager_config": config}
