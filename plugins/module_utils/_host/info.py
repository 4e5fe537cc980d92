# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The releases of apps, and who has locked them, for people."""

from __future__ import annotations

import os

from .history import damaged_lines
from .history import read as read_history
from .lock import Lock, describe, is_stale
from .order import Order, held_by, named
from .records import set_aside_files
from .redact import redact_url
from .release import Layout, release_table
from .text import one_line

LOCK = ("owner", "since", "reason", "phase", "until")


def shown(value):
    """A field that users or apps gave: a source may have a token in it, a message anything."""
    return one_line(redact_url(str(value)))


def releases_of(name):
    """The complete releases of an app, the one that came to serve last comes last."""
    layout = Layout(name)
    live, releases = layout.live_id(), layout.releases_by_age()
    target = Order(layout).way_back(releases)[:1]
    return [
        {
            "app": name,
            "id": item["id"],
            "order": item["sequence"],
            "version": shown(item["version"]),
            "revision": shown(item["inputs"]["source"]["revision"]),
            "by": shown(item["by"]),
            "created": item["created"],
            "deployed": item.get("deployed", ""),
            "state": item["state"],
            "reason": shown(item.get("reason", "")),
            "live": item["id"] == live,
            "rollback": item["id"] in target,
        }
        for item in releases
    ]


def holds_of(name):
    """What is held of an app."""
    return [{key: shown(value) for key, value in hold.items()} for hold in Order(Layout(name)).holds()]


def damaged_of(name):
    """State files and lines of history of an app that do not fit, and why."""
    layout = Layout(name)
    order = Order(layout)
    found = [(order.path, order.damage)] if order.damage else []
    found += layout.damaged()
    lock = Lock(layout).damage()
    found += [(layout.lock, lock)] if lock else []
    lines = damaged_lines(read_history(layout))
    if lines:
        numbers = ", ".join(str(number) for number, _line in lines[:5])
        found.append((layout.history, f"{len(lines)} of its lines do not fit (line {numbers})"))
    return [(path, shown(why)) for path, why in found]


def set_aside_of(name):
    """Paths of what was set aside of an app."""
    layout = Layout(name)
    directories = (layout.base, *map(layout.release, layout.ids()))
    return [os.path.join(directory, file) for directory in directories for file in set_aside_files(directory)]


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
    releases, locks, holds, lines = [], {}, [], []
    for name in names:
        releases += releases_of(name)
        lock, text = lock_of(name)
        if lock:
            locks[name] = lock
            lines.append(text)
        for hold in holds_of(name):
            holds.append({"app": name, **hold})
            lines.append(f"{name}: {named(hold)} is held {held_by(hold)}")
        lines += [f"{name}: {path} does not fit: {why}" for path, why in damaged_of(name)]
    return {"releases": releases, "locks": locks, "holds": holds, "lines": release_table(releases) + lines}
