# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of each app's releases: which is live, and what became of those that were deployed."""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import re
import time
from collections import Counter

from fastapi_host.files import stream
from fastapi_host.release import APP_NAME, linked_id

ACTIONS = ("deploy", "rollback")
OUTCOMES = ("good", "failed")
# A tag, a branch, a commit, a version or a requirement. Nothing that could be an address with a password in it.
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~/=<>!,-]{0,99}\Z")
# Histories are root's; what is at their place by somebody else is not read.
ROOT = 0
MOST_BYTES = 16 << 20


def plain(value):
    """A text as a label, or a word that it is none."""
    if value in (None, ""):
        return ""
    return value if isinstance(value, str) and PLAIN.match(value) and "//" not in value else "(not shown)"


class Releases:
    def __init__(self, top="/srv", owner=ROOT):
        self.top = top
        self.owner = owner
        self.read = {}

    def apps(self):
        """Names of the apps, with their histories. A history that has not grown is not read again."""
        with contextlib.suppress(OSError):
            for name in filter(APP_NAME.match, sorted(os.listdir(self.top))):
                path = os.path.join(self.top, name, "history.jsonl")
                with contextlib.suppress(OSError):
                    size = os.lstat(path).st_size
                    if self.read.get(name, (None,))[0] != size:
                        self.read[name] = (size, history(path, self.owner))
                    yield name, self.read[name][1]

    def live(self, name):
        return linked_id(os.path.join(self.top, name, "live.sock"), ".sock") or ""

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
                    ("revision", plain(found.get("revision"))),
                    ("version", plain(found.get("version"))),
                ]
                info.append(((app, *told), 1))
            ends = [(plain(item.get("action")), plain(item.get("outcome")), item) for item in entries]
            counts = Counter((action, outcome) for action, outcome, _item in ends)
            for key in sorted({*counts, *((action, outcome) for action in ACTIONS for outcome in OUTCOMES)}):
                deploys.append(((("action", key[0]), app, ("outcome", key[1])), counts[key]))
            last = {(action, outcome): str(item.get("time", "")) for action, outcome, item in ends}
            for key, ended in sorted(last.items()):
                with contextlib.suppress(ValueError):
                    moment = calendar.timegm(time.strptime(ended, "%Y-%m-%dT%H:%M:%SZ"))
                    times.append(((("action", key[0]), app, ("outcome", key[1])), moment))
            breaches.append(((app,), sum(item.get("phase") == "guard" for item in entries)))
        yield "fastapi_release_info", "gauge", info
        yield "fastapi_deploys_total", "counter", deploys
        yield "fastapi_deploy_timestamp_seconds", "gauge", times
        yield "fastapi_deploy_guard_breaches_total", "counter", breaches


def history(path, owner):
    found = []
    with stream(path, owner) as lines:
        for line in lines.read(MOST_BYTES).decode("utf-8", "replace").splitlines():
            # A damaged line takes no other with it.
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    found.append(entry)
    return found
