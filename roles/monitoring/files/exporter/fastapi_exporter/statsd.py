# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What workers and apps send: DogStatsD lines, such as `orders_total:1|c|#plan:pro`.

Types are c (counter), g (gauge, or a change of one where the number has a sign) and h, d and ms (histograms; ms is in
milliseconds). A sample rate says how many times a value stands for. The label `app` is the kernel's word for who sent
the line. Names of the stack are taken only in the form in which the worker module sends them.
"""

from __future__ import annotations

import re

from fastapi_exporter.registry import LINES
from fastapi_exporter.senders import Allowance

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
UNFIT = re.compile(r"[^a-zA-Z0-9_]")
EXITS = ("recycled", "timeout", "killed", "oom", "error", "stopped")
REQUESTS = "fastapi_http_requests_total"
MOST_TAGS = 12
# Characters of a name, of a tag's value, and of all tags of a line.
LONGEST_NAME = 100
LONGEST = 200
LONGEST_TAGS = 600
KINDS = {"c": "counter", "g": "gauge", "h": "histogram", "d": "histogram", "ms": "histogram"}
# A sample stands for no more than that many. Prometheus refuses a whole page for one number that is none to it.
MOST_TIMES = 10**9
LARGEST = 10**15
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Why a line is refused.
REASONS = ("malformed", "app", "reserved", "kind", "series", "names", "rate")

# What rules, dashboards and Prometheus itself take for the word of somebody else.
RESERVED = re.compile(
    r"(?:up|ALERTS|ALERTS_FOR_STATE)\Z|(?:fastapi|nginx|node|prometheus|alertmanager|grafana|scrape)(?:_|\Z)"
)
ROUTE = re.compile(r".{1,200}\Z", re.DOTALL)
REQUEST = {
    "method": re.compile(r"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|other)\Z"),
    "route": ROUTE,
    "status": re.compile(r"[1-5]\d\d\Z"),
}
WORKER = {"release": re.compile(r"[\w.-]{0,64}\Z"), "worker": re.compile(r"\d{1,7}\Z")}
# What the worker module sends: kind and labels.
WORKERS = {
    REQUESTS: ("counter", REQUEST),
    "fastapi_http_request_duration_seconds": ("histogram", REQUEST),
    "fastapi_http_requests_in_flight": ("gauge", WORKER),
    "fastapi_streams_open": ("gauge", {**WORKER, "kind": re.compile(r"(?:sse|websocket)\Z")}),
    "fastapi_workers": ("gauge", {**WORKER, "state": re.compile(r"(?:starting|serving|draining)\Z")}),
    "fastapi_worker_exits_total": ("counter", {"reason": re.compile(r"(?:%s)\Z" % "|".join(EXITS))}),
}


def fit(name):
    """A name as Prometheus takes it, or an empty one."""
    name = UNFIT.sub("_", name)
    return name if NAME.match(name) and len(name) <= LONGEST_NAME else ""


def number(text):
    value = float(text)
    if not -LARGEST <= value <= LARGEST:
        raise ValueError(text)
    return int(value) if value.is_integer() and "." not in text and "e" not in text.lower() else value


def parse(line):
    """(name, kind, [(value, relative)], times, labels) of a line. ValueError where it is none."""
    head, *parts = line.split("|")
    name, *values = head.split(":")
    name = fit(name)
    kind = parts[0] if parts else ""
    if not name or not values or kind not in KINDS:
        raise ValueError(line)
    rate, labels = 1.0, {}
    for part in parts[1:]:
        if part.startswith("@"):
            rate = float(part[1:])
            if not 1 / MOST_TIMES <= rate <= 1:
                raise ValueError(line)
        elif part.startswith("#"):
            labels = tags(part[1:])
    found = [(number(value), value[:1] in "+-") for value in values]
    if kind == "c" and any(value < 0 for value, _relative in found):
        raise ValueError(line)
    return name, kind, found, max(round(1 / rate), 1), labels


def tags(text):
    found = {}
    for tag in filter(None, text.split(",")):
        name, _colon, value = tag.partition(":")
        name = fit(name)
        if not name or name.startswith("__") or name == "le" or len(found) >= MOST_TAGS:
            raise ValueError(text)
        found[name] = CONTROL.sub("_", value[:LONGEST])
    if sum(map(len, (*found, *found.values()))) > LONGEST_TAGS:
        raise ValueError(text)
    return found


def room(name):
    """An app that makes up metrics of its own leaves those of its workers their place."""
    return "workers" if name in WORKERS else "own"


def admits(app, name, kind, labels):
    """Why an app may not send a metric of this name, kind and labels; an empty text where it may."""
    labels = dict(labels)
    if labels.pop("app", app) != app:
        return "app"
    known = WORKERS.get(name)
    if known is None:
        return "reserved" if RESERVED.match(name) else ""
    own, wanted = known
    fits = kind == own and labels.keys() == wanted.keys() and all(wanted[key].match(labels[key]) for key in wanted)
    return "" if fits else "reserved"


class Intake:
    """Takes datagrams, and counts for each app what became of its lines."""

    def __init__(self, registries, accounts):
        self.registries = registries
        self.accounts = accounts
        self.allowances = {}

    def restore(self, saved):
        """Goes on with what was kept of the apps that there are, as if they sent it now."""
        self.registries.restore(
            saved,
            lambda app, name, kind, labels: (
                self.accounts.has(app) and ("app", app) in labels and not admits(app, name, kind, labels)
            ),
        )

    def take(self, datagram, uid):
        app = self.accounts.app(uid)
        if not app:
            self.count("", "sender", 1 if datagram is None else datagram.count(b"\n") + 1)
            return
        if app not in self.allowances:
            self.allowances[app] = Allowance()
        if datagram is None:
            self.count(app, "malformed", 1)
            return
        lines, allowed = self.allowances[app].takes(datagram)
        if not allowed:
            self.count(app, "rate", lines)
            return
        registry = self.registries.of(app)
        for line in datagram.decode("utf-8", "replace").split("\n"):
            if line:
                self.count(app, take_line(registry, app, line), 1)

    def count(self, app, refused, lines):
        own = self.registries.own
        counted = (("app", app), ("result", "counted"))
        # To Prometheus the first number of a series is no increase.
        if app and not own.knows(LINES, counted):
            own.add(LINES, counted, 0)
            for reason in REASONS:
                own.add(LINES, (("app", app), ("reason", reason), ("result", "refused")), 0)
        own.add(LINES, (("app", app), ("reason", refused), ("result", "refused")) if refused else counted, lines)


def take_line(registry, app, line):
    """Counts a line. Returns why not, or an empty text."""
    try:
        name, kind, values, times, labels = parse(line)
    except ValueError:
        return "malformed"
    refused = admits(app, name, KINDS[kind], labels.items())
    if refused:
        return refused
    labels = tuple(sorted({**labels, "app": app}.items()))
    return next(filter(None, [take_value(registry, name, kind, value, times, labels) for value in values]), "")


def take_value(registry, name, kind, value, times, labels):
    value, relative = value
    if kind == "c":
        if name == REQUESTS:
            begin_errors(registry, labels)
        return registry.add(name, labels, value * times)
    if kind == "g":
        if name == "fastapi_workers":
            begin_exits(registry, labels)
        return registry.set(name, labels, value, relative)
    return registry.observe(name, labels, value / 1000 if kind == "ms" else value, times)


# To Prometheus the first number of a series is no increase. So what alerts look at begins at 0, before it happens.


def begin_exits(registry, labels):
    app = next(pair for pair in labels if pair[0] == "app")
    if not registry.knows("fastapi_worker_exits_total", (app, ("reason", EXITS[0]))):
        for reason in EXITS:
            registry.add("fastapi_worker_exits_total", (app, ("reason", reason)), 0)


def begin_errors(registry, labels):
    error = tuple((name, "500" if name == "status" else value) for name, value in labels)
    if not registry.knows(REQUESTS, error):
        registry.add(REQUESTS, error, 0)
