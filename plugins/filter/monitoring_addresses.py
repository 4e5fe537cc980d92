# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: monitoring_addresses
short_description: From where a host's exporters are asked, by the inventory
version_added: 0.3.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Lists the addresses of the hosts that ask the exporters of another one, as C(hardening_monitors).
  - That is its own C(monitoring_exporters_address), as it asks from its private address. Where that is a loopback
    address, it is what C(ansible_host) says, or else its name.
  - Nobody asks exporters that are off or bound to a loopback address.
positional: hostvars, here
options:
  _input:
    description: Names of the hosts that ask.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of all hosts.
    type: dict
    required: true
  here:
    description: Name of the host that is asked.
    type: str
    required: true
"""

EXAMPLES = r"""
# hardening_monitors: "{{ groups['mon'] | daoman.fastapi.monitoring_addresses(hostvars, inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The addresses and names.
  type: list
  elements: str
"""

from ansible_collections.daoman.fastapi.plugins.filter.monitoring_targets import address_of
from ansible_collections.daoman.fastapi.plugins.module_utils.monitoring_targets import is_local


def monitoring_addresses(watchers, hostvars, here):
    if is_local(address_of(hostvars[here]) or "localhost"):
        return []
    found = []
    for host in watchers:
        if host != here:
            own = address_of(hostvars[host]) or "localhost"
            found.append(hostvars[host].get("ansible_host", host) if is_local(own) else own)
    return found


class FilterModule:
    def filters(self):
        return {"monitoring_addresses": monitoring_addresses}
