# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of fastapi-apps-exporter.service and fastapi-edge-exporter.service.

`exporter apps|edge ADDRESS PORT SERIES`: where the page is, and how many series an app or a site may have.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
import time

# Isolated (-I), Python looks in neither: this program's directory, and the one beside it, of the host's own package.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.append(os.path.dirname(sys.path[0]))

from fastapi_exporter import registry as numbers
from fastapi_exporter import senders, statsd
from fastapi_exporter.certificates import Certificates
from fastapi_exporter.edge import Edge
from fastapi_exporter.page import serve
from fastapi_exporter.releases import Releases

# Seconds between two times that the state goes to disk: what a crash may cost of what workers sent.
SAVED = 10.0
# systemd's first socket.
LISTENS = 3


# Not for programs that this one starts: systemd would log that they may not use it.
NOTIFY = os.environ.pop("NOTIFY_SOCKET", "")


def notify(text):
    if NOTIFY:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + NOTIFY[1:] if NOTIFY.startswith("@") else NOTIFY)
            sender.sendall(text.encode())


class Apps:
    """What workers send, to a socket that systemd holds: what they send during a restart waits there."""

    def __init__(self, most, saved):
        self.registries = numbers.Registries("app", most=most, room=statsd.room)
        self.intake = statsd.Intake(self.registries, senders.Accounts())
        self.intake.restore(saved.get("registry", []))
        self.socket = socket.socket(fileno=LISTENS)
        self.socket.settimeout(1.0)

    def step(self):
        try:
            datagram, uid = senders.receive(self.socket)
        except TimeoutError:
            return
        with self.registries.lock:
            self.intake.take(datagram, uid)

    def saved(self):
        return {}

    def lines(self):
        return ()


class OfEdge:
    """nginx's logs, and what is read anew each time."""

    def __init__(self, most, saved):
        self.registries = numbers.Registries("site", most=most)
        self.registries.restore(saved.get("registry", []))
        self.edge = Edge(self.registries, saved=saved.get("edge"))
        self.releases, self.certificates = Releases(), Certificates()

    def step(self):
        self.edge.step(time.monotonic())
        self.certificates.step(time.monotonic())
        time.sleep(0.5)

    def saved(self):
        return {"edge": self.edge.saved()}

    def lines(self):
        for name, kind, values in itertools.chain(self.releases.values(), self.certificates.values()):
            yield from numbers.family(name, kind, values)


def main():
    kind, address, port, most = sys.argv[1:]
    path = os.path.join(os.environ["STATE_DIRECTORY"], kind + ".json")
    saved = numbers.load(path)
    source = {"apps": Apps, "edge": OfEdge}[kind](int(most), saved)

    def save():
        numbers.save(path, {"registry": source.registries.saved(), **source.saved()})

    ending = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.append(True))
    serve(address, int(port), lambda: itertools.chain(source.registries.lines(), source.lines()))
    notify("READY=1")
    due = time.monotonic() + SAVED
    while not ending:
        source.step()
        if time.monotonic() >= due:
            save()
            notify("WATCHDOG=1")
            due = time.monotonic() + SAVED
    save()


if __name__ == "__main__":
    main()
