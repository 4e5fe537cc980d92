# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page that Prometheus reads."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TYPE = "text/plain; version=0.0.4; charset=utf-8"


# Seconds for which a page is the answer to all who ask: more askers do not leave less time for counting.
HOLDS = 0.5


class Page:
    def __init__(self, lines):
        self.lines = lines
        self.lock = threading.Lock()
        self.body = b""
        self.made = None

    def read(self):
        with self.lock:
            if self.made is None or time.monotonic() - self.made > HOLDS:
                self.body = ("\n".join(self.lines()) + "\n").encode()
                self.made = time.monotonic()
            return self.body


def handler(page):
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self):
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            body = page.read()
            self.send_response(200)
            self.send_header("Content-Type", TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def version_string(self):
            return "fastapi-exporter"

        def log_message(self, *_):
            pass

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, *_):
        """Who asks may hang up."""

    def server_bind(self):
        # Without asking DNS for a name, as the base class does.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "fastapi-exporter", self.server_address[1]


class Server6(Server):
    address_family = socket.AF_INET6


def serve(address, port, lines):
    server = (Server6 if ":" in address else Server)((address, port), handler(Page(lines)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
