# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rollback of one app on one host."""

from __future__ import annotations

import os

from . import environment, intact, upkeep
from .cutover import Cutover, serve_settings
from .files import no_app
from .order import AGAIN, Order, named, offered
from .release import Layout, ReleaseError, env_values
from .shell import Shell, clean_environment
from .switch import Instance, remove_release

# What starts an old release with today's environment, in messages.
CURRENT = "-e env=current"


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
        # Whether a release was made for this rollback.
        self.is_new = False
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
        versions = {item["id"]: item["version"] for item in releases}
        self.result.update(release=target, previous=live or "", version=versions[target])
        text = self._environment(live, target, versions)
        self.cutover.secrets = {**settings["env"], **env_values(text)}
        same = text == environment.of(layout, target)
        made = target if same else environment.changed(layout, target, text)[1]
        if made == live != target:
            raise ReleaseError(
                "choose",
                f"release {target} with the environment of today is the one that serves. Name an earlier one: "
                f"{offered(releases, live)}",
            )
        if target == live and same and Instance(layout, live, self.shell).serves():
            self._forget(live)
            return
        self.result["changed"] = True
        self.result["diff"] = {
            "before": f"{live or 'none'} {versions.get(live, '')}\n",
            "after": f"{target} {versions[target]}{'' if same else ' with the environment of today'}\n",
        }
        if self.check:
            return
        with self._locked(f"rollback to {target}"):
            self.cutover.repair(live, keep=(target,))
            self.is_new = made is None
            to = made or self._with(text, target)
            try:
                self.cutover.go_to(to, live, {**settings, "env": env_values(text)}, hold=True, instead_of=target)
            except OSError as exc:  # a full disk, for example
                phase = self.cutover.lock.content.get("phase", "choose")
                self._fail(ReleaseError(phase, str(exc)), to, live, settings, exc)
            except ReleaseError as exc:
                self._fail(exc, to, live, settings)
            self.result["release"] = to
            self.cutover.record("rollback", to, live, "good", phases=self.cutover.phases)
            self.result["held"] = self._held(live)
        self._forget(to)
        self.result.update(self.cutover.outcome())

    def _locked(self, what):
        reason = what + (f": {self.reason}" if self.reason else "")
        return self.cutover.lock.taken("", self.params["who"], reason, self.params["break_lock"])

    def _environment(self, live, target, versions):
        """The environment that the release is to have; a warning where it is another than that of today."""
        own = environment.of(self.layout, target)
        if self.params.get("env") == "current":
            today = environment.todays(self.layout, live)
            return own if today is None else today
        differ = environment.names(environment.of(self.layout, live), own) if live not in {None, target} else []
        if differ:
            self.cutover.warnings.append(
                f"{self.layout.name}: the environment of {versions[target]} differs from that of what serves, in "
                f"{', '.join(differ)}. If one of them was changed elsewhere as well, such as the password of a "
                f"database, go back with {CURRENT}."
            )
        return own

    def _with(self, text, target):
        """The release with another environment."""
        with self.cutover.phase("build"):
            number = self.cutover.order.take
            return environment.with_environment(self.layout, target, text, self.shell, self.params["who"], number)

    def _forget(self, live):
        if self.params.get("forget_secrets") and environment.outdated(self.layout, live):
            self.result["changed"] = True
            if not self.check:
                with self._locked("forget old secrets"):
                    self.cutover.forget(live)

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
        if self.is_new and self.layout.live_id() != target:
            # Made for this rollback alone.
            remove_release(self.layout, target)
        raise failure from cause

    def _lead_back(self):
        """Where live.sock leads to no release: lead it back to what went on."""
        live = upkeep.running(self.layout, self.shell)
        if live and not self.check:
            with self.cutover.lock.taken("", self.params["who"], self.reason, self.params["break_lock"]):
                self.cutover.warnings.append(f"{self.layout.name}: {upkeep.lead_back(self.layout, live)}.")
        return live
