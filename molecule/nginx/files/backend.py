"""An application that tells what it was asked, on a unix socket."""

import base64
import hashlib
import itertools
import json
import os
import socketserver
import time
from http.server import BaseHTTPRequestHandler

SOCKET = "/run/backend.sock"
numbers = itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection_number = next(numbers)

    def address_string(self):
        return "unix"

    def answer(self, status, body, **headers):
        body = body.encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "X-Backend": "yes", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/events":
            self.events()
        elif path == "/socket" and self.headers.get("Upgrade") == "websocket":
            self.websocket()
        elif path.startswith("/status/"):
            self.answer(int(path.rpartition("/")[2]), "as asked\n")
        else:
            self.echo()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.echo()

    def echo(self):
        self.answer(200, json.dumps({
            "path": self.path, "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "connection": self.connection_number,
        }), Content_Type="application/json", X_Frame_Options="ALLOWALL", Referrer_Policy="same-origin",
            X_Request_ID="the application's")

    def events(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("X-Accel-Buffering", "no")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(30):
            self.wfile.write(f"data: {number}\n\n".encode())
            self.wfile.flush()
            time.sleep(0.1)

    def websocket(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.wfile.write(self.rfile.readline().upper())
        self.close_connection = True


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


if os.path.exists(SOCKET):
    os.unlink(SOCKET)
with Server(SOCKET, Handler) as server:
    os.chmod(SOCKET, 0o666)
    server.serve_forever()
