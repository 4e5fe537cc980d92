# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: monitoring_sites
short_description: The site by which people see Prometheus and Alertmanager
version_added: 0.3.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Makes an element of C(nginx_sites) that asks for a password, with C(/prometheus/), C(/alertmanager/) and,
    where it is there, C(/grafana/). C(/) leads to the console with the overview.
positional: watches, allow, grafana
options:
  _input:
    description: The name of the site. There is none where it is empty.
    type: str
    required: true
  watches:
    description: Whether this host has Prometheus. There is no site where it has not.
    type: bool
    required: true
  allow:
    description: Addresses and networks that may ask. Empty means all may.
    type: list
    elements: str
    default: []
  grafana:
    description: Whether there is Grafana.
    type: bool
    default: false
"""

EXAMPLES = r"""
# nginx_sites: "{{ 'monitoring.example.com' | daoman.fastapi.monitoring_sites(true, ['10.0.0.0/8']) }}"
"""

RETURN = r"""
_value:
  description: The site in a list, or none.
  type: list
  elements: dict
"""

NAME = "fastapi-monitoring"
USERS = "/etc/fastapi/monitoring.htpasswd"
# The consoles and Prometheus' own pages have their scripts in them.
POLICY = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"


def monitoring_sites(domain, watches, allow=(), grafana=False):
    if not domain or not watches:
        return []

    def location(path, port):
        return (
            f"location {path} {{\n    include snippets/proxy.conf;\n"
            f"    proxy_pass http://127.0.0.1:{port};\n}}\n")

    extra = "location = / { return 302 /prometheus/consoles/index.html; }\n" + location("/alertmanager/", 9093)
    if grafana:
        extra += location("/grafana/", 3000)
    return [{
        "name": NAME,
        "domain": domain,
        "upstream": {"servers": [{"address": "127.0.0.1:9090"}]},
        "auth_basic": "Monitoring",
        "auth_basic_user_file": USERS,
        "allow": list(allow),
        "extra": extra,
        "content_security_policy": POLICY,
    }]


class FilterModule:
    def filters(self):
        return {"monitoring_sites": monitoring_sites}
