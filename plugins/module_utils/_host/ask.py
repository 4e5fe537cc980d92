# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks an app one question over HTTP: an answer that never ends, or is huge, is cut by time and by size."""

from __future__ import annotations

import http.client
import io
import os
import socket
import stat
import time

from .files import opened

# Bytes of an answer that are taken from the socket, its headers included.
MOST = 1 << 16


class Bounded(io.RawIOBase):
    """What comes from a socket until a deadline, up to so many bytes. http.client takes it for the socket."""

    def __init__(self, connection, deadline, most=MOST):
        super().__init__()
        self.connection, self.deadline, self.most = connection, deadline, most

    def readable(self):
        return True

    def makefile(self, _mode):
        return io.BufferedReader(self)

    def readinto(self, buffer):
        if self.most <= 0:
            raise OSError("the answer is too long")
        self.connection.settimeout(left(self.deadline))
        count = self.connection.recv_into(buffer, min(len(buffer), self.most))
        self.most -= count
        return count


def left(deadline):
    """Seconds until a moment; TimeoutError when it is over."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


def connect_unix(path, deadline):
    """A connection to a unix socket that really lies at this path. An app could lay a link to another's there."""
    with opened(path, os.O_PATH) as descriptor:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise ConnectionRefusedError(f"{path} is not a socket")
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(left(deadline))
            connection.connect(f"/proc/self/fd/{descriptor}")
        except OSError:
            connection.close()
            raise
    return connection


def get(connection, url, headers, deadline, most=2000):
    """Status and first bytes of the body of the answer to a GET, until a moment of the monotonic clock."""
    lines = [f"GET {url} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "Connection: close"]
    connection.settimeout(left(deadline))
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    response = http.client.HTTPResponse(Bounded(connection, deadline), method="GET")
    try:
        response.begin()
        return response.status, response.read(most)
    finally:
        response.close()
