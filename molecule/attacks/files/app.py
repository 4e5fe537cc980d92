"""Applications that believe whatever they read and note it, and old proxies that read it otherwise.

nginx itself refuses most requests that can be read in two ways, whatever its configuration. The old proxies stand for
those that do not; behind each is an application whose reading differs from its own. Like the naive nginx, they keep
/admin/ closed. What an application reads goes into /run/seen/<name>.jsonl, line by line as it happens.
"""

import contextlib
import json
import os
import socket
import threading
import time
from typing import NamedTuple


class Reading(NamedTuple):
    """How a request is read."""

    length: int = -1  # which of several Content-Lengths counts
    unfolds: bool = True  # a line that begins with a space belongs to the one before
    loose: bool = True  # anything with "chunked" in it is chunked, and names may end in a space
    chunked_first: bool = True  # Transfer-Encoding counts more than Content-Length


class Request(NamedTuple):
    method: str
    target: str
    headers: list
    raw: bytes

    def get(self, name):
        return next((value for key, value in self.headers if key == name), "")


def read_head(stream, reading):
    line = raw = stream.readline()
    while raw in (b"\r\n", b"\n"):  # between two requests
        line = raw = stream.readline()
    if not line.endswith(b"\n"):
        return None
    method, target = [*line.decode("latin-1").split(" "), "", ""][:2]
    headers = []
    while True:
        line = stream.readline()
        raw += line
        if line in (b"\r\n", b"\n"):
            return Request(method, target, headers, raw)
        if not line:
            return None
        text = line.decode("latin-1")
        if text[0] in " \t" and headers:
            if reading.unfolds:
                headers[-1][1] = f"{headers[-1][1]} {text.strip()}".strip()
            continue
        name, _, value = text.partition(":")
        headers.append([(name.strip() if reading.loose else name).lower(), value.strip()])


def read_body(stream, request, reading):
    """The body as it came, and what it says."""
    encodings = [value.lower() for name, value in request.headers if name == "transfer-encoding"]
    chunked = any("chunked" in value if reading.loose else value == "chunked" for value in encodings)
    lengths = [int(value) for name, value in request.headers if name == "content-length" and value.isdigit()]
    if chunked and (reading.chunked_first or not lengths):
        raw = body = b""
        while True:
            line = stream.readline()
            size = int(line.partition(b";")[0].strip() or b"0", 16)
            data = stream.read(size) + stream.readline()
            raw, body = raw + line + data, body + data[:size]
            if not size:
                return raw, body
    body = stream.read(lengths[reading.length]) if lengths else b""
    return body, body


class Application:
    def __init__(self, name, reading):
        self.reading = reading
        self.log = os.open(f"/run/seen/{name}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, event, **what):
        os.write(self.log, (json.dumps({"event": event, "at": time.time(), **what}) + "\n").encode())

    def serve(self, connection):
        stream = connection.makefile("rb")
        while request := read_head(stream, self.reading):
            self.note("request", method=request.method, target=request.target, headers=request.headers)
            _, body = read_body(stream, request, self.reading)
            self.note("body", target=request.target, body=body.decode("latin-1"))
            connection.sendall(self.answer(request))
            self.note("answered", target=request.target)

    @staticmethod
    def answer(request):
        if upgrade := request.get("upgrade"):
            return f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n".encode()
        names = ("cookie", "authorization", "x-api-key", "x-my-key")
        who = next((request.get(name) for name in names if request.get(name)), "nobody")
        host = request.get("x-forwarded-host") or request.get("host")
        text = f"{request.method} {request.target}, for {who}, at {host}\n".encode()
        if request.target.startswith("/large"):
            text = bytes(16 << 20)
        if request.target.startswith("/huge"):
            text = bytes(64 << 20)
        if request.method == "HEAD":
            text = b""
        cookie = b"Set-Cookie: session=mine\r\n" if "session" in request.target else b""
        return (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-App: yes\r\n" + cookie
                + b"Content-Length: %d\r\n\r\n" % len(text) + text)


class Proxy:
    """Hands each request on as it came, all of them over one connection."""

    def __init__(self, reading, port):
        self.reading, self.port = reading, port

    def serve(self, connection):
        stream = connection.makefile("rb")
        behind = socket.create_connection(("127.0.0.1", self.port))
        answers = behind.makefile("rb")
        while request := read_head(stream, self.reading):
            raw, _ = read_body(stream, request, self.reading)
            if request.target.startswith("/admin/"):
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                continue
            behind.sendall(request.raw + raw)
            answer = read_head(answers, Reading())
            connection.sendall(answer.raw + read_body(answers, answer, Reading())[0])


def serve(connection, server):
    # who was in front went away, or it is no HTTP
    with connection, contextlib.suppress(OSError, ValueError):
        server.serve(connection)


def listen(address, server):
    if isinstance(address, str):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        os.chmod(address, 0o666)
        listener.listen(1024)
    else:
        listener = socket.create_server(("127.0.0.1", address), backlog=1024)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0], server), daemon=True).start()


def main():
    if os.path.exists("/run/seen/app.sock"):
        os.unlink("/run/seen/app.sock")
    strict = Reading(length=0, unfolds=False, loose=False)
    servers = {
        "/run/seen/app.sock": Application("hardened", Reading()),
        9000: Application("naive", Reading()),
        # Content-Length counts here, and Transfer-Encoding behind it
        8090: Proxy(strict._replace(chunked_first=False), 9000),
        # and the other way round
        9001: Application("naive", Reading(chunked_first=False)),
        8091: Proxy(strict, 9001),
    }
    for address, server in servers.items():
        threading.Thread(target=listen, args=(address, server), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
