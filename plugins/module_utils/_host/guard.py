# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a release by what nginx logs after the switch, against what it logged before.

Counted is what the app was asked: a request that nginx answered by itself says nothing about it. An answer of 500 or
more is an error, and so is a client that gave up before the answer began (499, nginx's own), which is all that is seen
of an app that hangs. Latency is the 95th percentile of the time to the last byte, without WebSockets, and without
requests that took longer than the guard watches: those begun after the switch could not have ended yet.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, namedtuple

# One failed request, or two, can be chance.
FEWEST_ERRORS = 3
# nginx writes its log once a second.
FLUSH = 1.2
# Of the log, to look for the requests before the switch: 100,000 lines or more.
MOST_BYTES = 64 << 20

Request = namedtuple("Request", "begun seconds status what")


def parse(line):
    """A line of nginx's log as a Request, or None where it says nothing about the app."""
    try:
        entry = json.loads(line)
        ended, seconds, status = float(entry["msec"]), float(entry["request_time"]), int(entry["status"])
    except (ValueError, KeyError, TypeError):
        return None
    if entry.get("upstream_addr") in (None, "", "-"):
        return None
    return Request(ended - seconds, seconds, status, f"{entry.get('method', '')} {entry.get('uri', '').split('?')[0]}")


class AccessLog:
    """nginx's log of one app, read on from where it was read last, over a rotation too."""

    def __init__(self, path):
        self.path = path
        self.position = 0
        self.inode = None
        self.rest = b""

    def recent(self, seconds):
        """The requests that ended in the last seconds, and all after them from now on."""
        try:
            with open(self.path, "rb") as stream:
                self.inode = os.fstat(stream.fileno()).st_ino
                size = stream.seek(0, os.SEEK_END)
                lines = []
                chunk = 1 << 20
                while True:
                    stream.seek(max(size - chunk, 0))
                    lines = stream.read(min(size, chunk)).split(b"\n")
                    first = next((found for found in map(self._ended, lines[1:]) if found), math.inf)
                    if chunk >= min(size, MOST_BYTES) or first < seconds:
                        break
                    chunk *= 4
        except FileNotFoundError:
            return []
        self.position, self.rest = size, lines[-1]
        return [found for found in map(parse, lines[:-1]) if found and found.begun + found.seconds >= seconds]

    def _ended(self, line):
        found = parse(line)
        return found and found.begun + found.seconds

    def more(self):
        """The requests logged since the last call."""
        try:
            with open(self.path, "rb") as stream:
                inode = os.fstat(stream.fileno()).st_ino
                if inode != self.inode:
                    self.inode, self.position, self.rest = inode, 0, b""
                stream.seek(self.position)
                read = stream.read()
        except FileNotFoundError:
            return []
        self.position += len(read)
        lines = (self.rest + read).split(b"\n")
        self.rest = lines.pop()
        return [found for found in map(parse, lines) if found]


def percentile(values, share):
    return sorted(values)[max(math.ceil(len(values) * share) - 1, 0)] if values else 0.0


def is_error(request):
    return request.status >= 499


class Traffic:
    """What requests amount to."""

    def __init__(self, requests, longest):
        self.count = len(requests)
        self.errors = [request for request in requests if is_error(request)]
        self.error_rate = len(self.errors) / self.count if self.count else 0.0
        times = [item.seconds for item in requests if item.seconds <= longest and item.status != 101]
        self.timed = len(times)
        self.p95 = percentile(times, 0.95)

    def facts(self):
        return {"requests": self.count, "errors": len(self.errors), "p95": round(self.p95, 3)}


def judge(before, after, settings, final):
    """What is wrong with the requests after the switch, in words, or nothing. Latency only when all are there."""
    if after.count < settings["requests"]:
        return ""
    if len(after.errors) >= FEWEST_ERRORS and after.error_rate - before.error_rate > settings["error_rate"]:
        worst = Counter(f"{item.status} for {item.what}" for item in after.errors).most_common(3)
        return (
            f"{len(after.errors)} of {after.count} requests after the switch failed ({after.error_rate:.1%}), "
            f"{len(before.errors)} of {before.count} before it ({before.error_rate:.1%}); allowed are "
            f"{settings['error_rate']:.1%} more. Most of them: "
            + ", ".join(f"{count} x {what}" for what, count in worst)
        )
    enough = min(before.timed, after.timed) >= settings["requests"]
    if final and enough and after.p95 > max(settings["latency"] * before.p95, settings["latency_floor"]):
        return (
            f"95 % of {after.timed} requests after the switch took up to {after.p95:.3f} s, of {before.timed} before "
            f"it up to {before.p95:.3f} s; allowed are {settings['latency']:g} times that, and "
            f"{settings['latency_floor']:g} s in any case"
        )
    return ""
