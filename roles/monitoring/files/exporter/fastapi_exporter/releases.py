# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of each app's releases: which is live, and what became of those that were deployed."""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import time
from collections import Counter

ACTIONS = ("deploy", "rollback")
OUTCOMES = ("good", "failed")


class Releases:
    def __init__(self, top="/srv"):
        self.top = top
        self.read = {}

    def apps(self):
        """Names of the apps, with their histories. A history that has not grown is not read again."""
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self.top)):
                path = os.path.join(self.top, name, "history.jsonl")
                with contextlib.suppress(OSError):
                    size = os.stat(path).st_size
                    if self.read.get(name, (None,))[0] != size:
                        self.read[name] = (size, history(path))
                    yield name, self.read[name][1]

    def live(self, name):
        try:
            return os.path.basename(os.readlink(os.path.join(self.top, name, "live.sock"))).removesuffix(".sock")
        except OSError:
            return ""

    def values(self):
        """(metric, kind, [(labels, number)])."""
        info, deploys, times, breaches = [], [], [], []
        for name, entries in self.apps():
            app = ("app", name)
            live = self.live(name)
            found = next((item for item in reversed(entries) if item.get("release") == live), {})
            if live:
                told = [
                    ("release", live),
                    ("revision", found.get("revision", "")),
                    ("version", found.get("version", "")),
                ]
                info.append(((app, *told), 1))
            counts = Counter((item.get("action", ""), item.get("outcome", "")) for item in entries)
            for key in sorted({*counts, *((action, outcome) for action in ACTIONS for outcome in OUTCOMES)}):
                deploys.append(((("action", key[0]), app, ("outcome", key[1])), counts[key]))
            last = {(item.get("action", ""), item.get("outcome", "")): item.get("time", "") for item in entries}
            for key, ended in sorted(last.items()):
                with contextlib.suppress(ValueError):
                    moment = calendar.timegm(time.strptime(ended, "%Y-%m-%dT%H:%M:%SZ"))
                    times.append(((("action", key[0]), app, ("outcome", key[1])), moment))
            breaches.append(((app,), sum(item.get("phase") == "guard" for item in entries)))
        yield "fastapi_release_info", "gauge", info
        yield "fastapi_deploys_total", "counter", deploys
        yield "fastapi_deploy_timestamp_seconds", "gauge", times
        yield "fastapi_deploy_guard_breaches_total", "counter", breaches


def history(path):
    found = []
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    found.append(entry)
    return found
