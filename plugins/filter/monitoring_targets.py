# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: monitoring_targets
short_description: Whom Prometheus asks, by the inventory
version_added: 0.3.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Lists the exporters of hosts as C(monitoring_targets), each with its job and its host as the instance.
  - A host that binds its exporters to a loopback address can be asked by itself alone. Another one that would have to
    is an error.
positional: hostvars, here, watchers
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description:
      - The variables of all hosts. C(monitoring_exporters) and C(monitoring_exporters_address) are read.
    type: dict
    required: true
  here:
    description: Name of the host that asks.
    type: str
    required: true
  watchers:
    description:
      - Names of the hosts that ask; another one has no targets. Of those which are not in O(_input), only what is the
        host's own is asked.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
# monitoring_targets: "{{ groups['apps'] | daoman.fastapi.monitoring_targets(hostvars, inventory_hostname, ['mon']) }}"
"""

RETURN = r"""
_value:
  description: The targets as C(monitoring_targets).
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.daoman.fastapi.plugins.module_utils import monitoring_targets as listed
from ansible_collections.daoman.fastapi.plugins.module_utils import spec


def address_of(variables):
    """Where a host's exporters listen, or None where it has none."""
    options = spec.load("monitoring")

    def default(name, fallback):
        return (options.get(name) or {}).get("default", fallback)

    if not boolean(variables.get("monitoring_exporters", default("monitoring_exporters", True)), strict=False):
        return None
    return variables.get("monitoring_exporters_address", default("monitoring_exporters_address", listed.LOOPBACK))


def monitoring_targets(hosts, hostvars, here, watchers):
    if here not in watchers:
        return []
    others = [host for host in watchers if host not in hosts]
    addresses = {host: address_of(hostvars[host]) for host in [*hosts, *others]}
    try:
        return listed.targets(hosts, addresses, here) + listed.targets(others, addresses, here, ["node"])
    except listed.TargetsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self):
        return {"monitoring_targets": monitoring_targets}
