#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_lock
short_description: Hold a FastAPI app as it is, or let it go
description:
  - Takes the lock that each release and rollback of an app takes, and keeps it, so that the app stays as it is, for
    example while a database is being moved. Who tries to release the app is told who holds it, since when, and why.
author: The daoman.fastapi contributors (@daoman)
version_added: 0.2.0
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: debian
    support: full
options:
  name:
    description: Name of the app.
    type: str
    required: true
  state:
    description:
      - V(present) locks the app; V(absent) unlocks it.
      - A lock of a run that is going on is not touched, unless O(break_lock) is set.
    type: str
    choices: [present, absent]
    default: present
  reason:
    description: Why. Required to lock.
    type: str
    default: ""
  who:
    description: Who does it. By default the user that runs Ansible, and that host.
    type: str
    default: ""
  minutes:
    description: Minutes after which the lock counts no more. 0 means never.
    type: int
    default: 0
  break_lock:
    description: End a run that holds the lock.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Nobody releases the shop for an hour
  daoman.fastapi.release_lock:
    name: shop-api
    reason: the database is being moved
    minutes: 60

- name: Go on
  daoman.fastapi.release_lock:
    name: shop-api
    state: absent
"""

RETURN = r"""
lock:
  description: Who holds the app after the run, in words; empty if nobody does.
  returned: always
  type: str
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils._host.files import no_app
from ansible_collections.daoman.fastapi.plugins.module_utils._host.lock import (
    Lock,
    describe,
    is_stale,
    locked,
    now,
)
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError

HELD = ("owner", "reason", "minutes")


def apply(lock, params, check_mode):
    """Make the lock as wanted; whether that is a change."""
    found = lock.read()
    held = bool(found.get("held")) and not is_stale(found)
    wanted = {"owner": params["who"], "reason": params["reason"], "minutes": params["minutes"]}
    if params["state"] == "absent" and not found:
        return False
    if params["state"] == "present" and held and all(found.get(key) == wanted[key] for key in HELD):
        return False
    if check_mode:
        return True
    # What an operator holds, an operator may let go; a run that is going on is another thing.
    with lock.taken("operator", params["who"], params["reason"], params["break_lock"] or held):
        if params["state"] == "present":
            minutes = params["minutes"]
            lock.note(**wanted, held=True, until=now(time.time() + 60 * minutes) if minutes else "")
    return True


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "reason": {"type": "str", "default": ""},
            "who": {"type": "str", "default": ""},
            "minutes": {"type": "int", "default": 0},
            "break_lock": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ["reason"])],
        supports_check_mode=True,
    )
    try:
        layout = Layout(module.params["name"])
        if not os.path.isdir(layout.releases):
            raise ReleaseError("choose", no_app(layout.name))
        lock = Lock(layout)
        changed = apply(lock, module.params, module.check_mode)
    except ReleaseError as exc:
        module.fail_json(msg=exc.message, **locked(exc))
    for note in lock.notes:
        module.warn(note)
    found = lock.read()
    module.exit_json(changed=changed, lock=describe(found) if found else "")


if __name__ == "__main__":
    main()
