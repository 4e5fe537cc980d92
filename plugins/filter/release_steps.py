# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: release_steps
short_description: The steps in which an app is released on the hosts of a play
version_added: 0.2.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Tells at which points of its release an app has to wait, for tasks of the user's or for other hosts.
  - On one host, and with no hook that is a file of tasks, there is nothing to wait for, and one step.
  - On several hosts all build before one of them migrates, and only then they switch, some at a time.
positional: _input, hosts, batch, wait
options:
  _input:
    description: An element of C(gunicorn_app_apps), with its defaults filled in.
    type: dict
    required: true
  hosts:
    description: Names of the hosts that release the app.
    type: list
    elements: str
    required: true
  batch:
    description: How many of them switch at a time, as a number or a share.
    type: str
    default: 25%
  wait:
    description: Whether the locks of all hosts are taken, one after the other, before one of them builds.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the steps
  ansible.builtin.debug:
    msg: "{{ app | daoman.fastapi.release_steps(ansible_play_hosts, '25%') }}"
"""

RETURN = r"""
_value:
  description:
    - The steps in order. Each has C(until), the last thing to be done in it; C(hosts), who takes it, empty for all;
      C(once), whether one host does it for all; and C(migrate), whether commands of that hook run in it.
  type: list
  elements: dict
"""

from ansible_collections.daoman.fastapi.plugins.module_utils._host import release


class FilterModule:
    def filters(self):
        return {"release_steps": release.steps}
