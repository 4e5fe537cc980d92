"""An ASGI app without dependencies: each kind of source and each way to fail is tried with it."""

import json
import os
import pathlib
import socket
import tempfile

REVISION = "1"


def connect(address):
    try:
        socket.create_connection(address, timeout=2).close()
    except OSError as exc:
        return type(exc).__name__
    return "connected"


def write(path):
    try:
        pathlib.Path(path).write_text("x")
    except OSError as exc:
        return type(exc).__name__
    return "written"


def umask():
    with open("/proc/self/status") as stream:
        return next(line.split()[1] for line in stream if line.startswith("Umask:"))


def temporary():
    with tempfile.NamedTemporaryFile() as stream:
        return stream.name


ANSWERS = {
    "/health/ready": lambda scope: "ready",
    "/revision": lambda scope: REVISION,
    "/env": lambda scope: dict(os.environ),
    "/release": lambda scope: os.environ["FASTAPI_RELEASE"],
    "/pid": lambda scope: [os.getpid(), os.getppid()],
    "/umask": lambda scope: umask(),
    "/temporary": lambda scope: temporary(),
    "/write": lambda scope: {path: write(path) for path in ("main.py", "/etc/x", "/srv/tiny/shared/x", "/tmp/x")},
    "/home": lambda scope: os.access("/home", os.R_OK),
    "/tcp": lambda scope: connect(("127.0.0.1", 9)),
    "/scheme": lambda scope: [scope["scheme"], scope["client"]],
}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    answer = ANSWERS.get(scope["path"])
    host = dict(scope["headers"])[b"host"].decode()
    status = 400 if host != "tiny.example.com" else 200 if answer else 404
    body = json.dumps(answer(scope) if status == 200 else host).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
