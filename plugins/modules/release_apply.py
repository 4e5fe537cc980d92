#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_apply
short_description: The host's part of daoman.fastapi.release
description:
  - Called by the action plugin of M(daoman.fastapi.release), which prepares what it needs. Use that one.
author: The daoman.fastapi contributors (@daoman)
version_added: 0.1.0
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
  prepared:
    description:
      - What the action plugin prepared, as JSON. It holds the app's environment, so all of it is kept out of logs.
      - It is one string because Ansible masks each secret value wherever it occurs, and of a dict with V(1) in it every
        number of the output would be.
    type: str
    required: true
"""

EXAMPLES = r"""
# Not called by itself: see daoman.fastapi.release.
"""

RETURN = r"""
release:
  description: Id of the release that serves after the run.
  returned: always
  type: str
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils._host.cutover import run_to_end
from ansible_collections.daoman.fastapi.plugins.module_utils._host.deploy import Deploy


def main():
    module = AnsibleModule(
        argument_spec={"prepared": {"type": "str", "required": True, "no_log": True}}, supports_check_mode=True
    )
    prepared = json.loads(module.params["prepared"])
    run_to_end(module, lambda: Deploy(prepared, module.run_command, module.check_mode, module._diff))


if __name__ == "__main__":
    main()
