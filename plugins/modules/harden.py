#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: harden
short_description: Hardens a host, and takes it back unless a new connection gets in
version_added: 0.2.0
description:
  - Writes the files of all topics as one transaction. They are staged and tested first (C(sshd -t), C(nft -c),
    C(visudo -c), C(fail2ban-client -t), C(apt-config)); what is refused changes nothing.
  - What is known to shut out the user, address, port or password of this very connection is refused as well.
  - Before the files take effect, the old ones are saved on the host, and a timer of systemd is armed that restores
    them. It is disarmed by a command that goes over a new connection with the user, key, port and become method of the
    inventory. Should that fail, the old state is restored at once over the connection from before, or, where that is
    cut too, by the timer. It fires as well when the controller dies, and a reboot in between restores the old state.
  - A change of the port of sshd is made in two such steps. Until the new port is confirmed, sshd listens on both.
  - Over connections that are not SSH, such as C(community.docker.docker), the same is done, but a new connection by SSH
    cannot be tried, which a warning says.
options:
  files:
    description: The files to write. Those of a topic that this host cannot do are left out, and said in RV(left_out).
    type: list
    elements: dict
    default: []
    suboptions:
      topic:
        description: The topic, which decides how the file is tested and takes effect.
        type: str
        required: true
        choices:
          - ssh
          - firewall
          - sudo
          - deploy_user
          - fail2ban
          - updates
          - sysctl
          - time
          - coredumps
          - modules
          - banner
          - nginx
          - accounts
          - mounts
      path:
        description: Where the file lies.
        type: path
        required: true
      template:
        description: The template to render on the controller.
        type: str
      content:
        description: The text, instead of O(files[].template).
        type: str
      mode:
        description: Permissions.
        type: str
        default: "0644"
      enabled:
        description: Whether the topic is wanted. Otherwise the file is left as it is.
        type: bool
        default: true
  role:
    description: Role of this collection whose variables the templates see with all nested defaults filled in.
    type: str
    default: hardening
  allow:
    description: Networks from which SSH is let in; empty means any. To see whether the controller is in them.
    type: list
    elements: str
    default: []
  fleet:
    description: >-
      Addresses, networks and names, which are resolved on the controller, for the templates as C(harden_fleet).
    type: list
    elements: str
    default: []
  monitors:
    description: The same of the hosts that may ask for metrics, for the templates as C(harden_monitors).
    type: list
    elements: str
    default: []
  proxies:
    description: Addresses and networks of proxies before the host, for the templates as C(harden_proxies).
    type: list
    elements: str
    default: []
  strict:
    description: Whether an RSA host key of less than 4096 bits is replaced.
    type: bool
    default: false
  restart_nginx:
    description: Whether a running nginx is restarted to get its sandbox.
    type: bool
    default: false
  checks:
    description: Whether what would shut out this connection is refused. Else it is a warning.
    type: bool
    default: true
  window:
    description: Seconds after which the host restores the old state by itself, unless a new connection got in.
    type: int
    default: 60
  timeout:
    description: Seconds in which a new connection must be there.
    type: int
    default: 8
  phase:
    description:
      - V(reach) only looks whether the host is reached, at its port of the inventory or else at O(port).
      - The others are set by the action plugin. V(plan) changes nothing; V(arm) tests, saves and arms the timer.
    type: str
    choices: [plan, arm, reach]
    default: plan
  port:
    description: For O(phase=reach).
    type: int
    default: 0
  keep_port:
    description: Set by the action plugin. A port on which sshd goes on listening.
    type: int
    default: 0
  by_password:
    description: Set by the action plugin. Whether this connection was made with a password.
    type: bool
    default: false
  program:
    description: Set by the action plugin. The program that the host keeps to take a change back.
    type: str
    default: ""
attributes:
  check_mode:
    description: All is done but the change. What is not installed yet cannot test its files.
    support: full
  diff_mode:
    description: One diff per file.
    support: full
author: The daoman.fastapi contributors (@daoman)
"""

EXAMPLES = r"""
- name: Only the operators get in, and they do
  daoman.fastapi.harden:
    files:
      - topic: ssh
        path: /etc/ssh/sshd_config.d/00-fastapi-hardening.conf
        content: |
          Port 0
          HostKey /etc/ssh/ssh_host_ed25519_key
          AllowGroups operators
"""

RETURN = r"""
paths:
  description: The files that changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/ssh/sshd_config.d/00-fastapi-hardening.conf]
reasons:
  description: Why something was done besides files that differ.
  returned: success
  type: list
  elements: str
  sample: [the firewall's rules are not loaded]
left_out:
  description: What this host cannot do, and why.
  returned: success
  type: list
  elements: str
  sample: ["time: a container has its host's clock"]
notes:
  description: What else is worth knowing.
  returned: success
  type: list
  elements: str
topics:
  description: The topics that changed.
  returned: success
  type: list
  elements: str
  sample: [ssh, firewall]
port:
  description: The port of SSH to connect to from now on, where it changed.
  returned: when the port changed
  type: int
  sample: 2222
"""

import contextlib
import grp
import json
import os
import pwd
import secrets
import shutil
import sys
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils import hardening
from ansible_collections.daoman.fastapi.plugins.module_utils._host import places
from ansible_collections.daoman.fastapi.plugins.module_utils._host.shell import make_directory, write_file
from ansible_collections.daoman.fastapi.plugins.module_utils.hardening_topics import (
    ORDER,
    SSHD,
    TOPICS,
    TopicError,
    listening_ports,
    operator,
    read,
)

ARGUMENTS = dict(
    files=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            topic=dict(type="str", required=True, choices=list(TOPICS)),
            path=dict(type="path", required=True),
            template=dict(type="str"),
            content=dict(type="str"),
            mode=dict(type="str", default="0644"),
            enabled=dict(type="bool", default=True),
        ),
    ),
    role=dict(type="str", default="hardening"),
    allow=dict(type="list", elements="str", default=[]),
    fleet=dict(type="list", elements="str", default=[]),
    monitors=dict(type="list", elements="str", default=[]),
    proxies=dict(type="list", elements="str", default=[]),
    strict=dict(type="bool", default=False),
    restart_nginx=dict(type="bool", default=False),
    checks=dict(type="bool", default=True),
    window=dict(type="int", default=60),
    timeout=dict(type="int", default=8),
    phase=dict(type="str", choices=["plan", "arm", "reach"], default="plan"),
    port=dict(type="int", default=0),
    keep_port=dict(type="int", default=0),
    by_password=dict(type="bool", default=False, no_log=False),
    program=dict(type="str", default=""),
)
FAIL2BAN = TOPICS["fail2ban"].program
STATE = "/var/lib/fastapi/hardening"
PROGRAM = os.path.join(STATE, "commit_confirmed.py")
UNTOUCHED = "Nothing was changed."
# Seconds that a pending change of another run is given beyond its window.
GRACE = 15


class Host:
    """What the topics ask of the host, and what they found out."""

    def __init__(self, module):
        self.module = module
        params = module.params
        self.arming = params["phase"] == "arm"
        self.keep_port, self.allow, self.strict = params["keep_port"], params["allow"], params["strict"]
        self.restart_nginx = params["restart_nginx"]
        self.problems, self.skipped, self.notes = [], [], []
        self.who = self._who(params)
        self.ports = self._ports()
        self.wanted_ports = set()
        self._listening = self._container = None

    def _who(self, params):
        who = operator()
        if not who:
            return None
        try:
            account = pwd.getpwnam(who["user"])
        except KeyError:
            return None
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        names = [group.gr_name for group in grp.getgrall() if group.gr_gid in groups]
        keys = read(os.path.join(account.pw_dir, ".ssh/authorized_keys")) or ""
        return {**who, "groups": names, "has_keys": bool(keys.strip()), "by_password": params["by_password"]}

    def _ports(self):
        """Those on which sshd listens as it is configured now."""
        code, output = self.run([SSHD, "-T"]) if os.path.exists(SSHD) else (1, "")
        return {int(port) for port in hardening.effective(output).get("port", [])} if not code else {22}

    @property
    def moves(self):
        return bool(self.who) and bool(self.wanted_ports) and self.who["port"] not in self.wanted_ports

    def run(self, command):
        if not shutil.which(command[0]):
            return 127, f"There is no {command[0]}."
        code, out, err = self.module.run_command(list(command), environ_update={"LC_ALL": "C.UTF-8"})
        return code, out + err

    def unit(self, name):
        _code, output = self.run(["systemctl", "show", "--property=UnitFileState,ActiveState,MainPID,LoadState", name])
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    def listening(self):
        if self._listening is None:
            self._listening = listening_ports()
        return self._listening

    def in_container(self):
        if self._container is None:
            self._container = self.run(["systemd-detect-virt", "--container", "--quiet"])[0] == 0
        return self._container

    def skip(self, text):
        self.skipped.append(text)

    def note(self, text):
        self.notes.append(text)

    @contextlib.contextmanager
    def directory(self):
        path = tempfile.mkdtemp(prefix="fastapi-hardening-")
        try:
            yield path
        finally:
            shutil.rmtree(path)


class Harden:
    def __init__(self, module):
        self.module = module
        self.params = module.params
        self.host = Host(module)
        self.modes = {item["path"]: int(item["mode"], 8) for item in self.params["files"]}

    def run(self):
        self._wait_for_others()
        topics = self._topics()
        reasons, changes = [], {}
        for name, topic in topics.items():
            found = {path: text for path, text in topic.texts.items() if self._differs(path, text)}
            if found:
                changes[name] = found
            units = [unit for unit in topic.units if not self._runs(unit)]
            reason = topic.drifted() if topic.texts else ""
            if reason and not found:
                reasons.append(reason)
            if not found and units:
                reasons.append(f"{', '.join(units)} is not enabled and running")
            if found or reason or units:
                changes.setdefault(name, {})
        texts = {path: text for found in changes.values() for path, text in found.items()}
        result = {
            "changed": bool(changes), "paths": sorted(texts), "topics": list(changes), "reasons": reasons,
            "moves": self._moves(changes),
        }
        if self.module._diff:
            result["diff"] = [self._diff(path, text) for path, text in sorted(texts.items())]
        if changes:
            self._refuse(self._test({name: topics[name] for name in changes}))
        if changes and self.host.arming:
            result.update(self._arm({name: topics[name] for name in changes}, texts))
        result.update(left_out=self.host.skipped, notes=self.host.notes)
        return result

    def _topics(self):
        """The topics that this host can do, with the texts fit for it."""
        texts = {}
        for item in filter(lambda item: item["enabled"], self.params["files"]):
            texts.setdefault(item["topic"], {})[item["path"]] = item["content"] or ""
        wanted = hardening.ssh_ports(texts.get("ssh", {}).get(TOPICS["ssh"].drop_in, ""))
        self.host.wanted_ports = {port for port in wanted if port}
        found = {}
        for name in ORDER:
            if name not in texts:
                continue
            topic = TOPICS[name](self.host, texts[name])
            missing = bool(topic.program) and not os.path.exists(topic.program)
            if missing and not topic.from_package:
                self.host.skip(f"{name}: there is no {topic.program}")
            elif missing and not self.module.check_mode:
                raise TopicError(f"{name}: there is no {topic.program}. Install its package, or set "
                                 "hardening_manage_packages to true.")
            elif topic.unsupported():
                self.host.skip(f"{name}: {topic.unsupported()}")
            else:
                topic.prepare()
                found[name] = topic
        return found

    def _differs(self, path, text):
        now = read(path)
        return now != text or (path in self.modes and os.stat(path).st_mode & 0o7777 != self.modes[path])

    def _runs(self, unit):
        state = self.host.unit(unit)
        return state.get("UnitFileState") in ("enabled", "static", "generated") and state.get("ActiveState") == "active"

    def _moves(self, changes):
        if "ssh" in changes and self.host.moves:
            return {"from": self.host.who["port"], "to": min(self.host.wanted_ports)}
        return None

    def _diff(self, path, text):
        secret = "ssh_host_" in path
        before = (read(path) or "") if not secret else ""
        after = "(a new key)\n" if secret else text
        return {"before_header": path, "after_header": path, "before": before, "after": after}

    def _test(self, topics):
        """What is refused, of all topics at once."""
        refused = []
        for name, topic in topics.items():
            if topic.program and not os.path.exists(topic.program):
                self.module.warn(f"{name}: {topic.program} is not installed yet: its test of the files is left out.")
                continue
            with self.host.directory() as stage:
                try:
                    topic.test(stage)
                except TopicError as error:
                    refused.append(str(error).strip())
        return refused

    def _refuse(self, refused):
        problems = "\n".join(f"  {problem}." for problem in self.host.problems)
        if problems and self.params["checks"]:
            refused.append(f"This would shut out the connection of this run:\n{problems}\n{hardening.GO_PAST}.")
        elif problems:
            self.module.warn(f"This may shut out the connection of this run:\n{problems}")
        if refused:
            raise TopicError("\n".join(refused))

    # -- the change ----------------------------------------------------------------------------------------------------

    def _wait_for_others(self):
        """A change that still waits for its confirmation is that of a run which has died: the host settles it."""
        pending = self._pending()
        if not pending or self.module.check_mode:
            return
        deadline = time.monotonic() + pending["window"] + GRACE
        while self._pending():
            if time.monotonic() > deadline:
                raise TopicError(
                    f"A change of {', '.join(pending['topics'])} waits for its confirmation, and its timer did not "
                    f"fire. Take it back: {sys.executable} {PROGRAM} restore {pending['id']} operator.")
            time.sleep(0.5)

    def _pending(self):
        text = read(os.path.join(STATE, "pending/change.json"))
        return json.loads(text) if text else None

    def _arm(self, topics, texts):
        id_ = secrets.token_hex(4)
        # One command for several topics is run once.
        activate, leave, restore, saved, ports = {}, {}, {}, {}, []
        for topic in topics.values():
            activate.update((tuple(command), None) for command in topic.activate)
            units = [unit for unit in topic.units if not self._runs(unit)]
            if units:
                activate[("systemctl", "daemon-reload")] = None
                activate[("systemctl", "enable", "--quiet", "--now", *units)] = None
                leave[("systemctl", "disable", "--quiet", "--now", *units)] = None
            restore.update((tuple(command), None) for command in topic.restore)
            saved.update(topic.saved())
        if "ssh" in topics and self.host.unit("ssh.service").get("ActiveState") == "active":
            ports = hardening.ssh_ports(topics["ssh"].texts[TOPICS["ssh"].drop_in]) or sorted(self.host.ports)
        files = {
            path: {"content": text, "mode": self._mode(path), "uid": 0, "gid": 0} for path, text in texts.items()}
        change = {
            "id": id_, "topics": list(topics), "window": self.params["window"], "ports": ports,
            "activate": list(activate), "leave": list(leave), "restore": list(restore), **self._spared(),
        }
        make_directory(STATE, mode=0o700)
        write_file(PROGRAM, self.params["program"], 0o700)
        program = [sys.executable, PROGRAM]
        code, out, err = self.module.run_command(
            [*program, "stage", id_], data=json.dumps({"change": change, "texts": files, "saved": saved}))
        if code:
            raise TopicError(f"The timer that would restore the old state cannot be armed: {(out + err).strip()}")
        return {"id": id_, "program": program}

    def _spared(self):
        """A new connection that is refused a few times must not get the operator banned."""
        if not self.host.who or not os.path.exists(FAIL2BAN):
            return {"trial": [], "settle": []}
        jail, address = [FAIL2BAN, "set", "sshd"], self.host.who["address"]
        if address in self.host.run([FAIL2BAN, "get", "sshd", "ignoreip"])[1].split():
            return {"trial": [], "settle": [[*jail, "unbanip", address]]}
        return {
            "trial": [[*jail, "addignoreip", address]],
            "settle": [[*jail, "delignoreip", address], [*jail, "unbanip", address]],
        }

    def _mode(self, path):
        if path in self.modes:
            return self.modes[path]
        if os.path.exists(path):
            return os.stat(path).st_mode & 0o7777
        return 0o644 if path.endswith(".pub") else 0o600


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    os.umask(0o022)
    if not module.check_mode:
        places.correct()
    try:
        module.exit_json(**Harden(module).run())
    except TopicError as error:
        module.fail_json(msg=f"{error}\n{UNTOUCHED}")


if __name__ == "__main__":
    main()
