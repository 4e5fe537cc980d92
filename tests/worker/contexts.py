"""An app that keeps who asks in a context variable, as many do, and sets it only for those who say who they are."""

import logging
from contextvars import ContextVar

import answering

USER = ContextVar("user", default="nobody")
# As a library does at its import, for all that comes after.
SERVICE = ContextVar("service", default="unknown")
SERVICE.set("shop")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await answering.app(scope, receive, send)
        return
    headers = dict(scope["headers"])
    before = USER.get()
    if b"x-user" in headers:
        USER.set(headers[b"x-user"].decode())
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        logging.getLogger("app").warning("websocket")
        await send({"type": "websocket.send", "text": before})
        return
    size = 0
    if scope["path"] != "/unread":
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
    logging.getLogger("app").warning("request of %s", headers.get(b"x-user", b"nobody").decode())
    body = f"{before} {SERVICE.get()} {size} {scope['path']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
