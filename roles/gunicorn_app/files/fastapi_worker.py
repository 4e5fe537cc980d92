# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uvicorn's worker for gunicorn with a lame-duck shutdown.

The stock worker closes idle connections the moment it is told to stop. nginx may just then be sending a request on
one of them, and a POST already sent is not sent again: the user gets a 502. This worker closes its listener, answers
what still arrives with `Connection: close`, and closes a connection only when it was idle for LINGER seconds, which is
longer than nginx keeps an idle connection to an upstream. So nginx always lets go first.

Requests, event streams and WebSockets that are open may go on until the graceful timeout. What does not end by then
is cut, counted, and reported in a line of the journal that the deploy reads.

A worker that has had its `max_requests` goes the same way. gunicorn starts the next one only when the last one is gone:
it asks the master for one more, serves until that one is ready, and drains; the hook `child_exit` takes that back.
They go one after the other, or there would be many more workers than were asked for.

A release that is no longer the live one, and not yet told to stop, answers with `Connection: close` too: nginx would
otherwise go on sending requests to it, on connections that it keeps, for as long as there are requests.

Frameworks answer an unhandled exception with a 500, and then raise it for the log; uvicorn closes the connection at
that. This worker logs it alike and keeps the connection, on which nginx may be sending the next request.

What is logged while a request is answered carries the id that nginx gave it, whether the app knows about ids or not.
Context variables that a request sets end with it.

Requests are counted, and so is how workers end: `fastapi_metrics`.
"""

from __future__ import annotations

import asyncio
import contextvars
import fcntl
import json
import logging
import os
import signal
import sys
import time

import fastapi_metrics
from gunicorn.arbiter import Arbiter
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

LINGER = float(os.environ.get("FASTAPI_LINGER", "3.0"))
# The link that nginx connects to, and where it leads while this release is the live one. Unset when run by hand.
LIVE = os.environ.get("FASTAPI_LIVE", "")
SOCKET = os.environ.get("FASTAPI_RELEASE", "") + ".sock"
# Held by the worker that is being recycled. Unset when run by hand: then each goes when it likes.
TURN = os.path.join(os.environ["RUNTIME_DIRECTORY"], "recycling") if "RUNTIME_DIRECTORY" in os.environ else ""
# A byte for each worker of this release that has become ready, and for each that has ended.
READY, ENDED = (os.path.join(os.environ.get("RUNTIME_DIRECTORY", ""), name) for name in ("ready", "ended"))
# Left of the graceful timeout for cutting what is open, and for the app's own shutdown, before the master kills.
LAST_SECONDS = 2
# Seconds that a worker has for its import. The deploy waits for `health.timeout`, and systemd for `timeout_start`.
IMPORT = 600
# Seconds between two heartbeats. The stock worker's are half of `timeout` apart, so that the master kills a worker that
# was held up for the other half.
HEARTBEAT = 1
CLOSE = (b"connection", b"close")
REQUEST_ID = contextvars.ContextVar("request_id", default="")


# The master's. Workers inherit it and leave it alone.
ENDS = fastapi_metrics.Ends()


def child_exit(server, worker):
    """gunicorn's hook: with a worker that is gone goes the place that it may have asked for."""
    tally(ENDED)
    server.num_workers = max(server.num_workers - 1, server.cfg.workers)
    if isinstance(worker, LameDuckWorker):
        # The master closes its sockets before it stops its workers.
        ENDS.count(server.cfg.proc_name, worker, stopping=not server.LISTENERS)


class RequestId(logging.Filter):
    """Gives each record of a request its id, unless the app has given it one."""

    def filter(self, record):
        if REQUEST_ID.get() and not hasattr(record, "request_id"):
            record.request_id = REQUEST_ID.get()
        return True


def isolated(protocol):
    """The protocol, with each request in a context of its own.

    uvicorn makes the task of a request in the context that is current then. That of an earlier request on the same
    connection is where requests are pipelined, and with asyncio's loop after a body of more than 64 kB: reading goes on
    in the task that has waited for it, and the loop keeps its context (python/cpython#140947). What that request has
    set, such as its user, the next one would see, and nginx may have it from another client.
    """
    # With what was set before there were requests.
    context = contextvars.copy_context()

    class Isolated(protocol):
        def data_received(self, data):
            context.copy().run(super().data_received, data)

        def on_response_complete(self):
            context.copy().run(super().on_response_complete)

    return Isolated


def note_request_id(scope):
    for name, value in scope.get("headers", ()):
        if name == b"x-request-id":
            # Until the task of this request ends, so that what the server logs after the app has it too.
            REQUEST_ID.set(value.decode("latin-1"))
            return


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
        note_request_id(scope)

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


def takes_turn():
    """Whether this worker may be recycled now; from then on no other may, until this process has ended."""
    if not TURN:
        return True
    descriptor = os.open(TURN, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    return True


def tally(path):
    """Count one more, for the worker that waits for its successor."""
    if TURN:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, b".")
        finally:
            os.close(descriptor)


def counted(path):
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


class HalfClosing:
    """A transport that, once it is to be closed, sends no more and still takes what comes.

    nginx reads to the end what was sent, and closes. If nothing were taken, nginx would find that out with a message
    of the client that is just on its way, and drop what it had not read.
    """

    def __init__(self, transport):
        self._transport = transport
        self._ended = False

    def close(self):
        if not self.is_closing():
            self._ended = True
            self._transport.write_eof()

    def is_closing(self):
        return self._ended or self._transport.is_closing()

    def write(self, data):
        if not self.is_closing():
            self._transport.write(data)

    def __getattr__(self, name):
        return getattr(self._transport, name)


class LameDuckServer(Server):
    max_requests = None
    # Whether another worker can be had for one that drains.
    replaceable = False
    recycled = False
    # How many workers had become ready, and how many had ended, when another one was asked for.
    asked = None
    metrics = None
    note = None

    async def startup(self, sockets=None):
        self.config.http_protocol_class = isolated(self.config.http_protocol_class)
        await super().startup(sockets=sockets)
        if self.started:
            tally(READY)
            self.note.write("serving")
            if self.metrics:
                self.metrics.state = "serving"

    async def on_tick(self, counter):
        leave = await super().on_tick(counter)
        if leave or counter % 10:
            return leave
        # Every second, as uvicorn makes these headers anew. A readlink costs a microsecond.
        if not is_live():
            self._answer_with_close()
        due = self.max_requests and self.server_state.total_requests >= self.max_requests
        if due and (self.asked or takes_turn()) and self._has_successor():
            logging.getLogger("uvicorn.error").info("Recycled after %d requests", self.server_state.total_requests)
            self.recycled = True
        return self.recycled

    def _has_successor(self):
        """Whether another worker is ready in this one's place, which is asked for first."""
        if not self.replaceable:
            return True
        ready, ended = counted(READY), counted(ENDED)
        if self.asked and ready > self.asked[0]:
            return True
        # With a worker that ended meanwhile, whichever it was, the place has gone that was asked for.
        if not self.asked or ended > self.asked[1]:
            self.asked = (ready, ended)
            os.kill(os.getppid(), signal.SIGTTIN)
        return not TURN

    async def shutdown(self, sockets=None):
        if self.metrics:
            self.metrics.state = "draining"
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        heartbeat = asyncio.ensure_future(self._heartbeat())
        try:
            if self.recycled:
                self._prepare_recycling()
            await self._drain()
            await super().shutdown(sockets=[])
        finally:
            heartbeat.cancel()
            # Here, as uvicorn ends the process by the signal that it was told to stop by.
            self.note.write("recycled" if self.recycled else "stopped")
            if self.metrics:
                self.metrics.end()

    def _prepare_recycling(self):
        # As when the master stops it: an app that listens for the signal ends its event streams.
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler):
            handler(signal.SIGTERM, None)
            getattr(self, "_captured_signals", []).clear()  # or uvicorn would raise it again, and be killed by it

    async def _drain(self):
        connections = self.server_state.connections
        self._answer_with_close()
        for connection in connections:
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_started:
                cycle.default_headers = [*cycle.default_headers, CLOSE]
        deadline = time.monotonic() + self.config.timeout_graceful_shutdown
        idle = {}
        while connections and time.monotonic() < deadline and not self.force_exit:
            now = time.monotonic()
            for connection in list(connections):
                if is_websocket(connection) or is_answering(connection):
                    idle.pop(connection, None)
                elif now - idle.setdefault(connection, now) > LINGER:
                    connection.shutdown()
            await asyncio.sleep(0.05)
        self._report_cut(connections)
        await self._end_websockets(connections)
        # Tasks may outlive their connections; what is left of the time is theirs.
        self.config.timeout_graceful_shutdown = max(deadline - time.monotonic(), 0)

    async def _end_websockets(self, connections):
        """Ask clients to connect again (1012), and have nginx close the connection."""
        asked = [connection for connection in connections if is_websocket(connection)]
        for connection in asked:
            connection.transport = HalfClosing(connection.transport)
            connection.shutdown()
        deadline = time.monotonic() + 1
        while connections.intersection(asked) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for connection in connections.intersection(asked):
            connection.transport.abort()
        if asked:
            await asyncio.sleep(0.02)

    def _report_cut(self, connections):
        websockets = sum(is_websocket(connection) for connection in connections)
        requests = sum(is_answering(connection) for connection in connections)
        if not websockets and not requests:
            return
        line = {
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
            "level": "WARNING",
            "logger": "fastapi_worker",
            "pid": os.getpid(),
            "message": f"Cut: {requests} requests, {websockets} WebSockets",
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
            await asyncio.sleep(HEARTBEAT)


class LameDuckWorker(UvicornWorker):
    def __init__(self, *args, **kwargs):
        # In the master, before the worker is a process of its own.
        self.note = fastapi_metrics.Note()
        super().__init__(*args, **kwargs)

    def load_wsgi(self):
        # Without preload each worker imports the app, and the master would kill one that takes longer than `timeout`.
        later = time.monotonic() + IMPORT
        os.utime(self.tmp.fileno(), (later, later))
        super().load_wsgi()
        self.notify()

    async def _serve(self):
        metrics = fastapi_metrics.of_worker(self.cfg.proc_name, os.environ.get("FASTAPI_RELEASE", ""))
        self.config.app = keeping_connections(self.wsgi)
        if metrics:
            self.config.app = fastapi_metrics.counted(self.config.app, metrics)
        if self.cfg.worker_connections:
            self.config.limit_concurrency = self.cfg.worker_connections
        # The master bounds a stop; nobody bounds a recycling, and one event stream would keep the worker's place.
        # Less than the master's own limit, so that what is cut is cut and counted here.
        self.config.timeout_graceful_shutdown = max(self.cfg.graceful_timeout - LAST_SECONDS, 1)
        self.config.timeout_notify = HEARTBEAT
        server = LameDuckServer(config=self.config)
        server.metrics, server.note = metrics, self.note
        server.max_requests, self.config.limit_max_requests = self.config.limit_max_requests, None
        server.replaceable = self.cfg.child_exit is child_exit
        self._install_sigquit_handler()
        sending = asyncio.ensure_future(metrics.run()) if metrics else None
        try:
            await server.serve(sockets=self.sockets)
        except BaseException:
            self.note.write("error")
            raise
        finally:
            if sending:
                sending.cancel()
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
