# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time changes an app, and says who, since when and why.

The lock is a file, `/srv/<app>/.lock`, with two parts. A process that works on the app holds a `flock` on it, which the
kernel takes away when the process ends, however it ends. What is written in it says whose it is, and outlives the
process where a run goes on in another process, or where an operator holds the app for a while.
So what is written there without a process, and belongs to no such run, was left by one that was killed.
"""

from __future__ import annotations

import calendar
import fcntl
import json
import os
import signal
import time
from contextlib import contextmanager

from .release import ReleaseError, read_json

# Seconds for which a run may be away between two of its steps, while tasks of the user's own run on the controller.
AWAY = 3600
BREAK = "To end it and go on with this run, give -e break_lock=true."


def now(seconds=None):
    """A time as RFC 3339 writes it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds_since(text):
    return time.time() - calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def is_stale(found, boot=None):
    """Whether what is written in a lock that no process holds has lost its owner."""
    if not found:
        return False
    if found.get("until"):
        return seconds_since(found["until"]) > 0
    if found.get("held"):
        return False
    return not found.get("away") or found["boot"] != (boot or boot_id()) or seconds_since(found["away"]) > AWAY


def describe(found):
    """A lock in words: owner, time, reason."""
    if not found.get("owner"):
        return "a run that has not said yet who it is"
    parts = [f"{found['owner']} since {found['since']}", f"for: {found['reason']}"]
    if found.get("phase"):
        parts.append(f"in phase {found['phase']}")
    if found.get("until"):
        parts.append(f"until {found['until']}")
    return ", ".join(parts)


class Locked(ReleaseError):
    """Another has the lock. `run` is the one that is away from it for a while, which its controller knows about."""

    def __init__(self, message, found):
        super().__init__("lock", message)
        self.run = found["run"] if found.get("away") else ""


def locked(exc):
    """What a module returns of a lock that kept it out, for the controller to look whether that run still goes on."""
    return {"locked_by_run": exc.run} if isinstance(exc, Locked) and exc.run else {}


class Lock:
    """The lock of one app. `found` is what a killed run left in it, `content` what this run has written."""

    def __init__(self, layout):
        self.name = layout.name
        self.path = layout.lock
        self.content = {}
        self.found = {}
        self._stream = None

    def read(self):
        return read_json(self.path)

    def is_free(self):
        """Whether no process holds it now."""
        try:
            with open(self.path, encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as exc:
            return isinstance(exc, FileNotFoundError)
        return True

    def pending(self, run):
        """What an earlier step of the same run left here, or nothing."""
        found = self.read()
        return found if found.get("run") == run and found.get("away") else {}

    @contextmanager
    def taken(self, run, owner, reason, break_lock=False):
        """Hold the lock. ReleaseError, which says who has it, where another does."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as self._stream:
            self._flock(break_lock)
            found = self.read()
            mine = found.get("run") == run and found.get("away")
            if found and not mine:
                if not is_stale(found) and not break_lock:
                    raise Locked(f"it is locked by {describe(found)}. {BREAK}", found)
                self.found = found
            since = found["since"] if mine else now()
            self.content = {**(found if mine else {}), "run": run, "owner": owner, "reason": reason, "since": since}
            self.note(away="", boot=boot_id(), pid=os.getpid())
            try:
                yield self
            finally:
                if not self.content.get("away") and not self.content.get("held"):
                    self._stream.truncate(0)

    def note(self, **facts):
        """Write facts into the lock for others to read."""
        self.content.update(facts)
        self._stream.seek(0)
        self._stream.write(json.dumps(self.content) + "\n")
        self._stream.truncate()
        self._stream.flush()

    def _flock(self, break_lock):
        deadline = time.monotonic() + 5
        while True:
            try:
                fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as exc:
                found = self.read()
                if not break_lock or time.monotonic() > deadline:
                    raise ReleaseError(
                        "lock", f"another run is changing it: {describe(found)}. {BREAK}"
                    ) from exc
                kill_tree(found.get("pid"))
                time.sleep(0.05)


def kill_tree(pid):
    """Kill a process and all that it started; nothing where there is none."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stream:
                    children.setdefault(int(stream.read().rpartition(")")[2].split()[1]), []).append(int(name))
            except OSError:
                continue
    doomed = [pid] if pid else []
    for parent in doomed:
        doomed.extend(children.get(parent, []))
    for each in doomed:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue
