#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_absent
short_description: Remove a FastAPI app from a host with all that is of it
description:
  - Drains and stops the app; removes its units, its two accounts, C(/srv/<name>), its cache, and its logs in
    C(/var/log/nginx). The site and the certificate are other roles'.
  - Its shared files are kept in C(/srv/<name>.removed-<time>), for root alone, unless O(remove_data) is set. A warning
    tells how large they are, also in check mode.
  - What still runs as one of the accounts is ended. Units of others that run as one of them are stopped; their files
    stay. What they own in C(/tmp), C(/var/tmp), C(/dev/shm), C(/run/lock) and the spools of cron, at and mail is
    removed, so that a later account with the same uid inherits nothing.
  - What the app wrote elsewhere, and the journal, stay. A warning names paths that its unit let it write, and that it
    owns.
  - Only what this collection made is removed. The module fails before it changes anything where an account, directory
    or file of that name was not made by it, others have files in C(/srv/<name>), or a file system is mounted there.
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
  remove_data:
    description: Remove the shared files, too.
    type: bool
    default: false
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
  sample: [shop-api@20260131T101500Z-3f9a1c0b7d2e.service, /srv/shop-api, user shop-api, user _shop-api]
kept:
  description: Where the shared files are kept, or would be; empty where there are none.
  returned: always
  type: str
  sample: /srv/shop-api.removed-20260131T101500Z
"""

import os
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils._host import accounts
from ansible_collections.daoman.fastapi.plugins.module_utils._host.kit import KIT
from ansible_collections.daoman.fastapi.plugins.module_utils._host.lock import Lock, locked
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import ID, Layout, ReleaseError, read_text
from ansible_collections.daoman.fastapi.plugins.module_utils._host.shell import Shell, clean_environment
from ansible_collections.daoman.fastapi.plugins.module_utils._host.switch import Instance, strangers

# As logrotate names what it has rotated.
ROTATED = r"(?:[.-][0-9]+)?(?:\.(?:gz|xz|bz2|zst))?"
RELEASE = ID.pattern.lstrip("^").removesuffix(r"\Z")


class App:
    """All of an app that is on the host. ReleaseError where something of that name is not an app's."""

    def __init__(self, name, run, remove_data=False):
        self.layout = layout = Layout(name)
        self.run = run
        self.shell = Shell(run)
        accounts.refuse_removal(layout)
        self.uids = accounts.uids(layout)
        self.instances = [Instance(layout, id_, self.shell) for id_ in strangers(layout, live=None)]
        self.paths, self.temporary, self.users, self.others = [], [], [], []
        self.kept = ""
        if accounts.is_app(layout):
            directories = [path for path in (layout.base, layout.cache) if os.path.isdir(path)]
            settings = os.path.join(KIT, name + ".json")
            self.paths = [*directories, *self._runtime(), *self._logs(), *filter(os.path.isfile, [settings])]
            # systemd removes them when a unit stops, but not those of a host that lost its power.
            private = rf"systemd-private-[0-9a-f]+-{name}@{RELEASE}\.service-\w+"
            self.temporary = [path for top in ("/tmp", "/var/tmp") for path in matching(top, private)]
            self.users = [user for user, comment in accounts.names(layout) if accounts.is_there(user, comment)]
            self.others = accounts.units_of_others(layout, run)
            # A link is an operator's, and what it names stays in any case.
            holds = os.path.isdir(layout.shared) and not os.path.islink(layout.shared) and os.listdir(layout.shared)
            if holds and not remove_data:
                # Beside it, and so on the same file system. No app can have a name with a dot in it.
                stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
                self.kept = f"{os.path.realpath(layout.base)}.removed-{stamp}"
        elif os.path.isdir(layout.base) and os.listdir(layout.base) == [os.path.basename(layout.lock)]:
            self.paths = [layout.base]  # a removal that was interrupted

    def _runtime(self):
        """What systemd made for the releases. Others may have files in the directory, too."""
        return matching(self.layout.run, rf"{RELEASE}(?:\.sock)?")

    def _logs(self):
        name = re.escape(self.layout.name)
        return matching(self.layout.logs, rf"{name}\.(?:access|error)\.log{ROTATED}")

    def size(self):
        """Of the shared files, for people."""
        try:
            command = ["du", "-shx", "--", self.layout.shared]
            output, code = self.shell.run(command, "remove", "", check=False, timeout=60)
        except ReleaseError:  # millions of files
            return "of unknown size"
        return output.split("\t")[0] if code == 0 else "of unknown size"

    def found(self):
        stopped = [f"{unit}, which runs as the app: it is stopped, and its file stays" for unit in self.others]
        services, users = [item.service for item in self.instances], [f"user {user}" for user in self.users]
        return services + stopped + self.paths + users

    def remove(self):
        """Remove all but the app's directory itself, in which the lock is. Paths that stay though the app owns them."""
        units = [read_text(path) for item in self.instances for path in self.layout.unit_paths(item.id)]
        for instance in self.instances:
            instance.stop()
        if self.instances:
            self.shell.run(["systemctl", "daemon-reload"], "remove", "systemd cannot be reloaded")
        # Before its files: nothing is left that could change them.
        if self.others:
            self.shell.run(["systemctl", "stop", *self.others], "remove", "units that run as the app do not stop")
        accounts.end_processes(self.layout, self.run)
        if self.kept:
            os.rename(self.layout.shared, self.kept)
            descriptor = os.open(self.kept, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            os.fchown(descriptor, 0, 0)
            os.fchmod(descriptor, 0o700)
            os.close(descriptor)
        for path in [*self.temporary, *self.paths]:
            if path != self.layout.base:
                accounts.remove_tree(path, self.run)
        if os.path.isdir(self.layout.run) and not os.listdir(self.layout.run):
            os.rmdir(self.layout.run)
        for name in os.listdir(self.layout.base):
            path = os.path.join(self.layout.base, name)
            if path != self.layout.lock:
                accounts.remove_tree(path, self.run)
        kept = {path for unit in units for path in accounts.written_elsewhere(unit, self.uids)}
        accounts.remove(self.layout, self.run)
        return sorted(kept)


def matching(top, pattern):
    """Paths of entries of a directory whose names are wholly of this form: no name is a prefix of another's."""
    try:
        return [os.path.join(top, name) for name in sorted(os.listdir(top)) if re.fullmatch(pattern, name, re.ASCII)]
    except OSError:
        return []


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "remove_data": {"type": "bool", "default": False},
            "who": {"type": "str", "default": ""},
            "break_lock": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    clean_environment()
    try:
        app = App(params["name"], module.run_command, params["remove_data"])
        found = app.found()
        result = {"changed": bool(found), "removed": found, "kept": app.kept}
        if app.kept:
            kept = "would be" if module.check_mode else "are"
            module.warn(
                f"{params['name']}: its shared files ({app.size()}) {kept} kept in {app.kept}, for root alone. "
                "To remove them with the app: remove_data: true."
            )
        elif params["remove_data"] and os.path.isdir(app.layout.shared):
            module.warn(f"{params['name']}: its shared files ({app.size()}) are removed with it, as remove_data says.")
        result["diff"] = {"before": "".join(f"{item}\n" for item in found), "after": ""}
        if found and not module.check_mode:
            os.makedirs(app.layout.base, exist_ok=True)
            with Lock(app.layout).taken("", params["who"], "removal", params["break_lock"]):
                uids = " or ".join(map(str, app.uids))
                for path in app.remove():
                    module.warn(
                        f"{path} stays. The removed app owned it (uid {uids}), and a later account may get the same "
                        "uid: remove it, or give it to somebody else."
                    )
                for unit in app.others:
                    module.warn(
                        f"{unit} ran as {params['name']}, or starts what did: it was stopped. Its file is yours "
                        "to remove."
                    )
                remove_base(app)  # with the lock
    except ReleaseError as exc:
        text = f"{params['name']}: {exc.phase} failed: {exc.message}\n{exc.output}".rstrip()
        module.fail_json(msg=text, **locked(exc))
    module.exit_json(**result)


def remove_base(app):
    """Remove the app's directory, and where it is a link to one on another disk both."""
    real = os.path.realpath(app.layout.base)
    accounts.remove_tree(real, app.run)
    if os.path.islink(app.layout.base):
        os.unlink(app.layout.base)


if __name__ == "__main__":
    main()
