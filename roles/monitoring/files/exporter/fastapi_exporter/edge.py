# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nginx logs, as numbers: for all apps alike, whatever they are made of.

A request counts by the first segment of its path. Paths are what clients make up, and can be secrets: a segment is
named only if it looks like a word, once a request for it was answered well, and as one of the first of its site. All
else is `other`.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re

from fastapi_host.files import stream

from fastapi_exporter.registry import LINES

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER = "other"
ERRORS = ("500", "502", "503", "504")
MOST_PREFIXES = 30
# Words, versions and their like; not numbers, ids or tokens.
WORD = re.compile(r"[a-zA-Z]{1,24}(?:[-_.][a-zA-Z]{1,24}){0,2}\d{0,2}\Z")
SUFFIX = ".access.log"
# How long nginx may go on writing to a log that was renamed.
LEAVING = 10.0
CHUNK = 1 << 20


def segment(uri):
    """/items of /items/5?q=1, and / of /. None where it does not look like a word."""
    path = uri.partition("?")[0]
    name = path[1:].partition("/")[0]
    if not name:
        return "/" if path == "/" else None
    return "/" + name if WORD.match(name) else None


def seconds(text):
    """Of `0.001`, and of `0.001, 0.002 : 0.003` where several were asked. None where none was."""
    found = [float(part) for part in re.split(r"[,:]", text) if part.strip() not in ("", "-")]
    return sum(found) if found else None


class Log:
    """One file, read on from where it was read last."""

    def __init__(self, path, inode=None, position=0):
        self.path = path
        self.stream = stream(path)
        self.inode = os.fstat(self.stream.fileno()).st_ino
        self.position = position if inode == self.inode else 0
        self.left = None

    def lines(self):
        """Whole lines that are new."""
        if os.fstat(self.stream.fileno()).st_size < self.position:
            self.position = 0  # emptied
        while True:
            self.stream.seek(self.position)
            read = self.stream.read(CHUNK)
            end = read.rfind(b"\n") + 1
            if not end and len(read) < CHUNK:
                return
            end = end or CHUNK  # no line of nginx is that long: what is there is skipped
            self.position += end
            yield from read[:end].splitlines()


class Edge:
    """All logs of sites in a directory."""

    def __init__(self, registries, directory="/var/log/nginx", saved=None):
        self.registries = registries
        self.directory = directory
        saved = saved or {}
        self.prefixes = {site: set(found) for site, found in saved.get("prefixes", {}).items()}
        self.logs = {}
        self.leaving = []
        # On the first start what is there already is history.
        self.positions = saved.get("positions")
        self.begin()

    def begin(self):
        """Goes on with each log where it was left, under the name that it has now."""
        for site, (inode, position) in (self.positions or {}).items():
            for path in glob.glob(glob.escape(os.path.join(self.directory, site + SUFFIX)) + "*"):
                with contextlib.suppress(OSError):
                    if os.stat(path).st_ino == inode:
                        log = Log(path, inode, position)
                        self.logs[site] = log
        if self.positions is None:
            for site, path in self.paths():
                with contextlib.suppress(OSError):
                    log = self.logs[site] = Log(path)
                    log.position = os.path.getsize(path)

    def paths(self):
        for path in glob.glob(os.path.join(glob.escape(self.directory), "*" + SUFFIX)):
            yield os.path.basename(path).removesuffix(SUFFIX), path

    def saved(self):
        return {
            "positions": {site: [log.inode, log.position] for site, log in self.logs.items()},
            "prefixes": {site: sorted(found) for site, found in self.prefixes.items()},
        }

    def step(self, now):
        """Counts what is new."""
        for site, log in self.leaving:
            self.count(site, log.lines())
        for _site, log in self.leaving:
            if now - log.left > LEAVING:
                log.stream.close()
        self.leaving = [(site, log) for site, log in self.leaving if now - log.left <= LEAVING]
        for site, log in list(self.logs.items()):
            self.count(site, log.lines())
        for site, path in self.paths():
            with contextlib.suppress(OSError):
                log = self.logs.get(site)
                if log and os.stat(path).st_ino == log.inode:
                    continue
                if log:
                    log.left = now
                    self.leaving.append((site, log))
                self.logs[site] = Log(path)
                self.count(site, self.logs[site].lines())

    def count(self, site, lines):
        with self.registries.lock:
            for line in lines:
                try:
                    self.count_one(site, json.loads(line))
                    result = "counted"
                except (ValueError, KeyError, TypeError, AttributeError):
                    result = "refused"
                self.registries.own.add(LINES, (("result", result),), 1)

    def prefix(self, site, uri, status):
        known = self.prefixes.setdefault(site, set())
        found = segment(uri)
        if found is None:
            return OTHER
        if found not in known:
            if not (status < 300 or status == 304) or len(known) >= MOST_PREFIXES:
                return OTHER
            known.add(found)
        return found

    def count_one(self, site, entry):
        status, took = int(entry["status"]), float(entry["request_time"])
        if not 100 <= status <= 999:
            raise ValueError(status)
        method = entry["method"] if entry["method"] in METHODS else OTHER
        place = (("prefix", self.prefix(site, entry["uri"], status)), ("site", site))
        registry = self.registries.of(site)
        what = (("method", method), *place)
        # Before it happens, or the first of a series would be no increase to Prometheus.
        if not registry.knows("nginx_http_requests_total", (*what, ("status", ERRORS[0]))):
            for error in ERRORS:
                registry.add("nginx_http_requests_total", (*what, ("status", error)), 0)
        registry.add("nginx_http_requests_total", (*what, ("status", str(status))), 1)
        # A WebSocket lasts for as long as it likes.
        if status != 101:
            registry.observe("nginx_http_request_duration_seconds", place, took)
        app = seconds(entry.get("upstream_response_time", ""))
        if app is not None:
            registry.observe("nginx_upstream_duration_seconds", place, 0.0 if status == 101 else app)
        registry.add("nginx_http_response_bytes_total", (("site", site),), int(entry.get("bytes_sent", 0)))
        if entry.get("cache") not in (None, "", "-"):
            registry.add("nginx_http_cache_total", (("cache", entry["cache"]), ("site", site)), 1)
        if entry.get("limit"):
            registry.add("nginx_http_limited_total", (("limit", entry["limit"]), ("site", site)), 1)
