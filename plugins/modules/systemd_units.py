# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_units
short_description: Installs systemd units from data, all of them or none
version_added: 0.1.0
description:
  - Renders all units, has C(systemd-analyze verify) judge them together in a directory of their own and measures the
    exposure of the services. Only if nothing is found are they installed, enabled and started.
  - A run is one transaction. Where a unit does not start, or does not stay up, every unit file of the run goes back to
    what it was, what ran before runs again, and the run fails with the unit's journal.
  - A changed unit is restarted. An unchanged one is only started where it does not run.
options:
  units:
    description: The units.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - The unit's name with its kind, for example V(worker.service), V(worker@.service) or V(worker.timer).
        type: str
        required: true
      sections:
        description:
          - Directives by section. A list gives a directive several times, an empty string resets it, a boolean is
            written as C(yes) or C(no). Specifiers such as C(%n) are systemd's; a literal percent sign is C(%%).
          - Left out for a unit which is there without this module, such as an instance of a template.
        type: dict
        default: {}
      profile:
        description:
          - A sandbox for the service. What O(units[].sections) sets itself stays as it is.
          - V(strict) leaves unix sockets only, V(localhost) adds TCP and UDP to this host, V(network) to any other.
        type: str
        choices: [none, strict, localhost, network]
        default: none
      state:
        description:
          - V(started) has the unit run, V(stopped) not; V(present) leaves that alone; V(absent) stops the unit and
            removes it with its drop-ins and links, the instances of a template too.
          - By default a unit with a section C(Install) is started and one without is V(present); so are templates.
        type: str
        choices: [started, stopped, present, absent]
      enabled:
        description:
          - Whether the unit starts at boot, by what its section C(Install) says.
          - By default a unit with such a section does, except templates and those which are V(stopped).
        type: bool
      on_change:
        description: What a running unit does when its file changes.
        type: str
        choices: [restart, reload, none]
        default: restart
      stale:
        description: Whether something else of the unit has changed, such as a drop-in, which counts as its file does.
        type: bool
        default: false
      exposure_limit:
        description:
          - Highest exposure by C(systemd-analyze security) with which the service is installed, 0 (closed) to 10.
        type: float
  path:
    description: What the list of units is called in messages, usually the name of a variable.
    type: str
    default: units
  settle:
    description:
      - Seconds for which a service must stay up after its start to count as started. systemd calls a service of C(Type)
        V(simple) started before it has run its first line.
    type: float
    default: 1.0
attributes:
  check_mode:
    description: Predicts the changes. The units are verified and measured, since that only reads.
    support: full
  diff_mode:
    description: Shows each unit file.
    support: full
notes:
  - In check mode a command that is not on the host yet is a warning, because an earlier task would have installed it.
author:
  - The daoman.fastapi contributors (@daoman)
"""

EXAMPLES = r"""
- name: Service | The worker runs
  daoman.fastapi.systemd_units:
    units:
      - name: worker.service
        profile: localhost
        exposure_limit: 1.5
        sections:
          Unit: {Description: Works off the queue}
          Service: {DynamicUser: true, ExecStart: /opt/worker/bin/worker}
          Install: {WantedBy: multi-user.target}

- name: Service | The report is made every night
  daoman.fastapi.systemd_units:
    units:
      - name: report.service
        sections:
          Service: {Type: oneshot, DynamicUser: true, ExecStart: /opt/report/bin/report}
      - name: report.timer
        sections:
          Timer: {OnCalendar: daily, RandomizedDelaySec: 1h, Persistent: true}
          Install: {WantedBy: timers.target}
"""

RETURN = r"""
units:
  description: What was, or in check mode would be, done with each unit.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The unit.
      type: str
      returned: always
    actions:
      description: Any of created, updated, enabled, disabled, started, restarted, reloaded, stopped, removed.
      type: list
      elements: str
      returned: always
    exposure:
      description: The service's exposure.
      type: float
      returned: where it has an O(units[].exposure_limit)
  sample:
    - {name: worker.service, actions: [created, enabled, started], exposure: 1.1}
problems:
  description: What is wrong with the units; nothing was changed.
  returned: when there is something
  type: list
  elements: str
journal:
  description: The last lines of the journal of a unit that did not start.
  returned: when one did not
  type: list
  elements: str
"""

import glob
import os
import re
import shlex
import shutil
import tempfile
import time

from ansible_collections.daoman.fastapi.plugins.module_utils._host import systemd
from ansible_collections.daoman.fastapi.plugins.module_utils._host.redact import Redactor, is_secret
from ansible_collections.daoman.fastapi.plugins.module_utils._host.text import safe
from ansible_collections.daoman.fastapi.plugins.module_utils.quiet import QuietModule

DIRECTORY = "/etc/systemd/system"
HEADER = "Ansible managed: daoman.fastapi.systemd_service"
JOURNAL_LINES = 40
# Types whose start is over before the service has shown that it works.
UNPROVEN = ("simple", "exec", "idle", "")
PROPERTIES = ("ActiveState", "SubState", "UnitFileState", "Type", "Result", "NRestarts", "Triggers", "NeedDaemonReload")

OPTIONS = {
    "name": {"type": "str", "required": True},
    "sections": {"type": "dict", "default": {}},
    "profile": {"type": "str", "choices": [systemd.NO_PROFILE, *systemd.PROFILES], "default": systemd.NO_PROFILE},
    "state": {"type": "str", "choices": ["started", "stopped", "present", "absent"]},
    "enabled": {"type": "bool"},
    "on_change": {"type": "str", "choices": ["restart", "reload", "none"], "default": "restart"},
    "stale": {"type": "bool", "default": False},
    "exposure_limit": {"type": "float"},
}


class StartFailed(Exception):
    """A unit that did not start, or did not stay up."""

    def __init__(self, name, message):
        super().__init__(message)
        self.name = name
        self.message = message


class Unit:
    """One unit: what is wanted of it, and what there was before."""

    def __init__(self, place, options):
        self.name = options["name"]
        self.place = place
        self.options = options
        self.sections = systemd.apply_profile(options["sections"], options["profile"])
        self.path = os.path.join(DIRECTORY, self.name)
        self.template = "@." in self.name
        self.kind = self.name.rpartition(".")[2]
        installable = bool(options["sections"].get("Install"))
        self.state = options["state"] or ("started" if installable and not self.template else "present")
        self.enabled = options["enabled"]
        if self.enabled is None and installable and not self.template and self.state != "stopped":
            self.enabled = True
        if self.state == "absent":
            self.enabled = False
        self.actions = []
        self.exposure = None
        self.before = _read(self.path)
        self.after = self.before
        if self.state == "absent":
            self.after = None
        elif options["sections"]:
            self.after = systemd.render(self.sections, HEADER)

    @property
    def changed(self):
        return self.before != self.after

    @property
    def installs(self):
        """Whether the unit's file is this module's."""
        return self.state != "absent" and bool(self.options["sections"])

    def result(self):
        result = {"name": self.name, "actions": self.actions}
        if self.exposure is not None:
            result["exposure"] = self.exposure
        return result


def _read(path):
    # a masked unit is a link to /dev/null
    if os.path.islink(path) or not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def assignments(text):
    """Names and values of Environment= in a unit's text."""
    found = {}
    for line in re.findall(r"^Environment=(.*)$", text or "", re.MULTILINE):
        try:
            words = shlex.split(line)
        except ValueError:  # not as systemd has it, which will say so
            words = line.split()
        found.update(word.split("=", 1) for word in words if "=" in word)
    return found


class Units:
    def __init__(self, module):
        self.module = module
        path = module.params["path"]
        self.units = [Unit(f"{path}[{index}]", options) for index, options in enumerate(module.params["units"])]
        self.by_name = {unit.name: unit for unit in self.units}
        self.redact = Redactor()
        self.warnings = [text for unit in self.units for text in self.hide(unit)]
        self.reloads = 0
        self.began = int(time.time())
        self.status = {}
        self.was_active = {}

    def hide(self, unit):
        """Keep the values of a unit's environment out of what is shown; yields a warning of what is no secret there."""
        self.redact.add(assignments(unit.before))
        now = assignments(unit.after if unit.installs else "")
        self.redact.add(now)
        names = sorted(name for name, value in now.items() if is_secret(name, value) and unit.changed)
        if names:
            yield (
                f"{unit.place}.sections.Service.Environment: everybody on the host can read {', '.join(names)} of "
                f"{unit.name}, by systemctl show. Put secrets into a file with mode 0600, and give it as "
                "EnvironmentFile or LoadCredential."
            )

    def run(self, argv, **options):
        return self.module.run_command(argv, **options)

    def systemctl(self, *arguments, environ_update=None):
        return self.run(["systemctl", "--no-pager", *arguments], environ_update=environ_update or systemd.QUIET)

    # -- judging ----------------------------------------------------------------------------------------------------

    def problems(self):
        """Everything that is wrong with the units, before anything is written."""
        found = []
        if len(self.by_name) < len(self.units):
            names = [unit.name for unit in self.units]
            found += [
                f"{unit.place}.name: '{unit.name}' is there twice"
                for index, unit in enumerate(self.units)
                if unit.name in names[:index]
            ]
        for unit in self.units:
            if "/" in unit.name or "." not in unit.name.strip("."):
                found.append(f"{unit.place}.name: '{unit.name}' is no name for a unit")
        if found:
            return found
        files = {unit.name: unit.after for unit in self.units if unit.installs}
        if any(unit.changed and unit.installs for unit in self.units):
            found += self.verify(files)
        for unit in self.units:
            limit = unit.options["exposure_limit"]
            if limit is None or not unit.installs:
                continue
            if unit.kind != "service":
                found.append(f"{unit.place}.exposure_limit: only a service has an exposure")
                continue
            unit.exposure = systemd.exposure(unit.name, files, self.run)
            if unit.exposure > limit:
                found.append(
                    f"{unit.place}.exposure_limit: the exposure of {unit.name} is {unit.exposure:g}, over the limit of "
                    f"{limit:g}. A stricter profile lowers it; `systemd-analyze security {unit.name}` names the gaps"
                )
        return found

    def verify(self, files):
        found, known = [], None
        for finding in systemd.findings(files, self.run):
            unit = self.by_name.get(finding["unit"])
            if "command" in finding and self.module.check_mode:
                self.warnings.append(f"{finding['text']} (check mode: an earlier task may install it)")
                continue
            place, mend = unit.place if unit else self.module.params["path"], ""
            if unit and "section" in finding:
                place = f"{place}.sections.{finding['section']}"
                if "key" in finding:
                    known = systemd.known_directives(self.run) if known is None else known
                    place = f"{place}.{finding['key']}"
                    close = systemd.nearest(finding["key"], finding["section"], known)
                    mend = f" Did you mean '{close}'?" if close else ""
            found.append(f"{place}: {finding['text']}{mend}")
        return found

    # -- looking ----------------------------------------------------------------------------------------------------

    def look(self):
        """The state of all units, in one call."""
        names = [unit.name for unit in self.units if not unit.template]
        self.status = self.show(names) if names else {}
        for unit in self.units:
            status = self.status.setdefault(unit.name, {})
            # of a file without its unit loaded yet, and of templates, `show` does not tell
            if not status.get("UnitFileState") and (unit.template or os.path.lexists(unit.path)):
                _code, out, _err = self.systemctl("is-enabled", unit.name)
                status["UnitFileState"] = out.strip().splitlines()[0] if out.strip() else ""
        self.was_active = {name: status.get("ActiveState") for name, status in self.status.items()}

    def show(self, names):
        code, out, err = self.systemctl("show", "--property=" + ",".join(PROPERTIES), "--", *names)
        if code != 0:
            self.module.fail_json(msg=f"systemctl cannot tell the state of the units: {err.strip()}")
        found = {}
        # one block for each name, in their order: an alias' own Id is another's
        for name, block in zip(names, re.split(r"\n\s*\n", out.strip())):
            found[name] = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        return found

    def active(self, unit):
        return self.status[unit.name].get("ActiveState") in ("active", "reloading", "activating", "refreshing")

    def plan(self):
        """What is to be done, by unit; the same in check mode and without."""
        for unit in self.units:
            running = self.active(unit)
            state = self.status[unit.name].get("UnitFileState", "")
            if unit.state == "absent":
                if unit.before is not None or self.leftovers(unit):
                    unit.actions.append("removed")
                elif running:
                    unit.actions.append("stopped")
                continue
            # a run that was interrupted, or an editor, leaves a file that systemd has not read
            unread = unit.installs and self.status[unit.name].get("NeedDaemonReload") == "yes"
            changed = unit.changed or unread or unit.options["stale"]
            if unit.options["stale"]:
                unit.actions.append("reread")
            if unit.changed or unread:
                unit.actions.append("updated" if unit.before is not None else "created")
            if unit.enabled is True and (
                state not in ("enabled", "enabled-runtime", "static", "indirect", "generated", "alias")
                or self.links_differ(unit)
            ):
                unit.actions.append("enabled")
            if unit.enabled is False and state in ("enabled", "enabled-runtime", "linked"):
                unit.actions.append("disabled")
            if unit.state == "stopped" and running:
                unit.actions.append("stopped")
            elif unit.state == "started" and not running:
                unit.actions.append("started")
            elif running and changed and unit.state in ("started", "present"):
                word = {"restart": "restarted", "reload": "reloaded"}.get(unit.options["on_change"])
                if word:
                    unit.actions.append(word)

    def links_differ(self, unit):
        """Whether a changed section Install asks for links that are not there."""
        if not unit.installs or not unit.changed or unit.before is None:
            return False
        install = re.compile(r"^\[Install\]\n(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
        before, after = install.search(unit.before), install.search(unit.after)
        return (before.group(1).strip() if before else "") != (after.group(1).strip() if after else "")

    def leftovers(self, unit):
        """Drop-ins and links of a unit that is to go."""
        found = [path for path in (f"{unit.path}.d",) if os.path.lexists(path)]
        for suffix in ("wants", "requires", "upholds"):
            found += glob.glob(os.path.join(DIRECTORY, f"*.{suffix}", _instances(unit.name)))
        if os.path.islink(unit.path):
            found.append(unit.path)
        return found

    # -- acting -----------------------------------------------------------------------------------------------------

    def apply(self):
        if not any(unit.actions for unit in self.units):
            return
        written = [unit for unit in self.units if unit.changed and unit.installs]
        gone = [unit for unit in self.units if unit.state == "absent" and unit.actions]
        for unit in written:
            _write(unit.path, unit.after)
        try:
            # what goes stops first, because what comes may want its port; it is removed last, for the way back
            for unit in gone:
                self.stop([_instances(unit.name)])
            if any({"created", "updated", "reread"}.intersection(unit.actions) for unit in self.units):
                self.daemon_reload()
            self.enable()
            self.start()
        except StartFailed as failure:
            journal = self.journal(failure.name)
            self.roll_back(written)
            text = "\n".join(journal)
            self.module.fail_json(
                msg=f"{safe(self.redact(failure.message))}. All units of this run are as they were before. "
                f"The last lines of its journal:\n{text}",
                journal=journal,
                units=[unit.result() for unit in self.units],
            )
        if gone:
            self.remove(gone)

    def remove(self, gone):
        for unit in gone:
            self.systemctl("disable", unit.name)
            for path in self.leftovers(unit):
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)
            if os.path.lexists(unit.path):
                os.unlink(unit.path)
        self.daemon_reload()
        for unit in gone:
            self.systemctl("reset-failed", _instances(unit.name))

    def stop(self, names):
        code, _out, err = self.systemctl("stop", *names)
        # what is not loaded does not run either
        if code not in (0, 5):
            raise StartFailed(names[0], f"systemctl stop {' '.join(names)} failed: {err.strip()}")

    def daemon_reload(self):
        code, _out, err = self.systemctl("daemon-reload")
        if code != 0:
            self.module.fail_json(msg=f"systemctl daemon-reload failed: {err.strip()}")

    def enable(self):
        for word, action in (("disabled", "disable"), ("enabled", "reenable")):
            names = [unit.name for unit in self.units if word in unit.actions]
            if not names:
                continue
            code, _out, err = self.systemctl(action, *names)
            if code != 0:
                raise StartFailed(names[0], f"systemctl {action} {' '.join(names)} failed: {err.strip()}")

    def start(self):
        stopped = [unit.name for unit in self.units if "stopped" in unit.actions and unit.state != "absent"]
        if stopped:
            self.stop(stopped)
        # sockets and the like first: a service finds its socket open, a restarted socket its service stopped
        order = sorted(self.units, key=lambda unit: unit.kind == "service")
        begun = []
        revived = set()
        for unit in order:
            if unit.kind == "socket" and "restarted" in unit.actions:
                revived.update(self.stop_triggered(unit))
            for word, action in (("started", "start"), ("restarted", "restart"), ("reloaded", "reload-or-restart")):
                if word in unit.actions:
                    self.begin(unit.name, action)
                    begun.append(unit)
        for name in sorted(revived - {unit.name for unit in begun}):
            self.begin(name, "start")
        self.settle(begun)

    def stop_triggered(self, unit):
        """The running services of a socket that is restarted: it cannot be while they hold it."""
        names = self.status[unit.name].get("Triggers", "").split()
        running = [
            name
            for name, status in (self.show(names) if names else {}).items()
            if status.get("ActiveState") == "active"
        ]
        if running:
            self.systemctl("stop", *running)
        return running

    def begin(self, name, action):
        # a unit that has used up its start limit would refuse
        self.systemctl("reset-failed", name)
        code, _out, err = self.systemctl(action, name)
        if code != 0:
            first = (err.strip().splitlines() or ["no reason given"])[0]
            raise StartFailed(name, f"{name} does not {action}: {first}")

    def settle(self, begun):
        services = [unit.name for unit in begun if unit.kind == "service"]
        if not services:
            return
        first = self.show(services)
        unproven = [name for name in services if first[name].get("Type", "") in UNPROVEN]
        if unproven and self.module.params["settle"] > 0:
            time.sleep(self.module.params["settle"])
        for name, status in self.show(services).items():
            state = status.get("ActiveState")
            restarts = int(status.get("NRestarts") or 0)
            if state == "failed" or status.get("SubState") == "auto-restart" or (name in unproven and restarts > 0):
                raise StartFailed(name, f"{name} started and did not stay up (result: {status.get('Result')})")
            if state == "inactive" and status.get("Result") not in ("success", "exec-condition", "condition"):
                raise StartFailed(name, f"{name} started and ended (result: {status.get('Result')})")

    def roll_back(self, written):
        """Puts every file back and runs what ran before."""
        for unit in written:
            if unit.before is None:
                self.systemctl("stop", unit.name)
                self.systemctl("disable", unit.name)
                os.unlink(unit.path)
            else:
                _write(unit.path, unit.before)
        if written:
            self.daemon_reload()
        for unit in self.units:
            if "enabled" in unit.actions and unit.before is not None:
                # the links of the old section Install, or none
                was = self.status[unit.name].get("UnitFileState") in ("enabled", "enabled-runtime")
                self.systemctl("reenable" if was else "disable", unit.name)
            if "disabled" in unit.actions:
                self.systemctl("enable", unit.name)
        order = sorted(self.units, key=lambda unit: unit.kind == "service")
        for unit in order:
            self.systemctl("reset-failed", _instances(unit.name))
            touched = {"started", "restarted", "reloaded", "stopped", "removed"}.intersection(unit.actions)
            if self.was_active.get(unit.name) in ("active", "reloading"):
                if touched or unit in written:
                    if unit.kind == "socket":
                        self.stop_triggered(unit)
                    self.systemctl("restart", unit.name)
            elif touched and unit.before is not None:
                self.systemctl("stop", unit.name)

    def journal(self, name):
        argv = [
            "journalctl",
            "--no-pager",
            "--output=short-iso",
            f"--unit={name}",
            f"--lines={JOURNAL_LINES}",
            f"--since=@{self.began}",
        ]
        _code, out, err = self.run(argv, environ_update=systemd.QUIET)
        return safe(self.redact(out or err)).strip().splitlines()

    def difference(self, unit):
        """The change of a unit's file without the values of its environment."""
        before, after = self.redact(unit.before or ""), self.redact(unit.after or "")
        if before == after:
            after += "# Values of Environment= differ.\n"
        return {"before_header": unit.path, "after_header": unit.path, "before": before, "after": after}


def _instances(name):
    """A unit, or all instances of a template, as systemctl and glob take it."""
    return name.replace("@.", "@*.")


def _write(path, text):
    """Replaces a file at once: systemd, or a crash, sees the old or the new one."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main():
    module = QuietModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True, "options": OPTIONS},
            "path": {"type": "str", "default": "units"},
            "settle": {"type": "float", "default": 1.0},
        },
        supports_check_mode=True,
    )
    try:
        units = Units(module)
        problems = units.problems()
    except ValueError as error:
        module.fail_json(msg=str(error))
    if problems:
        module.fail_json(
            msg="The units are not in order; nothing was changed:\n" + "\n".join(f"  {text}" for text in problems),
            problems=problems,
        )
    units.look()
    units.plan()
    changed = any(unit.actions for unit in units.units)
    if changed and not module.check_mode:
        units.apply()
    for warning in units.warnings:
        module.warn(warning)
    result = {"changed": changed, "units": [unit.result() for unit in units.units]}
    if module._diff:
        result["diff"] = [units.difference(unit) for unit in units.units if unit.changed]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
