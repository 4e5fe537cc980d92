# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes files of a host, and takes the change back unless it is confirmed in time.

The module daoman.fastapi.harden leaves it on the host. There it runs by itself, with nothing but Python and systemd,
because what it takes back may be the way in: `commit_confirmed.py stage|apply|confirm|restore|status ID`. It says what
it did as JSON.

The change lies in STATE/pending: change.json, and for each file what is to come (new) and what was there (old). With
the directory gone, the matter is settled; STATE/outcome.json says how.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time

STATE = "/var/lib/fastapi/hardening"
# Seconds for one command, such as the reload of a service, and for sshd to answer after it.
COMMAND_TIMEOUT = 20
ANSWER_TIMEOUT = 10
BOOT_UNIT = "fastapi-restore-at-boot.service"
BOOT_UNIT_FILE = "/etc/systemd/system/" + BOOT_UNIT
# By hand, because systemctl does not answer that early in a boot.
BOOT_UNIT_LINK = "/etc/systemd/system/sysinit.target.wants/" + BOOT_UNIT
# Before anything that reads the files. The firewall is part of sysinit.target too, so that alone would not order them.
BOOT_UNIT_TEXT = """\
# Takes back a change that nobody had confirmed when the host went down. Exists only while one waits for it.
[Unit]
Description=Restore the settings from before an unconfirmed change
DefaultDependencies=no
After=local-fs.target
Before=fastapi-firewall.service nftables.service systemd-sysctl.service sysinit.target network-pre.target
Wants=network-pre.target
ConditionPathExists={state}/pending/change.json

[Service]
Type=oneshot
ExecStart={python} {state}/commit_confirmed.py restore {id} boot
"""


class ChangeError(Exception):
    """The change did not take, or there is none to decide on."""


class Change:
    """One change of files. `state` is where it lies, `prefix` the directory that all paths are in, for tests."""

    def __init__(self, state=STATE, prefix=""):
        self.state = state
        self.prefix = prefix
        self.pending = os.path.join(state, "pending")

    def read(self):
        """What is pending, or None."""
        try:
            with open(os.path.join(self.pending, "change.json"), encoding="utf-8") as stream:
                return json.load(stream)
        except FileNotFoundError:
            return None

    def outcome(self):
        """How the last change was settled."""
        try:
            with open(os.path.join(self.state, "outcome.json"), encoding="utf-8") as stream:
                return json.load(stream)
        except FileNotFoundError:
            return {}

    def stage(self, change, texts, saved=()):
        """Save what is there, and what is to come, durably.

        :arg change: id, topics, window, ports (where sshd must answer) and commands: activate; leave, before the old
            files are back, while those of new units are still there; restore, after it
        :arg texts: of each path content (a string), mode, uid and gid; None to remove it
        :arg saved: what the commands to restore need besides, as text by name
        """
        making = self.pending + ".new"
        shutil.rmtree(making, ignore_errors=True)
        os.makedirs(making, 0o700)
        files = []
        for number, (path, item) in enumerate(sorted(texts.items())):
            entry = {"path": path, "old": None, "new": None}
            real = self.prefix + path
            if os.path.exists(real):
                status = os.stat(real)
                entry["old"] = [f"{number}.old", status.st_mode & 0o7777, status.st_uid, status.st_gid]
                with open(real, "rb") as stream:
                    write(os.path.join(making, entry["old"][0]), stream.read(), 0o600)
            if item is not None:
                entry["new"] = [f"{number}.new", item["mode"], item["uid"], item["gid"]]
                content = item["content"].encode("utf-8", "surrogateescape")
                write(os.path.join(making, entry["new"][0]), content, 0o600)
            files.append(entry)
        for name, text in dict(saved).items():
            write(os.path.join(making, name), text.encode(), 0o600)
        text = json.dumps({**change, "files": files}, indent=1)
        write(os.path.join(making, "change.json"), text.encode(), 0o600)
        os.rename(making, self.pending)
        sync(self.state)

    @contextlib.contextmanager
    def alone(self):
        """Held against everybody else who would arm, or decide on, a change."""
        with open(os.path.join(self.state, "lock"), "w", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def locked(self, id_):
        """The pending change, held."""
        with self.alone():
            change = self.read()
            if change is None or change["id"] != id_:
                raise ChangeError(f"The change {id_} is no longer pending.")
            yield change

    def apply(self, id_):
        """Put the files in place and have them read. If that fails, all is as before."""
        with self.locked(id_) as change:
            write(os.path.join(self.pending, "applied"), b"", 0o600)
            try:
                for entry in change["files"]:
                    self._put(entry["path"], entry["new"])
                for command in change["activate"]:
                    run(command)
                for port in change["ports"]:
                    answers(port)
            except (ChangeError, OSError) as error:
                self._restore(change, "host", str(error))
                raise ChangeError(str(error)) from error
            attempt(run, change["trial"])

    def confirm(self, id_):
        with self.locked(id_) as change:
            if not os.path.exists(os.path.join(self.pending, "applied")):
                raise ChangeError("The change was not made, so there is nothing to confirm.")
            self._settle(change, {"outcome": "confirmed", "by": "operator"})

    def restore(self, id_, by):
        with self.locked(id_) as change:
            self._restore(change, by, "")

    def _restore(self, change, by, error):
        """As far as it goes: what cannot be restored must not keep the rest from it."""
        problems = []
        if os.path.exists(os.path.join(self.pending, "applied")):
            # At boot nothing runs yet that would have to read the files again.
            problems += attempt(run, [] if by == "boot" else change["leave"])
            problems += attempt(lambda entry: self._put(entry["path"], entry["old"]), change["files"])
            problems += attempt(run, [] if by == "boot" else change["restore"])
        self._settle(change, {"outcome": "restored", "by": by, "error": error, "problems": problems})

    def _put(self, path, what):
        real = self.prefix + path
        if what is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(real)
            return
        name, mode, uid, gid = what
        if not os.path.isdir(os.path.dirname(real)):
            os.makedirs(os.path.dirname(real), 0o755)
        with open(os.path.join(self.pending, name), "rb") as stream:
            write(real + ".fastapi-new", stream.read(), mode, uid, gid)
        os.replace(real + ".fastapi-new", real)

    def _settle(self, change, outcome):
        outcome = {
            **outcome, "id": change["id"], "topics": change["topics"], "at": time.time(),
            "files": [entry["path"] for entry in change["files"]],
        }
        write(os.path.join(self.state, "outcome.json.new"), json.dumps(outcome, indent=1).encode(), 0o600)
        os.replace(os.path.join(self.state, "outcome.json.new"), os.path.join(self.state, "outcome.json"))
        attempt(run, [] if outcome["by"] == "boot" else change["settle"])
        # One rename, so that nobody finds half of it. A host that goes down before it restores again at its boot, so
        # only then is it disarmed.
        gone = self.pending + ".gone"
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(self.pending, gone)
        sync(self.state)
        disarm(change["id"], outcome["by"])
        shutil.rmtree(gone, ignore_errors=True)


def write(path, content, mode, uid=None, gid=None):
    """Write a file with its final rights from the first moment on, and have it on disk."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
        if uid is not None:
            os.fchown(stream.fileno(), uid, gid)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())


def sync(directory):
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def run(command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=COMMAND_TIMEOUT, check=False, errors="replace", text=True)
    except subprocess.TimeoutExpired as error:
        raise ChangeError(f"'{' '.join(command)}' was not done within {COMMAND_TIMEOUT} s") from error
    except OSError as error:
        raise ChangeError(f"'{' '.join(command)}' cannot be run: {error}") from error
    if done.returncode:
        raise ChangeError(f"'{' '.join(command)}' ended with {done.returncode}: {done.stdout.strip()[-1500:]}")
    return done.stdout


def attempt(action, items):
    """Do it for each item, whatever becomes of the others; the problems."""
    problems = []
    for item in items:
        try:
            action(item)
        except (ChangeError, OSError) as problem:
            problems.append(str(problem))
    return problems


def answers(port):
    """Whether an SSH server greets on a port of this host: sshd ends when a reload finds no port that it can have."""
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while True:
        try:
            with socket.create_connection(("localhost", port), timeout=2) as client:
                greeting = client.recv(64)
            if greeting.startswith(b"SSH-"):
                return
            said = f"something else: {greeting[:40]!r}"
        except OSError as error:
            said = str(error)
        if time.monotonic() > deadline:
            raise ChangeError(f"sshd does not answer on port {port} of this host: {said}")
        time.sleep(0.1)


def timer(id_):
    return f"fastapi-restore-{id_}"


def arm(id_, window, state=STATE):
    """Have the host restore by itself after `window` seconds, and at the next boot."""
    write(BOOT_UNIT_FILE, BOOT_UNIT_TEXT.format(state=state, python=sys.executable, id=id_).encode(), 0o644)
    os.makedirs(os.path.dirname(BOOT_UNIT_LINK), exist_ok=True)
    if not os.path.islink(BOOT_UNIT_LINK):
        os.symlink(BOOT_UNIT_FILE, BOOT_UNIT_LINK)
    sync(os.path.dirname(BOOT_UNIT_LINK))
    run(["systemd-run", "--quiet", "--collect", f"--unit={timer(id_)}", f"--on-active={window}s",
         "--timer-property=AccuracySec=100ms", "--description=Restore the settings from before an unconfirmed change",
         sys.executable, os.path.join(state, "commit_confirmed.py"), "restore", id_, "timer"])


def disarm(id_, by):
    for path in (BOOT_UNIT_LINK, BOOT_UNIT_FILE):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if by != "boot":
        with contextlib.suppress(ChangeError):
            run(["systemctl", "stop", timer(id_) + ".timer"])


def main(argv):
    verb, id_, *rest = argv
    # Directories that it makes are for all; the user who confirms may have another umask.
    os.umask(0o022)
    change = Change()
    failure = ""
    try:
        if verb == "stage":
            given = json.load(sys.stdin)
            try:
                with change.alone():
                    change.stage(**given)
                    arm(id_, change.read()["window"])
            except ChangeError:
                change.restore(id_, "host")
                raise
        elif verb == "apply":
            change.apply(id_)
        elif verb == "confirm":
            change.confirm(id_)
        elif verb == "restore":
            change.restore(id_, rest[0])
        elif verb != "status":
            raise ChangeError(f"Unknown verb {verb}.")
    except ChangeError as error:
        failure = str(error)
    print(json.dumps({"failure": failure, "pending": change.read() is not None, "outcome": change.outcome()}))
    return int(bool(failure))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
