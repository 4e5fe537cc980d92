# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What workers and apps send: DogStatsD lines, such as `orders_total:1|c|#app:shop,plan:pro`.

Types are c (counter), g (gauge, or a change of one where the number has a sign) and h, d and ms (histograms; ms is in
milliseconds). A sample rate says how many times a value stands for.
"""

from __future__ import annotations

import math
import re

from fastapi_exporter.registry import LINES

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
UNFIT = re.compile(r"[^a-zA-Z0-9_]")
REASONS = ("recycled", "timeout", "killed", "oom", "error", "stopped")
REQUESTS = "fastapi_http_requests_total"
MOST_TAGS = 12
LONGEST = 200
KINDS = {"c", "g", "h", "d", "ms"}


def fit(name):
    """A name as Prometheus takes it, or an empty one."""
    name = UNFIT.sub("_", name)
    return name if NAME.match(name) else ""


def number(text):
    value = float(text)
    if not math.isfinite(value):
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
    rate, labels = 1.0, ()
    for part in parts[1:]:
        if part.startswith("@"):
            rate = float(part[1:])
            if not 0 < rate <= 1:
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
        found[name] = value[:LONGEST]
    return tuple(sorted(found.items()))


def take(registry, datagram):
    """Counts what is in a datagram."""
    for line in datagram.decode("utf-8", "replace").split("\n"):
        if not line:
            continue
        try:
            name, kind, values, times, labels = parse(line)
        except ValueError:
            counted = False
        else:
            counted = [take_value(registry, name, kind, value, times, labels) for value in values].count(False) == 0
        registry.add(LINES, (("result", "counted" if counted else "refused"),), 1)


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


# To Prometheus the first number of a series is no increase. So what alerts look at begins at nought, before it happens.


def begin_exits(registry, labels):
    app = next((pair for pair in labels if pair[0] == "app"), None)
    if app and not registry.knows("fastapi_worker_exits_total", (app, ("reason", REASONS[0]))):
        for reason in REASONS:
            registry.add("fastapi_worker_exits_total", (app, ("reason", reason)), 0)


def begin_errors(registry, labels):
    error = tuple((name, "500" if name == "status" else value) for name, value in labels)
    if not registry.knows(REQUESTS, error):
        registry.add(REQUESTS, error, 0)
