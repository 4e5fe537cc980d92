"""An application that tells what it was asked. Workers share a unix socket, as gunicorn's do, and can be killed.

Called with the path of its socket and a number of workers. Every request is noted in <socket>.seen before its answer.
"""

import base64
import hashlib
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl

ADDRESS, WORKERS = sys.argv[1], int(sys.argv[2])
NAME = os.path.basename(ADDRESS).partition(".")[0]
SEEN = os.open(ADDRESS + ".seen", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
numbers = itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection_number = f"{os.getpid()}-{next(numbers)}"

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        """The journal is for what goes wrong."""

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "X-Backend": NAME, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        # in one piece: an answer of which nginx has a part cannot be asked for again
        self._headers_buffer.append(b"\r\n" + body.encode())
        self.flush_headers()

    def do_GET(self):
        path, _, query = self.path.partition("?")
        path = path[path.rindex("/"):] if not path.startswith("/status/") else path
        os.write(SEEN, f"{self.command} {self.path}\n".encode())
        if path == "/events":
            self.events()
        elif path == "/socket" and self.headers.get("Upgrade") == "websocket":
            self.websocket()
        elif path.startswith("/status/"):
            self.answer(int(path.rpartition("/")[2]), "as asked\n")
        elif path == "/slow":
            time.sleep(float(dict(parse_qsl(query)).get("seconds", 0.3)))
            self.echo()
        elif path == "/reply":
            headers = [item.split(":", 1) for name, item in parse_qsl(query) if name == "header"]
            self.answer(200, f"{time.time_ns()}\n", **dict(headers))
        elif path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            self.echo()

    def do_POST(self):
        os.write(SEEN, f"BEGIN {self.path}\n".encode())
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    do_TRACE = do_CONNECT = do_GET
    do_DELETE = do_POST

    def echo(self):
        self.answer(200, json.dumps({
            "path": self.path, "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "connection": self.connection_number, "backend": NAME,
        }), Content_Type="application/json", X_Frame_Options="ALLOWALL", Referrer_Policy="same-origin",
            X_Request_ID="the application's")

    def events(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if "plain" not in self.path:
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


def serve(connection):
    with connection:
        try:
            Handler(connection, ("unix", 0), None)
        except OSError as error:  # nginx went away
            print(error, file=sys.stderr)


def work(listener):
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def main():
    if os.path.exists(ADDRESS):
        os.unlink(ADDRESS)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(ADDRESS)
    os.chmod(ADDRESS, 0o666)
    listener.listen(1024)
    for number in itertools.count(1):
        if not os.fork():
            work(listener)
        if number >= WORKERS:
            os.wait()


if __name__ == "__main__":
    main()
