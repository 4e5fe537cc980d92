# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a release beside the one that serves, proves that it answers, and sends nginx to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
import time

from .ask import connect_unix, get
from .release import ID, ReleaseError, journal_text, read_text
from .shell import UNFINISHED, point, write_file
from .text import one_line
from .tree import remove

# nginx resolves live.sock when it connects. A connection made just before the switch is accepted well within this.
SETTLE = 0.2
# Lines about cut requests that are read, and the most that one of them can tell.
MOST_WORKERS = 1000
MOST_CUT = 1_000_000


def ask(path, url, host, timeout):
    """GET over a unix socket as nginx would ask: status and the body's first 500 characters, within the timeout."""
    deadline = time.monotonic() + timeout
    connection = connect_unix(path, deadline)
    try:
        status, body = get(connection, url, {"Host": host, "X-Forwarded-Proto": "https"}, deadline)
        return status, one_line(body.decode("utf-8", "surrogateescape"), 500)
    finally:
        connection.close()


class Question(threading.Thread):
    """One GET, asked in the background. `status` is None without an answer; `outcome` says in words what came."""

    def __init__(self, path, url, host, timeout):
        super().__init__(daemon=True)
        self.arguments = (path, url, host, timeout)
        self.status = None
        self.outcome = "no answer"
        self.start()

    def run(self):
        try:
            self.status, body = ask(*self.arguments)
            self.outcome = f"the last answer was {self.status}: {body}"
        except (OSError, http.client.HTTPException) as exc:
            self.outcome = f"the last try failed: {type(exc).__name__}: {exc}"


def answer(layout, id_, timeout=3):
    """Status and words of what a release answers to its readiness path; the status is 0 without an answer."""
    serve = (layout.manifest(id_) or {}).get("serve")
    serve = serve if isinstance(serve, dict) else {}
    health = serve.get("health") or {}
    question = Question(layout.socket(id_), health.get("readiness", "/"), serve.get("domain", "localhost"), timeout)
    question.join(timeout + 1)
    return question.status or 0, question.outcome


class Instance:
    """The pair of units of one release."""

    def __init__(self, layout, id_, shell):
        self.layout = layout
        self.id = id_
        self.shell = shell
        self.service = layout.service_unit(id_)
        self.socket = layout.socket_unit(id_)

    def _systemctl(self, *arguments, phase="start", message="systemctl failed", check=True, timeout=None):
        return self.shell.run(["systemctl", *arguments], phase, message, check=check, timeout=timeout)

    def properties(self, *names):
        output, _code = self._systemctl("show", "-p", ",".join(names), self.service)
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    def serves(self):
        """Whether it runs, is enabled at boot, and its units are those of the release."""
        for kind, path in zip(("socket", "service"), self.layout.unit_paths(self.id)):
            if read_text(path) != read_text(self.layout.release(self.id, "systemd", kind)):
                return False
        # Not by its property UnitFileState: that is from the first `show` of any property until the next reload.
        enabled, _code = self._systemctl("is-enabled", self.service, check=False)
        return enabled.strip() == "enabled" and self.properties("ActiveState").get("ActiveState") == "active"

    def start(self, timeout):
        """Install the units and start them."""
        for kind, path in zip(("socket", "service"), self.layout.unit_paths(self.id)):
            wanted = read_text(self.layout.release(self.id, "systemd", kind))
            if read_text(path) != wanted:
                write_file(path, wanted, 0o644)
        # Units that ran a moment ago may still be loaded, from the files that were here then.
        output, _code = self._systemctl("show", "--property", "NeedDaemonReload", self.socket, self.service)
        if "NeedDaemonReload=yes" in output.splitlines():
            self._systemctl("daemon-reload")
        self._systemctl(
            "start", self.socket, self.service, message=f"{self.service} does not start", timeout=timeout + 30
        )

    def restart(self):
        """Create the socket again, where its file is missing or nobody listens on it."""
        self._systemctl("restart", self.socket, self.service, message=f"{self.service} does not start", check=False)

    def wait_ready(self, host, health):
        """Return after enough answers with 200 in a row; ReleaseError when they do not come in time."""
        path, wanted = health["readiness"], health["successes"]
        deadline = time.monotonic() + health["timeout"]
        in_row, last = 0, "no answer"
        while in_row < wanted:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ReleaseError(
                    "readiness",
                    f"{path} did not answer 200 {wanted} times in a row within {health['timeout']} s (health.timeout): "
                    f"{last}",
                )
            # systemd holds the socket, so a question to a crashed app waits for its next start. Look at the unit too.
            question = Question(self.layout.socket(self.id), path, host, left)
            while question.is_alive():
                question.join(0.5)
                if question.is_alive() or question.status != 200:
                    self._check_alive(path)
            last = question.outcome
            in_row = in_row + 1 if question.status == 200 else 0
            if in_row == 0:
                time.sleep(0.1)

    def _check_alive(self, path):
        found = self.properties("ActiveState", "NRestarts")
        if found.get("NRestarts", "0") != "0" or found.get("ActiveState") in {"failed", "inactive"}:
            raise ReleaseError("readiness", f"{self.service} ended before it answered {path}.")

    def restarted(self):
        """Whether it ended by itself since it was started."""
        found = self.properties("ActiveState", "NRestarts")
        return found.get("NRestarts", "0") != "0" or found.get("ActiveState") != "active"

    # Links for the next boot, made in the file system (--root): the running systemd need not read them. Asked to make
    # them, it would count all units of the host as changed on disk until the next `daemon-reload`.

    def enable(self):
        self._systemctl("enable", "--root=/", "--quiet", self.socket, self.service, phase="switch")

    def disable(self):
        self._systemctl("disable", "--root=/", "--quiet", self.socket, self.service, check=False)

    def switch(self, previous):
        """Send nginx and `current` here. The link is the one thing that decides; its rename is atomic."""
        point(self.layout.live, self.layout.socket(self.id))
        point(self.layout.current, os.path.join("releases", self.id))
        if previous and previous != self.id:
            point(self.layout.previous, os.path.join("releases", previous))

    def discard(self):
        """Stop what no user has been sent to: at once, however it hangs."""
        self._systemctl("stop", "--no-block", self.socket, self.service, check=False)
        self._systemctl("kill", "--signal=KILL", self.service, check=False)
        self.stop()

    def stop(self):
        """Drain, stop and forget the units. The socket goes first: a connection would start the service again."""
        serve = (self.layout.manifest(self.id) or {}).get("serve")
        timeout = serve.get("timeout_stop", 0) if isinstance(serve, dict) else 0
        self.disable()
        if not self._stops(timeout + 30):
            self._systemctl("kill", "--signal=KILL", self.service, check=False)
            self._stops(30)
        self._systemctl("reset-failed", self.socket, self.service, check=False)
        for path in self.layout.unit_paths(self.id):
            for file in (path, path + UNFINISHED):
                if os.path.exists(file):
                    os.unlink(file)

    def _stops(self, timeout):
        """Whether it stops in time. It may tell systemd again and again that it needs more (EXTEND_TIMEOUT_USEC)."""
        arguments = {"phase": "drain", "message": f"{self.service} does not stop", "timeout": timeout}
        try:
            _output, code = self._systemctl("stop", self.socket, self.service, check=False, **arguments)
        except ReleaseError:
            return False
        return code == 0

    def _journal(self, lines, *arguments):
        """The last lines of the unit that fit. What an app logs has no end by itself."""
        command = ["journalctl", "--no-pager", "--quiet", "--output", "cat", "--unit", self.service]
        command += ["--lines", str(lines), *arguments]
        return self.shell.run(command, "start", "", check=False)[0].splitlines()

    def journal(self, lines=60):
        """What the unit logged last."""
        return journal_text(self._journal(lines))

    def cut(self, since):
        """What its workers cut, by their own count, when they were told to stop. Each writes one line."""
        total = {"requests": 0, "websockets": 0}
        for line in self._journal(MOST_WORKERS, "--since", f"@{int(since)}", "--grep", '"cut_requests"'):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            # The app can write such a line, too.
            found = {kind: entry.get(f"cut_{kind}") if isinstance(entry, dict) else None for kind in total}
            if all(isinstance(count, int) and count is not True and 0 <= count <= MOST_CUT for count in found.values()):
                for kind, count in found.items():
                    total[kind] += count
        return total


def strangers(layout, live):
    """Ids whose units are installed though they are not live: what an interrupted deploy left behind."""
    # Also one of the pair by itself, and a file that was being written. Other instances are not of a release.
    unit = re.compile(rf"{re.escape(layout.name)}@([^@]+)\.(?:socket|service)(?:{re.escape(UNFINISHED)})?")
    found = [unit.fullmatch(name) for name in os.listdir(layout.units)]
    return sorted({match[1] for match in found if match and ID.match(match[1])} - {live})


def remove_release(layout, id_):
    remove(layout.release(id_))


def remove_unused_venvs(layout):
    """Remove the virtual environments that no release links to any more."""
    used = {os.path.basename(os.path.realpath(layout.release(id_, "venv"))) for id_ in layout.ids()}
    for name in os.listdir(layout.venvs):
        if name not in used:
            remove(os.path.join(layout.venvs, name))
