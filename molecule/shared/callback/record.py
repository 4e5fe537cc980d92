# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = """
name: record
type: aggregate
short_description: Record which task changed what, per run
description:
  - Writes one JSON file for every run of a C(converge.yml) into the directory C(runs) of Molecule's ephemeral
    directory, so that a test can compare what C(--check) predicted with what then happened.
  - Outside of Molecule, set E(FASTAPI_RECORD) to the file to write.
requirements: [enabled by C(callbacks_enabled)]
author: The daoman.fastapi contributors
options:
  file:
    description: The file to write, for runs outside of Molecule.
    type: path
    env:
      - name: FASTAPI_RECORD
"""

import json
import os
import time
from pathlib import Path

from ansible import context
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.file = None
        self.tasks = []
        self.started = time.time()

    def v2_playbook_on_start(self, playbook):
        self.file = self.get_option("file")
        ephemeral = os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY")
        if not self.file and ephemeral and os.path.basename(playbook._file_name) == "converge.yml":
            runs = Path(ephemeral, "runs")
            runs.mkdir(parents=True, exist_ok=True)
            mode = "check" if context.CLIARGS.get("check") else "run"
            self.file = runs / f"{len(list(runs.iterdir())):02}-{mode}.json"

    def _record(self, result, outcome):
        data = result.result
        items = data.get("results") if isinstance(data.get("results"), list) else None
        task = result.task
        self.tasks.append({
            "host": result.host.get_name(),
            "task": task.get_name(),
            "action": task.action,
            "outcome": outcome,
            "changed": bool(data.get("changed")),
            "items": len(items) if items is not None else 1,
        })

    def v2_runner_on_ok(self, result):
        self._record(result, "ok")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._record(result, "failed")

    def v2_runner_on_unreachable(self, result):
        self._record(result, "unreachable")

    def v2_runner_on_skipped(self, result):
        self._record(result, "skipped")

    def v2_playbook_on_stats(self, stats):
        if self.file:
            seconds = round(time.time() - self.started, 2)
            record = json.dumps({"seconds": seconds, "tasks": self.tasks}, indent=1)
            Path(self.file).write_text(record, encoding="utf-8")
