# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rollback of one app on one host."""

from __future__ import annotations

import os

from . import intact, upkeep
from .cutover import Cutover, serve_settings
from .files import no_app
from .order import AGAIN, Order, named
from .release import Layout, ReleaseError
from .shell import Shell, clean_environment
from .switch import Instance


class Rollback:
    def __init__(self, params, run, check=False):
        """`params` are those of the module release_rollback, `run` AnsibleModule.run_command or one like it."""
        self.params = params
        self.check = check
        clean_environment()
        self.layout = Layout(params["name"])
        self.shell = Shell(run)
        self.reason = params["reason"]
        self.cutover = Cutover(self.layout, self.shell, params["who"], self.reason)
        self.result = {"changed": False, "release": "", "previous": "", "version": "", "held": "Nothing is held by it."}

    def run(self):
        layout = self.layout
        if not os.path.isdir(layout.releases):
            raise ReleaseError("choose", no_app(layout.name))
        live = layout.live_id() or self._lead_back()
        releases = layout.releases_by_age()
        target = Order(layout).target(releases, self.params["release"])
        settings = serve_settings(layout, target)
        if target != live:
            intact.refuse(layout, target)
        self.cutover.secrets = settings["env"]
        versions = {item["id"]: item["version"] for item in releases}
        self.result.update(release=target, previous=live or "", version=versions[target])
        if target == live and Instance(layout, live, self.shell).serves():
            return
        self.result["changed"] = True
        self.result["diff"] = {
            "before": f"{live or 'none'} {versions.get(live, '')}\n",
            "after": f"{target} {versions[target]}\n",
        }
        if self.check:
            return
        reason = f"rollback to {target}" + (f": {self.reason}" if self.reason else "")
        with self.cutover.lock.taken("", self.params["who"], reason, self.params["break_lock"]):
            self.cutover.repair(live, keep=(target,))
            try:
                self.cutover.go_to(target, live, settings, hold=True)
            except OSError as exc:  # a full disk, for example
                phase = self.cutover.lock.content.get("phase", "choose")
                self._fail(ReleaseError(phase, str(exc)), target, live, settings, exc)
            except ReleaseError as exc:
                self._fail(exc, target, live, settings)
            self.cutover.record("rollback", target, live, "good", phases=self.cutover.phases)
            self.result["held"] = self._held(live)
        self.result.update(self.cutover.outcome())

    def _held(self, left):
        """What is held from now on, in a sentence."""
        hold = next((hold for hold in self.cutover.order.holds() if hold["release"] == left), None)
        if not hold:
            return self.result["held"]
        return (
            f"{named(hold)} is held: deploys that ask for it keep what serves, until they ask for another revision or "
            f"are given {AGAIN}."
        )

    def _fail(self, failure, target, live, settings, cause=None):
        self.cutover.fail(failure, target, live, settings, "rollback")
        raise failure from cause

    def _lead_back(self):
        """Where live.sock leads to no release: lead it back to what went on."""
        live = upkeep.running(self.layout, self.shell)
        if live and not self.check:
            with self.cutover.lock.taken("", self.params["who"], self.reason, self.params["break_lock"]):
                self.cutover.warnings.append(f"{self.layout.name}: {upkeep.lead_back(self.layout, live)}.")
        return live
