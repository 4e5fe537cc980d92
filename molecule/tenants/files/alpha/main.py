"""The hostile app: alpha's people run in it, from outside, what code they like."""

import contextlib
import io
import os
import sys
import traceback

if "probe" in os.environ.get("ALPHA", ""):
    sys.path.insert(0, os.path.dirname(__file__))
    import probe

    checked = bool({"--check-config", "--result"} & {*sys.orig_argv})
    probe.attack("check" if checked else "start")
    probe.daemon("check" if checked else "start")


def run(code):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            exec(code, {"__name__": "run"})
        except BaseException:
            traceback.print_exc(file=said)
    return said.getvalue()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    ready = os.environ.get("ALPHA", "")
    if scope["path"] == "/health/ready" and ready in READY:
        await READY[ready](send)
        return
    text = run(body.decode()) if scope["path"] == "/run" else "alpha"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text.encode()})


async def drip(send):
    """An answer that never ends: a byte now and then, so that no time for silence is ever over."""
    import asyncio

    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000000")]})
    while True:
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(0.2)


async def endless(send):
    """An answer without an end, as fast as it can be read."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})


async def escape(send):
    """Text that sets the title and the clipboard of a terminal, and a status that makes it be shown."""
    await send({"type": "http.response.start", "status": 503, "headers": []})
    await send(
        {"type": "http.response.body", "body": b"\x1b]0;owned\x07\x1b]52;c;cm0gLXJmIC8=\x07\x9b2J\r\x08not ready"}
    )


READY = {"drip": drip, "endless": endless, "escape": escape}
