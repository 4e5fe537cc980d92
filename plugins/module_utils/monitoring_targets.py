# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom Prometheus asks: the exporters of hosts, by the inventory."""

from __future__ import annotations

import ipaddress
import json

# The exporters of the role, by job.
PORTS = {"node": 9100, "app": 9102, "edge": 4040, "nginx": 9113}
LOOPBACK = "127.0.0.1"


class TargetsError(ValueError):
    """A host cannot be asked."""


def is_local(address):
    """Whether only the host itself reaches this address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def endpoint(address, port):
    """Address and port as in a URL."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def targets(hosts, addresses, here, jobs=tuple(PORTS)):
    """The targets of the exporters.

    :arg hosts: names of the hosts whose exporters are asked
    :arg addresses: the address to which each host binds its exporters; one that is missing has none
    :arg here: the host that asks; it reaches its own loopback addresses, and those of no other
    :arg jobs: which exporters these hosts have
    :returns: [{job, instance, address}]
    """
    found = []
    for host in hosts:
        address = addresses.get(host)
        if not address:
            continue
        if host != here and is_local(address):
            raise TargetsError(
                f"{here} cannot ask {host}, whose exporters listen on {address}, for itself alone. Set "
                f"monitoring_exporters_address of {host} to its private address, or its monitoring_exporters to false."
            )
        if address in ("0.0.0.0", "::"):
            raise TargetsError(
                f"The exporters of {host} would listen on all addresses ({address}). Set its "
                "monitoring_exporters_address to its private address."
            )
        found += [{"job": job, "instance": host, "address": endpoint(address, PORTS[job])} for job in jobs]
    return found


def file_sd(items):
    """Targets as Prometheus reads them from a file (`<file_sd_config>` in its manual)."""
    groups = []
    for item in items:
        labels = {"job": item["job"], "instance": item["instance"], **(item.get("labels") or {})}
        groups.append({"targets": [item["address"]], "labels": labels})
    groups.sort(key=lambda group: json.dumps(group, sort_keys=True))
    return groups
