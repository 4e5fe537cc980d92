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
# Somebody who makes names as he goes does not fill the memory.
MOST_SERIES = 20000
# The one that tells of it.
LINES = "fastapi_exporter_lines_total"
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
    "fastapi_exporter_lines_total": "Lines read, by what became of them.",
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


def family(name, kind, values):
    """Lines of one metric. `values` are pairs of labels and number."""
    if name in HELP:
        yield f"# HELP {name} {HELP[name]}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        yield f"{name}{shown(labels)} {value!r}"


def histogram(name, values):
    if name in HELP:
        yield f"# HELP {name} {HELP[name]}"
    yield f"# TYPE {name} histogram"
    for labels, value in values:
        total = 0
        for bound, count in zip((*BOUNDS, "+Inf"), value[:-1], strict=True):
            total += count
            yield f"{name}_bucket{shown((*labels, ('le', str(bound))))} {total}"
        yield f"{name}_sum{shown(labels)} {value[-1]!r}"
        yield f"{name}_count{shown(labels)} {total}"


class Registry:
    """Labels are tuples of pairs. A metric is of one kind: counter, gauge or histogram."""

    def __init__(self, clock=time.time):
        self.clock = clock
        self.lock = threading.Lock()
        self.kinds = {}
        # By name, then by labels: the number, or the counts of a histogram's buckets and its sum; and when it was set.
        self.series = {}
        self.size = 0

    def _entry(self, kind, name, labels):
        if self.kinds.setdefault(name, kind) != kind:
            return None
        found = self.series.setdefault(name, {})
        entry = found.get(labels)
        if entry is None:
            if self.size >= MOST_SERIES and name != LINES:
                return None
            self.size += 1
            entry = found[labels] = [[0] * (len(BOUNDS) + 1) + [0.0] if kind == "histogram" else 0, 0.0]
        entry[1] = self.clock()
        return entry

    def add(self, name, labels, value):
        """Whether it was counted: not where the name is another kind's, or there are too many series."""
        entry = self._entry("counter", name, labels)
        if entry is not None:
            entry[0] += value
        return entry is not None

    def knows(self, name, labels):
        return labels in self.series.get(name, ())

    def set(self, name, labels, value, relative=False):
        entry = self._entry("gauge", name, labels)
        if entry is not None:
            entry[0] = entry[0] + value if relative else value
        return entry is not None

    def observe(self, name, labels, value, times=1):
        entry = self._entry("histogram", name, labels)
        if entry is not None:
            entry[0][bisect_left(BOUNDS, value)] += times
            entry[0][-1] += times * value
        return entry is not None

    def forget(self):
        """Workers that are gone, and what nobody has counted for long."""
        now = self.clock()
        for name, found in list(self.series.items()):
            gauge = self.kinds[name] == "gauge"
            for labels, (_value, seen) in list(found.items()):
                if now - seen > (FRESH if gauge and any(key == "worker" for key, _label in labels) else REMEMBERED):
                    del found[labels]
                    self.size -= 1
            if not found:
                del self.series[name], self.kinds[name]

    def lines(self):
        with self.lock:
            self.forget()
            for name in sorted(self.series):
                values = [(labels, value) for labels, (value, _seen) in sorted(self.series[name].items())]
                kind = self.kinds[name]
                yield from histogram(name, values) if kind == "histogram" else family(name, kind, values)

    def saved(self):
        with self.lock:
            return [
                [name, self.kinds[name], [[labels, *entry] for labels, entry in found.items()]]
                for name, found in self.series.items()
            ]

    def restore(self, saved):
        for name, kind, found in saved:
            self.kinds[name] = kind
            self.series[name] = {tuple(tuple(pair) for pair in labels): [value, seen] for labels, value, seen in found}
            self.size += len(found)


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
