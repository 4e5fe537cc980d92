# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers by name and labels, as Prometheus reads them (text format 0.0.4), and as they are kept on disk."""

from __future__ import annotations

import json
import os
import threading
import time
from bisect import bisect_left

# Upper ends of a histogram's buckets in seconds; the same for all, so that edge and app can be compared.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# What one app, or one site, may have: as many series as Prometheus makes of them, and as many names. A histogram is one
# series for each bucket, its sum and its count.
MOST_SERIES = 10000
MOST_NAMES = 500
HISTOGRAM = len(BOUNDS) + 3
# Seconds until all series may be new ones: each of them stays in the memory of Prometheus for hours.
RENEWED = 86400.0
# What an exporter counts of its own work.
LINES = "fastapi_exporter_lines_total"
SERIES = "fastapi_exporter_series"
# A gauge of a worker says nothing once the worker is gone. Workers send theirs every second.
FRESH = 5.0
# What was not counted for that long is forgotten: routes and apps that are no more.
REMEMBERED = 7 * 86400.0

HELP = {
    "fastapi_http_requests_total": "Requests that workers have answered, by the route's template.",
    "fastapi_http_request_duration_seconds": "Time to the last byte of an answer, or to the first of a stream.",
    "fastapi_http_requests_in_flight": "Requests that a worker is answering, without streams.",
    "fastapi_streams_open": "Event streams and WebSockets that a worker holds open.",
    "fastapi_workers": "Workers by state.",
    "fastapi_worker_exits_total": "Workers that have ended, by reason.",
    "fastapi_exporter_lines_total": "Lines read, by what became of them, and why they were refused.",
    "fastapi_exporter_series": "Series that an app or a site has.",
    "fastapi_release_info": "The release that is live.",
    "fastapi_deploys_total": "Deploys, rollbacks and returns to a release, by outcome.",
    "fastapi_deploy_timestamp_seconds": "When the last of them ended.",
    "fastapi_deploy_guard_breaches_total": "Releases from which users were sent back, because they did worse.",
    "fastapi_certificate_served": "Whether nginx serves a certificate of that name.",
    "fastapi_certificate_expiry_timestamp_seconds": "Until when the certificate that nginx serves is valid.",
    "fastapi_certificate_self_signed": "Whether it is a placeholder.",
    "fastapi_certificate_renewal_timestamp_seconds": "When a renewal last ended so.",
    "nginx_http_requests_total": "Requests in nginx's log, by the first segment of the path.",
    "nginx_http_request_duration_seconds": "Time from a request's first byte to the last one of its answer.",
    "nginx_upstream_duration_seconds": "Time that the app took, of requests that were passed to it.",
    "nginx_http_response_bytes_total": "Bytes sent to clients.",
    "nginx_http_cache_total": "Requests for what nginx may keep, by what the cache said.",
    "nginx_http_limited_total": "Requests that a limit refused or delayed.",
}


def escape(text):
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def shown(labels):
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels) + "}" if labels else ""


def family(name, kind, values, typed=True):
    """Lines of one metric. `values` are pairs of labels and number. Not typed where apps differ about its kind."""
    yield from header(name, kind) if typed else ()
    for labels, value in values:
        yield f"{name}{shown(labels)} {value!r}"


def histogram(name, values, typed=True):
    yield from header(name, "histogram") if typed else ()
    for labels, value in values:
        total = 0
        for bound, count in zip((*BOUNDS, "+Inf"), value[:-1], strict=True):
            total += count
            yield f"{name}_bucket{shown((*labels, ('le', str(bound))))} {total}"
        yield f"{name}_sum{shown(labels)} {value[-1]!r}"
        yield f"{name}_count{shown(labels)} {total}"


def header(name, kind):
    if name in HELP:
        yield f"# HELP {name} {HELP[name]}"
    yield f"# TYPE {name} {kind}"


def samples(name, kind):
    """The names under which Prometheus reads a metric."""
    return {name + "_bucket", name + "_sum", name + "_count"} if kind == "histogram" else {name}


class Room:
    """How many series and names there may be, and how many new ones."""

    def __init__(self, clock, most):
        self.clock = clock
        self.most = most
        self.size = 0
        self.names = 0
        self.left = float(most)
        self.reckoned = clock()

    def refuses(self, weight, new_name):
        now = self.clock()
        self.left = min(self.left + max(now - self.reckoned, 0.0) * self.most / RENEWED, float(self.most))
        self.reckoned = now
        if self.size + weight > self.most or self.left < weight:
            return "series"
        return "names" if new_name and self.names >= MOST_NAMES else ""

    def take(self, weight, new_name):
        self.size += weight
        self.left -= weight
        self.names += new_name


def anywhere(_name):
    return ""


class Registry:
    """Numbers of one app or one site. Labels are tuples of pairs. A metric is of one kind: counter, gauge or histogram.

    What changes a number returns why it did not: `kind` where the name is another kind's, `names` and `series` where
    there are too many. An empty text is a success. `room` names the room that a metric has its place in, each with its
    own limit.
    """

    def __init__(self, clock=time.time, most=MOST_SERIES, room=anywhere):
        self.clock = clock
        self.most = most
        self.room = room
        self.rooms = {}
        self.kinds = {}
        self.samples = set()
        # By name, then by labels: the number, or the counts of a histogram's buckets and its sum; and when it was set.
        self.series = {}

    @property
    def size(self):
        return sum(room.size for room in self.rooms.values())

    def room_of(self, name):
        key = self.room(name)
        if key not in self.rooms:
            self.rooms[key] = Room(self.clock, self.most)
        return self.rooms[key]

    def _entry(self, kind, name, labels):
        """The entry, or why there is none."""
        entry = self.series.get(name, {}).get(labels)
        if entry is None:
            refused = self._new(kind, name)
            if refused:
                return None, refused
            entry = [[0] * (len(BOUNDS) + 1) + [0.0] if kind == "histogram" else 0, 0.0]
            self.series.setdefault(name, {})[labels] = entry
        elif self.kinds[name] != kind:
            return None, "kind"
        entry[1] = self.clock()
        return entry, ""

    def _new(self, kind, name):
        """Takes a place for a new series. Returns why there is none."""
        if self.kinds.get(name, kind) != kind:
            return "kind"
        room, weight, new_name = self.room_of(name), HISTOGRAM if kind == "histogram" else 1, name not in self.kinds
        refused = room.refuses(weight, new_name)
        if not refused and new_name:
            refused = "kind" if self.samples & samples(name, kind) else ""
        if refused:
            return refused
        if new_name:
            self.kinds[name] = kind
            self.samples |= samples(name, kind)
        room.take(weight, new_name)
        return ""

    def add(self, name, labels, value):
        entry, refused = self._entry("counter", name, labels)
        if entry is not None:
            entry[0] += value
        return refused

    def knows(self, name, labels):
        return labels in self.series.get(name, ())

    def set(self, name, labels, value, relative=False):
        entry, refused = self._entry("gauge", name, labels)
        if entry is not None:
            entry[0] = entry[0] + value if relative else value
        return refused

    def observe(self, name, labels, value, times=1):
        entry, refused = self._entry("histogram", name, labels)
        if entry is not None:
            entry[0][bisect_left(BOUNDS, value)] += times
            entry[0][-1] += times * value
        return refused

    def forget(self):
        """Workers that are gone, and what nobody has counted for long."""
        now = self.clock()
        for name, found in list(self.series.items()):
            kind = self.kinds[name]
            for labels, (_value, seen) in list(found.items()):
                of_worker = kind == "gauge" and any(key == "worker" for key, _label in labels)
                if now - seen > (FRESH if of_worker else REMEMBERED):
                    del found[labels]
                    self.room_of(name).size -= HISTOGRAM if kind == "histogram" else 1
            if not found:
                del self.series[name], self.kinds[name]
                self.room_of(name).names -= 1
                self.samples -= samples(name, kind)

    def saved(self):
        series = [
            [name, self.kinds[name], [[labels, *entry] for labels, entry in found.items()]]
            for name, found in self.series.items()
        ]
        return {"series": series, "rooms": {key: [room.left, room.reckoned] for key, room in self.rooms.items()}}

    def restore(self, saved, admits):
        """Goes on with what was saved, as far as it is admitted and has a place."""
        for name, kind, found in saved["series"]:
            for pairs, value, seen in found:
                labels = tuple(tuple(pair) for pair in pairs)
                entry = self._entry(kind, name, labels)[0] if admits(name, kind, labels) else None
                if entry is not None:
                    entry[:] = [value, seen]
        for key, (left, reckoned) in saved.get("rooms", {}).items():
            room = self.rooms.setdefault(key, Room(self.clock, self.most))
            room.left, room.reckoned = min(left, float(self.most)), reckoned


def anything(*_series):
    return True


class Registries:
    """A registry for each value of a label, so that what one app or site makes up takes no other's place."""

    def __init__(self, label, clock=time.time, most=MOST_SERIES, room=anywhere):
        self.label = label
        self.clock = clock
        self.most = most
        self.room = room
        self.lock = threading.Lock()
        # What the exporter counts of its own work.
        self.own = Registry(clock)
        self.each = {}

    def of(self, owner):
        if owner not in self.each:
            self.each[owner] = Registry(self.clock, self.most, self.room)
        return self.each[owner]

    def forget(self):
        for owner, registry in list(self.each.items()):
            registry.forget()
            if not registry.series and all(self.clock() - room.reckoned > RENEWED for room in registry.rooms.values()):
                del self.each[owner]

    def lines(self):
        """The page. Only what it is made of is taken under the lock: meanwhile apps send more."""
        found = []
        for name, kind, typed, values in self.taken():
            values.sort(key=lambda pair: pair[0])
            found += histogram(name, values, typed) if kind == "histogram" else family(name, kind, values, typed)
        return found

    def taken(self):
        with self.lock:
            self.forget()
            for owner, registry in self.each.items():
                self.own.set(SERIES, ((self.label, owner),), registry.size)
            self.own.forget()
            registries = [self.own, *self.each.values()]
            found = {}
            for registry in registries:
                for name, series in registry.series.items():
                    kinds = found.setdefault(name, {})
                    values = kinds.setdefault(registry.kinds[name], [])
                    if registry.kinds[name] == "histogram":
                        values += [(labels, list(entry[0])) for labels, entry in series.items()]
                    else:
                        values += [(labels, entry[0]) for labels, entry in series.items()]
        return [
            (name, kind, len(kinds) == 1, values)
            for name, kinds in sorted(found.items())
            for kind, values in sorted(kinds.items())
        ]

    def saved(self):
        with self.lock:
            self.forget()
            return {
                "own": self.own.saved(),
                "each": {owner: registry.saved() for owner, registry in self.each.items()},
            }

    def restore(self, saved, admits=anything):
        """Goes on with what was saved. Up to 0.2.0 that was one list, of everybody's."""
        if isinstance(saved, list):
            saved = self.by_owner(saved)
        self.own.restore(saved["own"], anything)
        for owner, kept in saved["each"].items():
            self.of(owner).restore(kept, lambda *series, owner=owner: admits(owner, *series))

    def by_owner(self, series):
        own, each = {"series": []}, {}
        for name, kind, found in series:
            for entry in found:
                owner = next((text for key, text in entry[0] if key == self.label), None)
                if name == LINES:
                    own["series"].append([name, kind, [entry]])
                elif owner is not None:
                    each.setdefault(owner, {"series": []})["series"].append([name, kind, [entry]])
        return {"own": own, "each": each}


def load(path):
    """The state that was saved, or nothing. One that is damaged is as good as none: counters may begin anew."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("bounds") == list(BOUNDS) else {}


def save(path, state):
    with open(path + ".new", "w", encoding="utf-8") as stream:
        json.dump({**state, "bounds": BOUNDS}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".new", path)
