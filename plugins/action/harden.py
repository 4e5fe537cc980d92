# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of harden: it proves by a new connection that the operator still gets in, or has it undone."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.utils.display import Display
from ansible_collections.daoman.fastapi.plugins.module_utils import spec
from ansible_collections.daoman.fastapi.plugins.module_utils.monitoring_targets import PORTS
from ansible_collections.daoman.fastapi.plugins.modules.harden import ARGUMENTS
from ansible_collections.daoman.fastapi.plugins.plugin_utils.rendering import RenderingAction
from ansible_collections.daoman.fastapi.plugins.plugin_utils.way_in import (
    NEW,
    Kept,
    NoWayIn,
    another,
    by_password,
    is_ssh,
    port_of,
    say,
)

PROGRAM = os.path.join(spec.ROLES, "hardening/files/commit_confirmed.py")
# Seconds beyond the window in which the host must be back.
GRACE = 25
TRIES = 2


class ActionModule(RenderingAction):
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _valid, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        if args["phase"] == "reach":
            return {**result, "changed": False, **self._reach(args)}
        variables = self._variables(args["role"], task_vars or {})
        for who, variable in (("fleet", "hardening_firewall.fleet_hosts"), ("monitors", "hardening_monitors")):
            variables[f"harden_{who}"] = [address for name in args[who] for address in addresses(name, variable)]
        variables["harden_proxies"] = args["proxies"]
        variables["harden_exporter_ports"] = sorted(PORTS.values())
        for item in args["files"]:
            if item["template"]:
                item["content"] = self._render(item["template"], variables, item["path"])
                item["template"] = None
        args["by_password"] = by_password(self._connection)
        self.args, self.task_vars = args, task_vars
        plan = self._module("plan")
        moves = plan.pop("moves", None)
        result.update(plan)
        if plan.get("failed") or not plan["changed"] or self._task.check_mode:
            return result
        if not is_ssh(self._connection):
            Display().warning(
                f"The connection is {self._connection._load_name}, not ssh: whether somebody gets in by SSH after "
                "this change cannot be tried.")
        steps = [(moves["from"], moves["to"]), (0, moves["to"])] if moves else [(0, 0)]
        for keep, port in steps:
            problem = self._step(keep, self._reached_at(port, moves))
            if problem:
                return {**result, "failed": True, "changed": False, "msg": problem}
        if moves and port_of(self._connection) == moves["to"]:
            result["port"] = moves["to"]
            Display().warning(f"SSH is on port {moves['to']} now. Write it into the inventory, for the next run: "
                              f"ansible_port: {moves['to']}")
        return result

    def _reach(self, args):
        """The port at which the host is, where it is not that of the inventory."""
        connection, port = self._connection, args["port"]
        if not is_ssh(connection) or port in (0, port_of(connection)):
            return {}
        try:
            say(another(connection, NEW, args["timeout"]), "true")
        except NoWayIn as error:
            try:
                say(another(connection, NEW, args["timeout"], port), "true")
            except NoWayIn as other:
                said = f"{self._operator()}:\n{error}\nand at port {port} (hardening_ssh.port):\n{other}"
                raise AnsibleConnectionFailure(f"The host is not reached as {said}") from other
            Display().warning(f"The host is at port {port} already, no longer at {port_of(connection)}. Write it into "
                              f"the inventory: ansible_port: {port}")
            return {"port": port}
        return {}

    def _module(self, phase, keep=0):
        arguments = {**self.args, "phase": phase, "keep_port": keep}
        if phase == "arm":
            with open(PROGRAM, encoding="utf-8") as stream:
                arguments["program"] = stream.read()
        return self._execute_module("daoman.fastapi.harden", module_args=arguments, task_vars=self.task_vars)

    def _reached_at(self, port, moves):
        """The port to connect to. Behind a port that somebody forwards, it stays what it is."""
        if port and is_ssh(self._connection) and port_of(self._connection) in (moves["from"], moves["to"]):
            return port
        return 0

    def _step(self, keep, port):
        """One change and its confirmation; what went wrong, or None."""
        window = self.args["window"]
        usual = self._connection
        with Kept(usual, window + GRACE) as kept:
            try:
                say(kept, "true")
            except NoWayIn as error:
                return (f"A new connection as {self._operator()} cannot be made even before anything is changed, so "
                        f"that none could confirm the change. Nothing was changed. It said:\n{error}")
            self._connection = kept
            try:
                armed = self._module("arm", keep)
            finally:
                self._connection = usual
            if armed.get("failed"):
                return armed["msg"]
            if not armed["changed"]:
                return None
            started = time.monotonic()
            problem = self._apply(kept, armed)
            if problem is None:
                problem = self._confirm(armed, port)
                if problem is None:
                    if port:
                        usual.set_option("port", port)
                    return None
                return self._undone(kept, armed, started, problem)
            return problem

    def _operator(self):
        connection = self._connection
        if not is_ssh(connection):
            return connection._load_name
        user = connection.get_option("remote_user")
        return f"{user + '@' if user else ''}{connection.get_option('host')} port {port_of(connection)}"

    def _apply(self, kept, armed):
        try:
            answer = say(kept, *armed["program"], "apply", armed["id"])
        except NoWayIn:
            return None  # cut while it was made; the new connection says whether that is so for good
        if answer.get("failure"):
            return (f"The change of {_list(armed['topics'])} did not take effect and was taken back at once:\n"
                    f"{answer['failure']}\n{_undone_files(answer['outcome'])}")
        return None

    def _confirm(self, armed, port):
        """Disarms the timer over a new connection; what was said instead, or None."""
        said = ""
        for attempt in range(TRIES):
            new = another(self._connection, NEW, self.args["timeout"], port)
            try:
                answer = say(new, *armed["program"], "confirm", armed["id"])
            except NoWayIn as error:
                said = str(error)
                if attempt + 1 < TRIES:
                    time.sleep(1)
                continue
            return answer["failure"] or None if "failure" in answer else f"an answer without meaning: {answer}"
        return said

    def _undone(self, kept, armed, started, problem):
        """Has the old state restored, waits until the host is back, and says what happened."""
        answer = {}
        # Where that is not possible, the host's timer does it.
        with contextlib.suppress(NoWayIn):
            answer = say(kept, *armed["program"], "restore", armed["id"], "operator")
        deadline = started + self.args["window"] + GRACE
        back = False
        while not back and time.monotonic() < deadline:
            with contextlib.suppress(NoWayIn):
                answer = say(another(self._connection, NEW, self.args["timeout"]), *armed["program"], "status", "-")
                back = not answer.get("pending", True)
            if not back:
                time.sleep(1)
        return verdict(armed, problem, answer.get("outcome") or {}, back, time.monotonic() - started, self._operator())


def addresses(name, variable):
    """The addresses of a host that a variable names, as the controller knows it."""
    try:
        return [str(ipaddress.ip_network(name, strict=False))]
    except ValueError:
        pass
    try:
        return sorted({item[4][0] for item in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError as error:
        raise AnsibleActionFail(
            f"{variable}: '{name}' is no address, and the controller knows none of that name "
            f"({error}). Give addresses, or ansible_host in the inventory.") from error


def verdict(armed, problem, outcome, back, seconds, operator):
    """What a run says whose change was taken back."""
    said = "\n".join(f"  {line}" for line in problem.splitlines())
    text = (f"The change of {_list(armed['topics'])} was taken back, because a new connection as {operator} "
            f"did not get in. It said:\n{said}\n")
    if not back:
        return (f"{text}The host could not be reached again within {seconds:.0f} s. Its own timer restores the old "
                "state, also after a reboot: journalctl -u 'fastapi-restore-*'")
    how = {
        "operator": "at once, over the connection from before",
        "timer": "by the host's own timer, since the connection from before was cut as well",
        "boot": "by the host when it booted",
    }.get(outcome.get("by"), "by the host")
    problems = "".join(f"\nNot restored: {item}" for item in outcome.get("problems") or [])
    return (f"{text}{_undone_files(outcome)}\nThe old state was restored {how}. A new connection got in again after "
            f"{seconds:.0f} s.{problems}\nMend the variables hardening_* of {_list(armed['topics'])} and run again.")


def _undone_files(outcome):
    return "Undone: " + (", ".join(outcome.get("files") or []) or "the services that were started")


def _list(names):
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
