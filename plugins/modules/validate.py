# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: validate
short_description: Checks the variables of a role before anything is changed
version_added: 0.1.0
description:
  - Checks the variables of a role, or C(fastapi_apps), against the argument specs of this collection and against what
    specs cannot say, such as duplicate domains.
  - Reports all problems at once, each with the path of the value, the value and how to mend it. Unknown options name
    the nearest right one. Values below C(env), vaulted values and those from templates that name a secret are never
    shown.
  - A variable that looks like a misspelt one of the role is a problem; one that only begins like the role's is a
    warning. C(fastapi_ignored_variables) lists names of your own which are neither.
  - Runs on the controller, without a connection to the host.
options:
  role:
    description: The roles whose variables are checked.
    type: list
    elements: str
    default: []
  apps:
    description:
      - Whether C(fastapi_apps) is checked, as the site playbook takes it.
      - The variables which the site playbook makes of it, such as C(nginx_sites), must then not be set.
    type: bool
    default: false
  playbook:
    description:
      - The playbook of this collection whose extra variables (C(-e)) are checked. One that is like one of the
        playbook's, or is another playbook's, is a problem, unless the inventory defines or uses it.
    type: str
    choices:
      - site
      - deploy
      - rollback
      - releases
      - lock
      - unlock
      - maintenance
      - troubleshoot
      - deploy_version
      - certificates
      - harden
      - watch
attributes:
  check_mode:
    description: Does the same in check mode, since it changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - The daoman.fastapi contributors (@daoman)
"""

EXAMPLES = r"""
- name: Validate | The variables of the role are in order
  daoman.fastapi.validate:
    role: nginx

- name: Validate | What was given with -e is in order
  daoman.fastapi.validate:
    playbook: rollback

- name: Validate | The apps of the site are in order
  daoman.fastapi.validate:
    apps: true
    role: [gunicorn_app, nginx]
"""

RETURN = r"""
apps:
  description: Names of the apps of this host that the playbook is about, those of C(-e app=NAME) or all.
  returned: when O(playbook) is given
  type: list
  elements: str
  sample: [shop, blog]
msg:
  description: That all is in order, or all the problems, one on each line.
  returned: always
  type: str
  sample: |-
    1 problem in fastapi_apps; nothing was changed:
      fastapi_apps[0].gunicorn.wrokers: unknown option (value: 3). Did you mean 'workers'?
"""
