# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: differing_releases
short_description: Apps of which hosts serve different revisions
version_added: 0.3.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Compares what hosts serve, by the revision of the source. Releases have ids of their own on each host.
positional: _input
options:
  _input:
    description: The releases of each host by its name, as M(daoman.fastapi.release_info) returns them.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show where hosts differ
  ansible.builtin.debug:
    msg: "{{ {'app1': one.releases, 'app2': two.releases} | daoman.fastapi.differing_releases }}"
"""

RETURN = r"""
_value:
  description: A line for each such app; none where all serve the same.
  type: list
  elements: str
"""

from ansible_collections.daoman.fastapi.plugins.module_utils import fleet_report


class FilterModule:
    def filters(self):
        return {"differing_releases": fleet_report.differing}
