#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_check
short_description: Stop before any change where a host has apps that the inventory does not name
description:
  - Fails where an app of the host is not in O(apps), and where a newer version of this collection has set the host up.
    Nothing is changed then.
  - Otherwise notes both in C(/var/lib/fastapi/host.json), for the next run and for C(troubleshoot.sh).
author: The daoman.fastapi contributors (@daoman)
version_added: 0.3.0
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
    description: Fails as it would otherwise, and notes nothing.
  diff_mode:
    support: none
  platform:
    platforms: debian
    support: full
options:
  apps:
    description: Names of the apps in the inventory, with those that are to be removed.
    type: list
    elements: str
    required: true
  keep_orphans:
    description: Go on where an app of the host is not in O(apps). It stays as it is.
    type: bool
    default: false
  allow_downgrade:
    description: Go on where a newer version of this collection has set the host up.
    type: bool
    default: false
  collection:
    description: Version of this collection. By default that of the controller.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: The host has no other apps
  daoman.fastapi.host_check:
    apps: [shop, blog]
"""

RETURN = r"""
orphans:
  description: Apps of the host that are not in O(apps).
  returned: always
  type: list
  elements: str
  sample: [old-shop]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils._host import host_state
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import ReleaseError
from ansible_collections.daoman.fastapi.plugins.module_utils._host.text import safe


def main():
    module = AnsibleModule(
        argument_spec={
            "apps": {"type": "list", "elements": "str", "required": True},
            "keep_orphans": {"type": "bool", "default": False},
            "allow_downgrade": {"type": "bool", "default": False},
            "collection": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    params = module.params
    orphans = host_state.orphans(params["apps"])
    try:
        host_state.refuse_downgrade(params["collection"], params["allow_downgrade"])
        if orphans and not params["keep_orphans"]:
            raise ReleaseError("choose", host_state.refusal(orphans))
    except ReleaseError as exc:
        module.fail_json(msg=safe(exc.message), orphans=orphans)
    if orphans:
        module.warn(safe(f"Not in fastapi_apps, and left as they are: {', '.join(orphans)}."))
    if not module.check_mode:
        host_state.record(params["collection"], params["apps"])
    module.exit_json(changed=False, orphans=orphans)


if __name__ == "__main__":
    main()
