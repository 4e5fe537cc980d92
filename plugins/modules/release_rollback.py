#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_rollback
short_description: Send users of a FastAPI app back to an earlier release
description:
  - Starts an earlier release that is still on the host beside the one that serves, waits until it answers, sends users
    to it, and drains and stops the other, as M(daoman.fastapi.release) does. Code, packages, settings and environment
    are those of then.
  - All that is needed lies in the release. Neither the network nor the inventory is asked.
  - The release that served is marked as rolled back, and is not chosen again unless it is named or released anew.
author: The daoman.fastapi contributors (@daoman)
version_added: 0.2.0
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: debian
    support: full
options:
  name:
    description: Name of the app.
    type: str
    required: true
  release:
    description:
      - The release to go to, by its id or a part of it, its version, or the first seven or more digits of its commit.
        Of several the one that came to serve last.
      - Empty means the release that served before the one that serves, and did not fail since.
    type: str
    default: ""
  env:
    description:
      - V(current) starts the release with the environment that the next deploy would give it, as a new release of the
        same revision. After a password was changed elsewhere, those of earlier releases are of no use.
      - Empty starts it with its own.
    type: str
    choices: ["", current]
    default: ""
  forget_secrets:
    description: Remove the releases whose environment is not that of the one that serves then, also the way back.
    type: bool
    default: false
  reason:
    description: Why, for the lock and the history.
    type: str
    default: ""
  who:
    description: Who does it. By default the user that runs Ansible, and that host.
    type: str
    default: ""
  break_lock:
    description: End a run that holds the lock of the app.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Go back to the release before
  daoman.fastapi.release_rollback:
    name: shop-api
    reason: prices are wrong

- name: Go back to a version
  daoman.fastapi.release_rollback:
    name: shop-api
    release: v1.4.1
"""

RETURN = r"""
release:
  description: Id of the release that serves after the run.
  returned: always
  type: str
  sample: 20260131T101500Z-3f9a1c0b7d2e
previous:
  description: Id of the release that served before.
  returned: always
  type: str
version:
  description: Version of the release that serves after the run.
  returned: always
  type: str
held:
  description: What is held from now on, in a sentence, or that nothing is.
  returned: always
  type: str
phases:
  description: Seconds that each phase took.
  returned: when something changed
  type: dict
cut:
  description: Numbers of requests and WebSockets that were still open when the time to drain was over.
  returned: when there were some
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils._host.cutover import run_to_end
from ansible_collections.daoman.fastapi.plugins.module_utils._host.rollback import Rollback


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "release": {"type": "str", "default": ""},
            "env": {"type": "str", "choices": ["", "current"], "default": ""},
            "forget_secrets": {"type": "bool", "default": False},
            "reason": {"type": "str", "default": ""},
            "who": {"type": "str", "default": ""},
            "break_lock": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    run_to_end(module, lambda: Rollback(module.params, module.run_command, module.check_mode))


if __name__ == "__main__":
    main()
