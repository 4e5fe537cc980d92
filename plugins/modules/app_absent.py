#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_absent
short_description: Remove a FastAPI app from a host with all that is of it
description:
  - Drains and stops the app; removes its units, its user, C(/srv/<name>) with the shared files in it, its cache, and
    its logs in C(/var/log/nginx). The site and the certificate are other roles'.
  - What the app wrote elsewhere, and the journal, stay.
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
- name: The shop is gone
  daoman.fastapi.app_absent:
    name: shop-api
"""

RETURN = r"""
removed:
  description: What was removed.
  returned: always
  type: list
  elements: str
  sample: [shop-api@20260131T101500Z-3f9a1c0b7d2e.service, /srv/shop-api, user shop-api]
"""

import glob
import os
import pwd
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils._host.lock import Lock, locked
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import APP_NAME, Layout, ReleaseError
from ansible_collections.daoman.fastapi.plugins.module_utils._host.shell import Shell, clean_environment
from ansible_collections.daoman.fastapi.plugins.module_utils._host.switch import Instance, strangers

HOME = "/nonexistent"


class App:
    def __init__(self, name, shell):
        self.layout = layout = Layout(name)
        self.shell = shell
        self.instances = [Instance(layout, id_, shell) for id_ in strangers(layout, live=None)]
        self.paths = [path for path in (layout.base, layout.cache, layout.run) if os.path.isdir(path)]
        self.paths += [path for kind in ("access", "error") for path in sorted(glob.glob(layout.log(kind) + "*"))]
        # A user of this name with another home was not made by this collection.
        self.user = next((item.pw_name for item in pwd.getpwall() if (item.pw_name, item.pw_dir) == (name, HOME)), None)

    def found(self):
        return [item.service for item in self.instances] + self.paths + ([f"user {self.user}"] if self.user else [])

    def remove(self):
        for instance in self.instances:
            instance.stop()
        if self.instances:
            self.shell.run(["systemctl", "daemon-reload"], "remove", "systemd cannot be reloaded")
        # systemd removes them when a unit stops, but not those of a host that lost its power.
        for top in ("/tmp", "/var/tmp"):
            for path in glob.glob(f"{top}/systemd-private-*-{self.layout.name}@*"):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.paths:
            if os.path.isfile(path):
                os.unlink(path)
            elif path != self.layout.base:
                shutil.rmtree(path)
        if self.user:
            self.shell.run(["userdel", self.user], "remove", f"cannot remove the user {self.user}")


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "who": {"type": "str", "default": ""},
            "break_lock": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not APP_NAME.match(params["name"]):
        module.fail_json(msg=f"name: '{params['name']}' is no name for an app.")
    clean_environment({})
    app = App(params["name"], Shell(module.run_command))
    found = app.found()
    result = {"changed": bool(found), "removed": found}
    result["diff"] = {"before": "".join(f"{item}\n" for item in found), "after": ""}
    if found and not module.check_mode:
        os.makedirs(app.layout.base, exist_ok=True)
        try:
            with Lock(app.layout).taken("", params["who"], "removal", params["break_lock"]):
                app.remove()
                shutil.rmtree(app.layout.base)  # with the lock
        except ReleaseError as exc:
            text = f"{params['name']}: {exc.phase} failed: {exc.message}\n{exc.output}".rstrip()
            module.fail_json(msg=text, **locked(exc))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
