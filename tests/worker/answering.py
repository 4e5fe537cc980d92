"""What the worker serves in its tests: an answer tells which process gave it."""

import asyncio
import os
import time

# Not with preload: each worker imports it.
time.sleep(float(os.environ.get("SLOW_START", "0")))


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    path = scope["path"]
    while (await receive()).get("more_body"):
        pass
    if path.startswith("/slow/"):
        await asyncio.sleep(float(path.removeprefix("/slow/")))
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
    if path == "/raises-after-its-answer":
        raise RuntimeError("on purpose")
