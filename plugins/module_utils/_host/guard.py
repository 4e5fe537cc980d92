# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a release by what nginx logs after the switch, against what it logged before.

Counted are requests that the app was asked: one that nginx answered by itself says nothing about it. An answer of 500
or more is an error. So is a request that the client gave up before the answer began (499, nginx's own) if it waited:
that is all that is seen of an app that hangs. Waited means longer than the latency that the guard would accept. Sooner,
nobody has tried the app: a client that opens streams and resets them is no error and no request. Latency is the 95th
percentile of the time to the last byte, without WebSockets, and without requests that took longer than the guard
watches: those begun after the switch could not have ended yet.

Anybody can provoke errors and slow answers. So where four client networks or more were seen before the switch, what
one of them alone brings is no evidence: the release must be worse without the one that brings most of it, too. Paths
are not judged one by one: the log has no routes, and a path that was not asked before has nothing to be compared with.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import math
import os
from collections import Counter, namedtuple

# One failed request, or two, can be chance.
FEWEST_ERRORS = 3
# Seconds after which a client that gives up has waited, however fast the app is.
SHORTEST_WAIT = 0.25
# Client networks before the switch from which on no single one can send a release back.
ENOUGH_NETWORKS = 4
# A customer of a provider has all addresses of a /24 of IPv4 at most; of IPv6 a /48 is given to whoever asks.
PREFIX = {4: 24, 6: 48}
# nginx writes its log once a second.
FLUSH = 1.2
# Of the log at once; to look for the requests before the switch that is 100,000 lines or more.
MOST_BYTES = 64 << 20
# Of a path in a message.
LONGEST_PATH = 100

Request = namedtuple("Request", "begun seconds status what network waited", defaults=("", None))


def parse(line, app=""):
    """A line of nginx's log as a Request, or None where it says nothing about the app."""
    try:
        entry = json.loads(line)
        ended, seconds, status = float(entry["msec"]), float(entry["request_time"]), int(entry["status"])
        upstream = entry.get("upstream_addr")
        what = f"{entry.get('method', '')} {str(entry.get('uri', '')).partition('?')[0]}"[: LONGEST_PATH + 1]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    if not isinstance(upstream, str) or upstream in ("", "-") or not math.isfinite(ended - seconds):
        return None
    last = upstream.replace(",", " ").split()[-1:]
    if app and any(address.startswith("unix:") and f"/{app}/" not in address for address in last):
        return None  # another app's, in a log that they share
    waited = _seconds(entry.get("upstream_response_time"))
    return Request(ended - seconds, seconds, status, what, network(entry.get("client")), waited)


def _seconds(text):
    """Time that nginx waited for the app, over all tries; None where the log does not have it."""
    try:
        times = [float(part) for part in str(text).replace(",", " ").replace(":", " ").split() if part != "-"]
    except ValueError:
        return None
    return sum(times) if times and math.isfinite(sum(times)) else None


def network(client):
    """The network of a client's address; empty where there is none, as for a unix socket."""
    return _network(client) if isinstance(client, str) else ""


@functools.lru_cache(10_000)
def _network(client):
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return ""
    address = getattr(address, "ipv4_mapped", None) or address
    return str(ipaddress.ip_network((address, PREFIX[address.version]), strict=False))


def shown(what):
    """A method and path for people: what a client sent must not reach a terminal as it is, nor without an end."""
    text = "".join(letter if letter.isprintable() else "?" for letter in what[: LONGEST_PATH + 1])
    return text if len(text) <= LONGEST_PATH else text[:LONGEST_PATH] + "..."


class AccessLog:
    """nginx's log of one app, read on from where it was read last, over a rotation too."""

    def __init__(self, path, app=""):
        self.path = path
        self.app = app
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
        return [found for found in self._parsed(lines[:-1]) if found.begun + found.seconds >= seconds]

    def _parsed(self, lines):
        return [found for line in lines if (found := parse(line, self.app))]

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
                read = stream.read(MOST_BYTES)
        except FileNotFoundError:
            return []
        self.position += len(read)
        lines = (self.rest + read).split(b"\n")
        self.rest = lines.pop()
        return self._parsed(lines)


def percentile(values, share):
    return sorted(values)[max(math.ceil(len(values) * share) - 1, 0)] if values else 0.0


class Traffic:
    """What requests amount to. `patience`: seconds after which a client that gave up had waited."""

    def __init__(self, requests, longest, patience=SHORTEST_WAIT):
        self.requests = requests
        self.longest = longest
        given_up = [item for item in requests if item.status == 499]
        answered = [item for item in requests if item.status != 499]
        waited = [item for item in given_up if (item.seconds if item.waited is None else item.waited) >= patience]
        self.count = len(answered) + len(waited)
        self.errors = [item for item in answered if item.status >= 500] + waited
        self.error_rate = len(self.errors) / self.count if self.count else 0.0
        self.in_time = [item for item in answered if item.seconds <= longest and item.status != 101]
        self.timed = len(self.in_time)
        self.p95 = percentile([item.seconds for item in self.in_time], 0.95)
        self.networks = {item.network for item in requests} - {""}

    def of(self, patience, but=None):
        """The same with another patience, and without one network."""
        return Traffic([item for item in self.requests if item.network != but], self.longest, patience)

    def slow(self, limit):
        return [item for item in self.in_time if item.seconds > limit]

    def facts(self):
        return {"requests": self.count, "errors": len(self.errors), "p95": round(self.p95, 3)}


def longest_wait(before, settings):
    """Seconds of latency that are accepted after the switch."""
    return max(settings["latency"] * before.p95, settings["latency_floor"])


def compared(before, after, settings):
    """Both with the patience that follows from the latency before."""
    patience = max(longest_wait(before, settings), SHORTEST_WAIT)
    return before.of(patience), after.of(patience)


def judge(before, after, settings, final):
    """What is wrong with the requests after the switch, in words, or nothing. Latency only when all are there."""
    before, after = compared(before, after, settings)
    if after.count < settings["requests"]:
        return ""
    limit = longest_wait(before, settings)

    def too_many_errors(before, after):
        more = after.error_rate - before.error_rate
        return len(after.errors) >= FEWEST_ERRORS and more > settings["error_rate"]

    def too_slow(before, after):
        return len(after.slow(limit)) >= FEWEST_ERRORS and after.p95 > limit

    if too_many_errors(before, after) and _without_worst(before, after, limit, after.errors, too_many_errors):
        worst = Counter(f"{item.status} for {shown(item.what)}" for item in after.errors).most_common(3)
        return (
            f"{len(after.errors)} of {after.count} requests after the switch failed ({after.error_rate:.1%}), "
            f"{len(before.errors)} of {before.count} before it ({before.error_rate:.1%}); allowed are "
            f"{settings['error_rate']:.1%} more. Most of them: "
            + ", ".join(f"{count} x {what}" for what, count in worst)
        )
    enough = min(before.timed, after.timed) >= settings["requests"]
    if final and enough and after.p95 > limit and _without_worst(before, after, limit, after.slow(limit), too_slow):
        return (
            f"95 % of {after.timed} requests after the switch took up to {after.p95:.3f} s, of {before.timed} before "
            f"it up to {before.p95:.3f} s; allowed are {settings['latency']:g} times that, and "
            f"{settings['latency_floor']:g} s in any case"
        )
    return ""


def _without_worst(before, after, limit, evidence, holds):
    """Whether the finding holds without the network that brings most of the evidence; true where there are too few."""
    if len(before.networks) < ENOUGH_NETWORKS:
        return True
    patience = max(limit, SHORTEST_WAIT)
    (worst, _count), *_others = Counter(item.network for item in evidence).most_common(1)
    return holds(before.of(patience, worst), after.of(patience, worst))
