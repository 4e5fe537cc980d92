# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs as fastapi-resources.service: /etc/fastapi/resources.json has its settings, systemd hands it the secrets."""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time

from fastapi_resources import channels, readings, store
from fastapi_resources.outbox import Outbox
from fastapi_resources.watch import Rule, Watches

CONFIG = "/etc/fastapi/resources.json"
# Readings that may be missed before it counts as a gap.
MISSED = 5


def say(level, text):
    """A line for the journal; the level is syslog's."""
    print(f"<{level}>{text}", file=sys.stderr, flush=True)


def notify(text):
    """Tell systemd; nothing where it does not ask."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection, contextlib.suppress(OSError):
            connection.connect("\0" + address[1:] if address.startswith("@") else address)
            connection.send(text.encode())


def load_settings():
    with open(CONFIG, encoding="utf-8") as stream:
        settings = json.load(stream)
    for name in settings["secrets"]:
        # A secret that is missing would be a channel that nobody misses.
        path = os.path.join(os.environ["CREDENTIALS_DIRECTORY"], name)
        try:
            with open(path, encoding="utf-8") as stream:
                settings[name] = stream.read().strip()
        except OSError as error:
            sys.exit(f"<3>systemd has not handed over the secret {name}: {error}")
    return settings


class Monitor:
    """The loop that watches, and the thread that tells: a receiver that hangs does not keep it from watching."""

    def __init__(self, settings, path):
        self.settings = settings
        self.path = path
        self.host = socket.getfqdn()
        saved = store.load(path)
        rules = {
            name: Rule(*(rule[key] for key in ("threshold", "recovery", "duration", "repeat")))
            for name, rule in settings["rules"].items()
            if rule["enabled"]
        }
        self.watches = Watches(rules, MISSED * settings["interval"], saved.get("watches"))
        self.outbox = Outbox(channels.chosen(settings), settings["queue"], saved.get("outbox"))
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.wake = threading.Event()

    def save(self):
        store.save(self.path, {"watches": self.watches.saved(), "outbox": self.outbox.saved()})

    def look(self):
        found = readings.read_all(self.settings["ignored_mounts"])
        with self.lock:
            for event in self.watches.observe(time.time(), found):
                self.outbox.put({**event, "host": self.host})
            self.save()
            self.publish()
        self.wake.set()

    def publish(self):
        path = os.path.join(os.environ["RUNTIME_DIRECTORY"], "fastapi_resources.prom")
        store.textfile(path, self.watches.saved(), self.outbox.waiting())

    def tell(self):
        while not self.stop.is_set():
            with self.lock:
                due = self.outbox.due(time.time())
            for channel, message in due:
                self.send(channel, message)
            if not due:
                self.wake.wait(1)
                self.wake.clear()

    def send(self, channel, message):
        try:
            channels.SENDERS[channel](message, self.settings)
        except Exception as error:  # whatever a receiver does, it is tried again
            with self.lock:
                delay = self.outbox.failed(channel, time.time(), channels.reason(error))
                self.save()
            say(
                4,
                f"message {message['id']} not delivered by {channel} ({channels.reason(error)}); again in {delay:g} s",
            )
            return
        with self.lock:
            self.outbox.sent(channel, message)
            self.save()
        say(6, f"message {message['id']} delivered by {channel}")

    def run(self):
        readings.read_all(self.settings["ignored_mounts"])  # CPU time counts from here
        # Short, or a threshold would be passed by what starts this program.
        self.stop.wait(min(1, self.settings["interval"]))
        threading.Thread(target=self.tell, daemon=True).start()
        notify("READY=1")
        while not self.stop.is_set():
            self.look()
            notify("WATCHDOG=1")
            self.stop.wait(self.settings["interval"])


def main():
    monitor = Monitor(load_settings(), os.path.join(os.environ["STATE_DIRECTORY"], "state.json"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: monitor.stop.set())
    firing = ", ".join(monitor.watches.firing()) or "nothing"
    told_by = ", ".join(monitor.outbox.queues) or "nobody: no channel is set"
    say(6, f"watching {', '.join(monitor.watches.rules)}; told by {told_by}; firing now: {firing}")
    monitor.run()


if __name__ == "__main__":
    main()
