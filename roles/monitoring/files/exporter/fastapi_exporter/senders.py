# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which app sent a datagram, by the user id that the kernel attaches to it, and how much it may send."""

from __future__ import annotations

import pwd
import socket
import struct
import time

from fastapi_host.accounts import COMMENT, is_ours
from fastapi_host.release import APP_NAME

# Seconds for which an answer holds: apps come and go, and a user id may become another app's.
HOLDS = 10.0
MOST_KNOWN = 1000
# Lines a second that an app may send, and at once. 16 busy workers send about a tenth of that.
LINES = 10000.0
BURST = 40000.0
# A long line costs as much as several: this many bytes count as one line.
LINE = 256

CREDENTIALS = struct.Struct("3i")
# Room for the credentials alone: the kernel closes descriptors that somebody sends along.
ANCILLARY = socket.CMSG_SPACE(CREDENTIALS.size)
LONGEST = 1 << 16


def receive(listener):
    """(datagram, user id) from a socket with PassCredentials=yes. None for what is too long to be complete."""
    data, ancillary, flags, _address = listener.recvmsg(LONGEST, ANCILLARY)
    uid = -1
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            _pid, uid, _gid = CREDENTIALS.unpack(content)
    return (None if flags & socket.MSG_TRUNC else data), uid


class Accounts:
    """Names of apps by user id."""

    def __init__(self, clock=time.monotonic, by_uid=pwd.getpwuid, by_name=pwd.getpwnam):
        self.clock = clock
        self.by_uid = by_uid
        self.by_name = by_name
        self.known = {}

    def app(self, uid):
        """The app's name. An empty one where the account is no app's."""
        until, name = self.known.get(uid, (0.0, ""))
        if self.clock() < until:
            return name
        if len(self.known) >= MOST_KNOWN:
            self.known.clear()
        name = self._name(self.by_uid, uid)
        self.known[uid] = (self.clock() + HOLDS, name)
        return name

    def has(self, name):
        return self._name(self.by_name, name) == name

    @staticmethod
    def _name(lookup, key):
        try:
            found = lookup(key)
        except (KeyError, OverflowError):
            return ""
        return found.pw_name if is_ours(found, COMMENT) and APP_NAME.match(found.pw_name) else ""


class Allowance:
    """Lines that one app may still send."""

    def __init__(self, clock=time.monotonic):
        self.clock = clock
        self.left = BURST
        self.counted = clock()

    def takes(self, datagram):
        """How many lines it has, and whether they may be read."""
        now = self.clock()
        self.left = min(self.left + (now - self.counted) * LINES, BURST)
        self.counted = now
        lines = datagram.count(b"\n") + 1
        cost = lines + len(datagram) // LINE
        if cost > self.left:
            return lines, False
        self.left -= cost
        return lines, True
