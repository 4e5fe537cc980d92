# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time changes an app, and says who, since when and why.

The lock is a file, `/srv/<app>/.lock`, with two parts. A process that works on the app holds a `flock` on it, which the
kernel releases when the process ends, however it ends. The content names the owner. It outlives the process while a run
goes on in another process, or while an operator holds the app. Content without a process that belongs to no such run
was left by a run that was killed.

Whoever can open a file can lock it, also for reading only. So root alone can open this one. The file of releases before
0.3 was readable by all: a lock on it counts only if a process of root holds it, and it is replaced by a new file, which
no other process has open.
"""

from __future__ import annotations

import calendar
import fcntl
import json
import os
import signal
import stat
import time
from contextlib import ExitStack, contextmanager

from . import records
from .release import ReleaseError
from .shell import write_file

FORMAT = 1
SHAPE = {
    "format?": int,
    **{f"{name}?": str for name in ("run", "owner", "since", "reason", "phase", "until", "away", "boot")},
    **{f"{name}?": str for name in ("stage", "release", "previous", "version")},
    "held?": bool,
    "minutes?": int,
    "data?": dict,
    "facts?": dict,
    "uptime?": (int, float),
}
TIME = "%Y-%m-%dT%H:%M:%SZ"
# Seconds for which a run may be away between two of its steps, while tasks of the user's own run on the controller.
AWAY = 3600
# Seconds between two looks at a lock that is waited for.
LOOK = 0.5
BREAK = "To end it and go on with this run, give -e break_lock=true."
# Held for the moment in which a lock file is replaced, and the seconds that this may be. Only root makes files in /run.
MOMENT = 10
RENEWAL = "/run/fastapi-lock"
OPEN = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def now(seconds=None):
    """A time as RFC 3339 writes it, in UTC."""
    return time.strftime(TIME, time.gmtime(seconds))


def seconds_since(text):
    return time.time() - calendar.timegm(time.strptime(text, TIME))


def uptime():
    """Seconds since the host was started, which no change of the clock touches."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def parse(text):
    """Content of a lock and nothing, or nothing of it and why it does not fit."""
    if not text.strip():
        return {}, ""
    found, wrong = records.parse(text, SHAPE, FORMAT)
    for name in ("until", "away") if found else ():
        try:
            seconds_since(found.get(name) or now())
        except ValueError:
            wrong = f"{name} is not a time"
    return (found or {}, "") if not wrong else ({}, wrong)


def boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def is_stale(found, boot=None):
    """Whether the content of a lock that no process holds has lost its owner."""
    if not found:
        return False
    if found.get("until"):
        return seconds_since(found["until"]) > 0
    if found.get("held"):
        return False
    if not found.get("away") or found.get("boot") != (boot or boot_id()):
        return True
    away = uptime() - found["uptime"] if "uptime" in found else seconds_since(found["away"])
    return away > AWAY


def describe(found):
    """A lock in words: owner, time, reason."""
    if not found.get("owner"):
        return "a run that has not yet written its name"
    parts = [f"{found['owner']} since {found.get('since')}", f"for: {found.get('reason')}"]
    if found.get("phase"):
        parts.append(f"in phase {found['phase']}")
    if found.get("until"):
        parts.append(f"until {found['until']}")
    return ", ".join(parts)


class Locked(ReleaseError):
    """Another has the lock. `run` is the one that is away from it for a while, which its controller knows about."""

    def __init__(self, message, found):
        super().__init__("lock", message)
        self.run = str(found.get("run", "")) if found.get("away") else ""
        self.holder = describe(found)


def locked(exc):
    """What a module returns of a lock that kept it out, for the controller to look whether that run still goes on."""
    return {"locked_by_run": exc.run, "locked_by": exc.holder} if isinstance(exc, Locked) else {}


def patiently(lock, seconds, work, say):
    """Do the work; where another run holds the lock, when it lets go, and for that many seconds at most.

    :arg work: called again from its beginning, for what serves may be another release then
    :arg say: called once with the holder, before the waiting
    """
    begun = time.monotonic()
    told = False
    while True:
        try:
            return work()
        except ReleaseError as exc:
            left = begun + seconds - time.monotonic()
            if exc.phase != "lock" or not seconds:
                raise
            if left <= 0:
                exc.message = f"{exc.message} It was waited for {seconds} s (lock_wait)."
                raise
            if isinstance(exc, Locked) and not told:
                say(exc.holder)
                told = True
        while time.monotonic() < begun + seconds and not lock.is_open():
            time.sleep(LOOK)


class Lock:
    """The lock of one app. `found` is what a killed run left in it, `content` what this run has written."""

    def __init__(self, layout):
        self.name = layout.name
        self.path = layout.lock
        self.content = {}
        self.found = {}
        # What was noticed when it was taken.
        self.notes = []
        self._stream = None

    def read(self):
        return self._read()[0]

    def damage(self):
        """Why its content does not fit, or nothing."""
        return self._read()[1]

    def _read(self):
        """Content and nothing, or why it does not fit."""
        try:
            with open(self.path, encoding="utf-8", errors="replace") as stream:
                return parse(stream.read(records.MOST))
        except OSError:
            return {}, ""

    def is_free(self):
        """Whether no process holds it now."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            return isinstance(exc, FileNotFoundError)
        with os.fdopen(descriptor, encoding="utf-8") as stream:
            status = os.fstat(descriptor)
            if not is_private(status):
                return not root_holders(status)
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return False
        return True

    def is_open(self):
        """Whether a run could take it now."""
        found = self.read()
        return self.is_free() and (not found or is_stale(found))

    def pending(self, run):
        """What an earlier step of the same run left here, or nothing."""
        found = self.read()
        return found if found.get("run") == run and found.get("away") else {}

    @contextmanager
    def taken(self, run, owner, reason, break_lock=False):
        """Hold the lock. ReleaseError, which says who has it, where another does."""
        with self._take(break_lock) as self._stream:
            found, wrong = self._read()
            if wrong:
                self.notes.append(self._set_aside(wrong))
            mine = found.get("run") == run and found.get("away")
            if found and not mine:
                if not is_stale(found) and not break_lock:
                    raise Locked(f"it is locked by {describe(found)}. {BREAK}", found)
                self.found = found
            since = found["since"] if mine else now()
            self.content = {**(found if mine else {}), "run": run, "owner": owner, "reason": reason, "since": since}
            self.note(away="", boot=boot_id(), pid=os.getpid(), format=FORMAT)
            try:
                yield self
            finally:
                if not self.content.get("away") and not self.content.get("held"):
                    self._stream.truncate(0)

    def end_holder(self):
        """End the process that holds it, if one does. What it wrote stays for the next who takes the lock."""
        self._take(break_lock=True).close()

    def note(self, **facts):
        """Write facts into the lock for others to read. In place, as the lock is on this file; whole at each moment."""
        self.content.update(facts)
        if facts.get("away"):
            self.content["uptime"] = uptime()
        text = (json.dumps(self.content) + "\n").encode()
        descriptor = self._stream.fileno()
        # Blanks in the place of what was longer before.
        os.pwrite(descriptor, text.ljust(os.fstat(descriptor).st_size), 0)
        os.ftruncate(descriptor, len(text))

    def _set_aside(self, why):
        """Keep content that does not fit. The file stays where it is: another process may wait for it."""
        kept = records.free_name(self.path)
        with open(self.path, "rb") as stream:
            write_file(kept, stream.read().decode("utf-8", "surrogateescape"), 0o600)
        return f"{self.path} does not fit: {why}. What it had was set aside as {kept}, and the lock was taken."

    def _take(self, break_lock):
        """The lock file, open and locked."""
        deadline = time.monotonic() + 5
        while True:
            # Closed by who takes the lock.
            stream = os.fdopen(os.open(self.path, os.O_RDWR | OPEN, 0o600), "r+", encoding="utf-8")
            status = os.fstat(stream.fileno())
            if is_private(status):
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if self._is_at_its_path(status):
                        return stream
                    stream.close()  # an app that has just been removed
                    continue
                except BlockingIOError:
                    pass
            elif not root_holders(status):
                stream.close()
                self._renew()
                continue
            stream.close()
            found = self.read()
            if not break_lock or time.monotonic() > deadline:
                raise Locked(f"another run is changing it: {describe(found)}. {BREAK}", found)
            if has_open(found.get("pid"), status):
                kill_tree(found["pid"])
            time.sleep(0.05)

    def _is_at_its_path(self, status):
        try:
            return os.path.samestat(os.lstat(self.path), status)
        except FileNotFoundError:
            return False

    def _renew(self):
        """Replace the file by one with the same content that no other process has open."""
        with self._renewing():
            try:
                if is_private(os.lstat(self.path)):
                    return  # another run was faster
                with open(self.path, encoding="utf-8", errors="replace") as stream:
                    content = stream.read()
            except FileNotFoundError:
                return
            write_file(self.path, content, 0o600)

    @contextmanager
    def _renewing(self):
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive(RENEWAL))
            except BlockingIOError as exc:
                raise ReleaseError("lock", f"another process holds {RENEWAL} for more than {MOMENT} s.") from exc
            yield


@contextmanager
def exclusive(path, wait=MOMENT, shared=False):
    """Hold a lock on a file that only root can open. BlockingIOError if it is held for longer than `wait` seconds.

    `path` must lie where only root can make files. With `shared`, others who say so may hold it at the same time.
    """
    descriptor = os.open(path, os.O_RDWR | OPEN, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def is_private(status):
    """Whether nobody but this process's user can have opened the file."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def root_holders(status):
    """Ids of processes of this process's user, which is root, that hold a lock on a file."""
    held = set()
    with open("/proc/locks", encoding="ascii") as stream:
        for line in stream:
            words = line.split()
            if "FLOCK" in words and words[-3].rpartition(":")[2] == str(status.st_ino):
                held.add(int(words[-4]))
    return sorted(pid for pid in held if _uids(pid) == {os.geteuid()} and has_open(pid, status))


def _uids(pid):
    """Real, effective, saved and file system uid of a process: /proc/<pid> itself may be root's for any process."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
            return {int(word) for line in stream if line.startswith("Uid:") for word in line.split()[1:]}
    except OSError:
        return set()


def has_open(pid, status):
    """Whether a process has this file open: the id in a lock may belong to another process by now."""
    if not isinstance(pid, int) or pid < 2:
        return False
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in descriptors:
        try:
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), status):
                return True
        except OSError:
            continue
    return False


def kill_tree(pid):
    """Kill a process and all that it started."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stream:
                    children.setdefault(int(stream.read().rpartition(")")[2].split()[1]), []).append(int(name))
            except OSError:
                continue
    doomed = [pid]
    for parent in doomed:
        doomed.extend(children.get(parent, []))
    for each in doomed:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue
