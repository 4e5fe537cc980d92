#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: prometheus_config
short_description: Gives Prometheus or Alertmanager a configuration, after it was checked
version_added: 0.3.0
description:
  - Has C(promtool) or C(amtool) check the files in a directory of their own, with all that they name. Only if nothing
    is found are they swapped in, each in one step, and loaded without a restart.
  - Asks the daemon then whether it took them. Where it did not, the old files are put back and loaded again, and the
    run fails.
  - A daemon that does not run is started, and one whose unit has changed since its start is restarted.
options:
  program:
    description: Whose configuration it is.
    type: str
    choices: [prometheus, alertmanager]
    required: true
  path:
    description: Directory of the configuration. All that is in it is the module's.
    type: path
    required: true
  files:
    description: What is to be in it. C(prometheus.yml) or C(alertmanager.yml) is where the daemon begins to read.
    type: list
    elements: dict
    required: true
    suboptions:
      dest:
        description: Path below O(path).
        type: str
        required: true
      content:
        description: The text.
        type: str
        required: true
  group:
    description: The files are readable by root and this group alone.
    type: str
    default: prometheus
  unit:
    description: The service.
    type: str
    required: true
  url:
    description: Where it listens, with the prefix of its paths.
    type: str
    required: true
  restart:
    description: Whether to restart it in any case, for example because a secret of its unit is another.
    type: bool
    default: false
  hidden:
    description: Words that are not shown in diffs and messages.
    type: list
    elements: str
    default: []
  patience:
    description: Seconds that the daemon has to be ready. It reads its write-ahead log at its start.
    type: int
    default: 120
attributes:
  check_mode:
    description: Predicts the changes. The files are checked, where the program for that is installed.
    support: full
  diff_mode:
    description: Shows each file.
    support: full
author: The daoman.fastapi contributors (@daoman)
"""

EXAMPLES = r"""
- name: Prometheus | Runs with this configuration
  daoman.fastapi.prometheus_config:
    program: prometheus
    path: /etc/prometheus/fastapi
    unit: prometheus.service
    url: http://127.0.0.1:9090
    files:
      - {dest: prometheus.yml, content: "{{ prometheus_config | to_nice_yaml }}"}
      - {dest: rules/host.yml, content: "{{ lookup('file', 'host.yml') }}"}
"""

RETURN = r"""
actions:
  description: What was, or in check mode would be, done with the service, in this order.
  returned: success
  type: list
  elements: str
  sample: [enabled, started]
paths:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: str
journal:
  description: The last lines of its journal.
  returned: when it did not start, or did not take the configuration
  type: list
  elements: str
"""

import grp
import os
import re
import shutil
import tempfile
import time

from ansible.module_utils.urls import open_url
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree
from ansible_collections.daoman.fastapi.plugins.module_utils._host.text import safe
from ansible_collections.daoman.fastapi.plugins.module_utils.quiet import QuietModule

ARGUMENTS = {
    "program": {"type": "str", "choices": ["prometheus", "alertmanager"], "required": True},
    "path": {"type": "path", "required": True},
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {"dest": {"type": "str", "required": True}, "content": {"type": "str", "required": True}},
    },
    "group": {"type": "str", "default": "prometheus"},
    "unit": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "restart": {"type": "bool", "default": False},
    "hidden": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "patience": {"type": "int", "default": 120},
}
CHECKS = {
    "prometheus": ["promtool", "check", "config", "prometheus.yml"],
    "alertmanager": ["amtool", "check-config", "alertmanager.yml"],
}
PROPERTIES = ("ActiveState", "UnitFileState", "NeedDaemonReload", "DropInPaths", "ExecMainStartTimestamp")
MASK = "********"


def plan(path, files, group):
    """What is to be written or removed: {path: (node before, node after)}."""
    wanted = {os.path.join(path, tree.checked(item["dest"])): item["content"] for item in files}
    changes = {}
    for name, content in wanted.items():
        before = tree.read(name)
        after = tree.file_node(content, 0o640)._replace(gid=group)
        if before != after:
            changes[name] = (before, after)
    for folder, _folders, names in os.walk(path):
        for name in names:
            if os.path.join(folder, name) not in wanted:
                changes[os.path.join(folder, name)] = (tree.read(os.path.join(folder, name)), None)
    return changes


def masked(text, hidden):
    for word in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(word, MASK)
    return text


def properties(text):
    """What `systemctl show` printed."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def outdated(shown, mtime):
    """Whether a running service was started before its drop-ins became what they are.

    :arg shown: properties(), with times as seconds (`@1700000000`)
    :arg mtime: function(path) -> when a file was changed
    """
    begun = re.match(r"@(\d+)", shown.get("ExecMainStartTimestamp", ""))
    return bool(begun) and any(mtime(path) >= int(begun[1]) + 1 for path in shown.get("DropInPaths", "").split())


def loaded(metrics, program):
    """(whether the last reload went well, when the last one that did was) by the daemon's own metrics, or None."""
    values = dict(re.findall(rf"^{program}_config_last_reload_(\w+) (\S+)$", metrics, re.M))
    if not {"successful", "success_timestamp_seconds"} <= set(values):
        return None
    return float(values["successful"]) == 1, float(values["success_timestamp_seconds"])


class Daemon:
    def __init__(self, module):
        self.module = module
        self.params = module.params
        self.unit = module.params["unit"]
        self.shown = self.show()

    def systemctl(self, *arguments, check=True):
        return self.module.run_command(["systemctl", *arguments], check_rc=check)[1]

    def show(self):
        names = ",".join(PROPERTIES)
        return properties(self.systemctl("show", "--timestamp=unix", "--property", names, self.unit, check=False))

    def actions(self, changed):
        """What has to be done."""
        todo = [] if self.shown.get("UnitFileState") == "enabled" else ["enabled"]
        if self.shown.get("ActiveState") not in ("active", "reloading"):
            return [*todo, "started"]
        if (
            self.params["restart"]
            or self.shown.get("NeedDaemonReload") == "yes"
            or outdated(self.shown, os.path.getmtime)
        ):
            return [*todo, "restarted"]
        return [*todo, "reloaded"] if changed else todo

    def get(self, path):
        try:
            with open_url(self.params["url"] + path, use_proxy=False, timeout=5) as answer:
                return answer.read().decode("utf-8")
        except Exception:  # whatever it is, it does not answer yet
            return None

    def state(self):
        return loaded(self.get("/metrics") or "", self.params["program"])

    def readiness(self):
        """True once it is ready, False where it has ended already, else None."""
        if self.get("/-/ready") is not None:
            return True
        return None if self.show().get("ActiveState") == "active" else False

    def wait(self, what):
        """What a function returns once it is not None, or None when the patience is over."""
        end = time.monotonic() + self.params["patience"]
        while time.monotonic() < end:
            value = what()
            if value is not None:
                return value
            time.sleep(0.1)
        return None

    def act(self, todo):
        """Does it, and returns why it failed, or None."""
        self.systemctl("daemon-reload")
        if "enabled" in todo:
            self.systemctl("enable", self.unit)
        if "started" in todo or "restarted" in todo:
            self.systemctl("reset-failed", self.unit, check=False)
            status, _out, said = self.module.run_command(["systemctl", "restart", self.unit])
            if status:
                return f"{self.unit} does not start: {said.strip()}"
            ready = self.wait(self.readiness)
            if not ready:
                return f"{self.unit} " + (
                    "does not stay up" if ready is False else f"was not ready after {self.params['patience']} s"
                )
        if "reloaded" in todo:
            return self.reload()
        return None

    def reload(self):
        before = self.state()
        if before is None:
            return f"{self.unit} runs, and does not answer at {self.params['url']}"
        self.systemctl("reload", self.unit)

        def verdict():
            now = self.state()
            if now is None or (now[0] and now[1] <= before[1]):
                return None
            return now[0]

        taken = self.wait(verdict)
        if taken is None:
            return f"{self.unit} did not reload within {self.params['patience']} s"
        return None if taken else f"{self.unit} refuses the configuration, although the check found nothing"

    def journal(self):
        _status, out, _error = self.module.run_command(
            ["journalctl", "--no-pager", "--output", "cat", "--lines", "20", "--unit", self.unit]
        )
        return safe(masked(out, self.params["hidden"])).splitlines()


def check(module):
    """What the check complains about, or None. In check mode the program may not be there yet."""
    command = CHECKS[module.params["program"]]
    tool = module.get_bin_path(command[0])
    if tool is None:
        return None if module.check_mode else f"{command[0]} is not installed"
    staging = tempfile.mkdtemp()
    try:
        for item in module.params["files"]:
            tree.write(os.path.join(staging, item["dest"]), tree.file_node(item["content"], 0o600))
        status, out, error = module.run_command([tool, *command[1:]], cwd=staging)
    finally:
        shutil.rmtree(staging)
    if status == 0:
        return None
    lines = [line.strip().replace(staging, module.params["path"]) for line in (out + error).splitlines()]
    return "\n".join(line for line in lines if line and "SUCCESS" not in line and not line.startswith("Checking"))


def swap(changes, back=False):
    for path, (before, after) in changes.items():
        tree.write(path, before if back else after)


def main():
    module = QuietModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    os.umask(0o022)
    params = module.params
    try:
        group = grp.getgrnam(params["group"]).gr_gid
    except KeyError:
        if not module.check_mode:
            module.fail_json(msg=f"There is no group {params['group']}: is the package installed?")
        group = -1
    changes = plan(params["path"], params["files"], group)
    if changes:
        complaint = check(module)
        if complaint:
            module.fail_json(
                msg=masked(
                    f"{params['program']} would not take the configuration; nothing was changed:\n{complaint}",
                    params["hidden"],
                )
            )
    daemon = Daemon(module)
    todo = daemon.actions(bool(changes))
    if not module.check_mode and (changes or todo):
        swap(changes)
        failed = daemon.act(todo)
        if failed:
            journal = daemon.journal()
            if changes:
                swap(changes, back=True)
                failed += "; the old one was put back"
                # A daemon that did not run before has nothing to go back to.
                if daemon.shown.get("ActiveState") == "active":
                    daemon.act(["restarted" if "restarted" in todo else "reloaded"])
            module.fail_json(msg=safe(masked(failed, params["hidden"])), journal=journal)
    shown = [{key: masked(value, params["hidden"]) for key, value in item.items()} for item in tree.diff("/", changes)]
    module.exit_json(changed=bool(changes or todo), actions=todo, paths=sorted(changes), diff=shown)


if __name__ == "__main__":
    main()
