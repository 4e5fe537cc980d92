#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_info
short_description: List the releases of FastAPI apps on a host
description:
  - Tells of each release what it is, who made it and when, what became of it, and which one serves. Changes nothing.
author: The daoman.fastapi contributors (@daoman)
version_added: 0.2.0
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
options:
  name:
    description: Names of the apps. Empty means all that are on the host.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: debian
    support: full
"""

EXAMPLES = r"""
- name: Which releases are there?
  daoman.fastapi.release_info:
  register: found
"""

RETURN = r"""
releases:
  description: The complete releases, by app, the one that came to serve last comes last.
  returned: always
  type: list
  elements: dict
  contains:
    app:
      description: Name of the app.
      type: str
    id:
      description: Id of the release.
      type: str
    order:
      description: Number of the release in the order that counts, which grows with each switch; 0 before 0.3.
      type: int
    version:
      description: What was asked for, such as a tag.
      type: str
    revision:
      description: Commit, digest or requirement of the source.
      type: str
    by:
      description: Who released it last.
      type: str
    created:
      description: When it was built, in UTC.
      type: str
    deployed:
      description: When it was released last, in UTC; empty if never.
      type: str
    state:
      description: >-
        V(good) if it served well, V(failed), V(rolled back), V(does not start) after a rollback to it that failed, or
        V(built) if nobody knows yet.
      type: str
    reason:
      description: Why it failed or was rolled back.
      type: str
    live:
      description: Whether users are sent to it.
      type: bool
    rollback:
      description: Whether a rollback that names no release goes there.
      type: bool
holds:
  description: What a deploy does not release again, because users were sent back from it, with who, when and why.
  returned: always
  type: list
  elements: dict
locks:
  description: >-
    The locks of the apps that are locked, by app, each with its owner, time and reason. Those that a run left which did
    not end are stale, and in nobody's way.
  returned: always
  type: dict
lines:
  description: All of that as a table.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils._host.files import apps, is_app, no_app
from ansible_collections.daoman.fastapi.plugins.module_utils._host.info import overview
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import ReleaseError


def main():
    module = AnsibleModule(
        argument_spec={"name": {"type": "list", "elements": "str", "default": []}}, supports_check_mode=True
    )
    wanted = module.params["name"]
    if missing := [name for name in wanted if not is_app(name)]:
        module.fail_json(msg=no_app(missing[0]))
    try:
        found = overview(wanted or apps())
    except ReleaseError as exc:
        module.fail_json(msg=exc.message)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
