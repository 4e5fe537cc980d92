"""An ASGI app without dependencies that can be made to fail in each way that troubleshoot.sh should name."""

import asyncio
import json
import logging
import os
import pathlib
import time

SHARED = pathlib.Path("/srv/shop/shared")
HOST = os.environ["ALLOWED_HOST"]
SECRET = os.environ["DATABASE_URL"]
HOARD = []


def ready(query):
    return (503, "the database does not answer") if (SHARED / "unready").exists() else (200, "ready")


def block(query):
    time.sleep(20)
    return 200, "slept"


def crash(query):
    os._exit(7)


def boom(query):
    raise RuntimeError("it went wrong, connected to " + SECRET)


def missing(query):
    return 200, os.environ["PAYMENT_ENDPOINT"]


def hoard(query):
    HOARD.append(b"x" * (int(query) << 20))
    return 200, "hoarded"


def log(query):
    logging.getLogger("shop").warning("the app says: %s", query)
    return 200, "logged"


ANSWERS = {
    "/health/ready": ready,
    "/block": block,
    "/crash": crash,
    "/boom": boom,
    "/missing": missing,
    "/hoard": hoard,
    "/log": log,
    "/fail": lambda query: (500, "failed"),
}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    host = dict(scope["headers"])[b"host"].decode()
    allowed = (SHARED / "host").read_text() if (SHARED / "host").exists() else HOST
    answer = ANSWERS.get(scope["path"])
    if host != allowed:
        status, text = 400, "Invalid host header"
    elif scope["path"] == "/slow":
        await asyncio.sleep(2.2)
        status, text = 200, "at last"
    else:
        status, text = answer(scope["query_string"].decode()) if answer else (404, "no such path")
    body = json.dumps(text).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
