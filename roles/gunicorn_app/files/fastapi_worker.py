# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uvicorn's worker for gunicorn with a lame-duck shutdown.

The stock worker closes idle connections the moment it is told to stop. nginx may just then be sending a request on
one of them, and a POST already sent is not sent again: the user gets a 502. This worker closes its listener, answers
what still arrives with `Connection: close`, and closes idle connections only after LINGER seconds, which is longer
than nginx keeps an idle connection to an upstream. So nginx always lets go first.

Requests, event streams and WebSockets that are open may go on until the graceful timeout. What does not end by then
is cut, counted, and reported in a line of the journal that the deploy reads.

Frameworks answer an unhandled exception with a 500, and then raise it for the log; uvicorn closes the connection at
that. This worker logs it alike and keeps the connection, on which nginx may be sending the next request.

A release that is no longer the live one, and not yet told to stop, answers with `Connection: close` too: nginx would
otherwise go on sending requests to it, on connections that it keeps, for as long as there are requests.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time

from gunicorn.arbiter import Arbiter
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

LINGER = float(os.environ.get("FASTAPI_LINGER", "3.0"))
# The link that nginx connects to, and where it leads while this release is the live one. Unset when run by hand.
LIVE = os.environ.get("FASTAPI_LIVE", "")
SOCKET = os.environ.get("FASTAPI_RELEASE", "") + ".sock"
# Left of the graceful timeout for cutting what is open, and for the app's own shutdown, before the master kills.
LAST_SECONDS = 2
CLOSE = (b"connection", b"close")


def is_live():
    """Whether nginx sends requests here. Where there is nothing to tell by, it does."""
    try:
        return os.path.basename(os.readlink(LIVE)) == SOCKET
    except OSError:
        return True


def is_websocket(connection):
    return not hasattr(connection, "cycle")


def is_answering(connection):
    cycle = getattr(connection, "cycle", None)
    return cycle is not None and not cycle.response_complete


def keeping_connections(app):
    """The app, with exceptions after a complete answer logged instead of raised."""

    async def asgi(scope, receive, send):
        complete = False

        async def watched(message):
            nonlocal complete
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await app(scope, receive, watched)
        except Exception:
            if not complete:
                raise
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")

    return asgi


class LameDuckServer(Server):
    async def on_tick(self, counter):
        leave = await super().on_tick(counter)
        # Every second, as uvicorn makes these headers anew. A readlink costs a microsecond.
        if counter % 10 == 0 and not is_live():
            self._answer_with_close()
        return leave

    async def shutdown(self, sockets=None):
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        heartbeat = asyncio.ensure_future(self._heartbeat())
        try:
            await self._drain()
            await super().shutdown(sockets=[])
        finally:
            heartbeat.cancel()

    async def _drain(self):
        connections = self.server_state.connections
        self._answer_with_close()
        for connection in list(connections):
            if is_answering(connection):
                connection.shutdown()  # closes it after the answer
        begun = time.monotonic()
        grace = self.config.timeout_graceful_shutdown
        while connections and time.monotonic() < begun + grace and not self.force_exit:
            if time.monotonic() > begun + LINGER:
                for connection in list(connections):
                    if not is_websocket(connection) and not is_answering(connection):
                        connection.shutdown()
            await asyncio.sleep(0.05)
        self._report_cut(connections, grace)
        # Tasks may outlive their connections; what is left of the time is theirs.
        self.config.timeout_graceful_shutdown = max(begun + grace - time.monotonic(), 0.5)

    def _report_cut(self, connections, grace):
        websockets = sum(is_websocket(connection) for connection in connections)
        requests = sum(is_answering(connection) for connection in connections)
        if not websockets and not requests:
            return
        line = {
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
            "level": "WARNING",
            "logger": "fastapi_worker",
            "pid": os.getpid(),
            "message": f"Cut after {grace:g} s: {requests} requests, {websockets} WebSockets",
            "cut_requests": requests,
            "cut_websockets": websockets,
        }
        # Not through logging: the app may have configured that as it likes.
        print(json.dumps(line), file=sys.__stderr__, flush=True)

    def _answer_with_close(self):
        state = self.server_state
        if CLOSE not in state.default_headers:
            state.default_headers = [*state.default_headers, CLOSE]

    async def _heartbeat(self):
        # uvicorn stops beating when it shuts down; without it the master kills a drain that outlasts `timeout`.
        while self.config.callback_notify is not None:
            await self.config.callback_notify()
            await asyncio.sleep(1)


class LameDuckWorker(UvicornWorker):
    async def _serve(self):
        self.config.app = keeping_connections(self.wsgi)
        if self.cfg.worker_connections:
            self.config.limit_concurrency = self.cfg.worker_connections
        # The master bounds a stop; nobody bounds a recycling, and one event stream would keep the worker's place.
        # Less than the master's own limit, so that what is cut is cut and counted here.
        self.config.timeout_graceful_shutdown = max(self.cfg.graceful_timeout - LAST_SECONDS, 1)
        server = LameDuckServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
