# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One rollback of one app on one host."""

from __future__ import annotations

import os

from .cutover import Cutover, serve_settings
from .files import no_app
from .lock import now
from .release import Layout, ReleaseError, rollback_target
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
        self.result = {"changed": False, "release": "", "previous": "", "version": ""}

    def run(self):
        layout = self.layout
        if not os.path.isdir(layout.releases):
            raise ReleaseError("choose", no_app(layout.name))
        live = layout.live_id()
        releases = layout.releases_by_age()
        target = rollback_target(releases, live, self.params["release"])
        settings = serve_settings(layout, target)
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
                self.cutover.go_to(target, live, settings)
            except ReleaseError as exc:
                self.cutover.fail(exc, target, live, settings, "rollback")
                raise
            if live and live != target and layout.state(live)["state"] != "failed":
                self.cutover.mark(live, "rolled back", since=now(), reason=self.reason)
            self.cutover.record("rollback", target, live, "good", phases=self.cutover.phases)
        self.result.update(self.cutover.outcome())
