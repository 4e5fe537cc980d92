# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets aside the state files and lines of history of an app that do not fit, as each run does that changes it."""

from __future__ import annotations

import os

from .cutover import Cutover
from .history import set_aside_lines
from .release import Layout
from .shell import Shell


class Tidy:
    def __init__(self, params, run):
        """`params` has `name`, `who`, `reason` and `break_lock`; `run` is AnsibleModule.run_command or one like it."""
        self.params = params
        self.layout = Layout(params["name"])
        self.cutover = Cutover(self.layout, Shell(run), params["who"], params["reason"])
        self.result = {"changed": False, "release": "", "version": ""}

    def run(self):
        params = self.params
        with self.cutover.lock.taken("", params["who"], params["reason"] or "tidy", params["break_lock"]):
            self.cutover.set_aside()
            self.cutover.order.settle()
            if os.path.exists(self.layout.history):
                said = set_aside_lines(self.layout)
                self.cutover.warnings += [said] if said else []
        live = self.layout.live_id()
        manifest = (self.layout.manifest(live) if live else None) or {"version": "that is not known"}
        self.result.update(changed=bool(self.cutover.warnings), release=live or "none", version=manifest["version"])
