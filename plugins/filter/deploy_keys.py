# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: deploy_keys
short_description: The file authorized_keys of the deploy user
version_added: 0.3.0
author: The daoman.fastapi contributors (@daoman)
description:
  - Writes public keys as lines of C(authorized_keys), each held to the command that deploys where that is asked for.
positional: command_only
options:
  _input:
    description: The keys. Each may be several lines.
    type: list
    elements: str
    required: true
  command_only:
    description: Whether all that a key can do is to deploy.
    type: bool
    required: true
"""

EXAMPLES = r"""
- name: Show the file
  ansible.builtin.debug:
    msg: "{{ ['ssh-ed25519 AAAA ci'] | daoman.fastapi.deploy_keys(true) }}"
"""

RETURN = r"""
_value:
  description: The text of the file.
  type: str
"""

from ansible_collections.daoman.fastapi.plugins.module_utils.deploy_keys import authorized_keys


class FilterModule:
    def filters(self):
        return {"deploy_keys": authorized_keys}
