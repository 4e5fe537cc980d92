# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uvicorn's worker for gunicorn with a lame-duck shutdown.

The stock worker closes idle connections the moment it is told to stop. nginx may just then be sending a request on
one of them, and a POST already sent is not sent again: the user gets a 502. This worker closes its listener, answers
what still arrives with `Connection: close`, and closes idle connections only after LINGER seconds, which is longer
than nginx keeps an idle connection to an upstream. So nginx always lets go first.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from gunicorn.arbiter import Arbiter
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

LINGER = float(os.environ.get("FASTAPI_LINGER", "3.0"))


class LameDuckServer(Server):
    async def shutdown(self, sockets=None):
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        heartbeat = asyncio.ensure_future(self._heartbeat())
        try:
            await self._linger()
            await super().shutdown(sockets=[])
        finally:
            heartbeat.cancel()

    async def _linger(self):
        state = self.server_state
        state.default_headers = [*state.default_headers, (b"connection", b"close")]
        for connection in list(state.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                connection.shutdown()  # a request in flight: answer it, then close
        deadline = time.monotonic() + LINGER
        while state.connections and time.monotonic() < deadline and not self.force_exit:
            await asyncio.sleep(0.05)

    async def _heartbeat(self):
        # uvicorn stops beating when it shuts down; without it the master kills a drain that outlasts `timeout`.
        while self.config.callback_notify is not None:
            await self.config.callback_notify()
            await asyncio.sleep(1)


class LameDuckWorker(UvicornWorker):
    async def _serve(self):
        self.config.app = self.wsgi
        if self.cfg.worker_connections:
            self.config.limit_concurrency = self.cfg.worker_connections
        # The master bounds a stop; nobody bounds a recycling, and one event stream would keep the worker's place.
        # Less than the master's own limit, so that what is cut is cut and logged here.
        self.config.timeout_graceful_shutdown = max(self.cfg.graceful_timeout - LINGER - 1, 1)
        server = LameDuckServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
