# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The releases of apps, and who has locked them, for people."""

from __future__ import annotations

from .lock import Lock, describe, is_stale
from .redact import redact_url
from .release import Layout, release_table
from .text import one_line

LOCK = ("owner", "since", "reason", "phase", "until")


def shown(value):
    """A field that users or apps gave: a source may have a token in it, a message anything."""
    return one_line(redact_url(str(value)))


def releases_of(name):
    """The complete releases of an app, the one that was deployed last comes last."""
    layout = Layout(name)
    live = layout.live_id()
    return [
        {
            "app": name,
            "id": item["id"],
            "version": shown(item["version"]),
            "revision": shown(item["inputs"]["source"]["revision"]),
            "by": shown(item["by"]),
            "created": item["created"],
            "deployed": item.get("deployed", ""),
            "state": item["state"],
            "reason": shown(item.get("reason", "")),
            "live": item["id"] == live,
        }
        for item in layout.releases_by_age()
    ]


def lock_of(name):
    """The lock of an app, and a line about it; nothing where it is not locked."""
    lock = Lock(Layout(name))
    found = lock.read()
    if not found:
        return {}, ""
    stale = is_stale(found) and lock.is_free()
    facts = {key: shown(found.get(key, "")) for key in LOCK}
    return {**facts, "stale": stale}, f"{name}: {'left unfinished' if stale else 'locked'} by {shown(describe(found))}"


def overview(names):
    """Releases and locks of several apps, and all of that as lines: a dict as the module release_info returns it."""
    releases, locks, lines = [], {}, []
    for name in names:
        releases += releases_of(name)
        lock, text = lock_of(name)
        if lock:
            locks[name] = lock
            lines.append(text)
    return {"releases": releases, "locks": locks, "lines": release_table(releases) + lines}
