"""The victim: an honest app."""

import json
import os

from lib.lib import LIB

SECRET = "beta-code-canary"  # private code, which no other app may read


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = json.dumps({"app": "beta", "lib": LIB, "secret": len(os.environ["SECRET"])}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
