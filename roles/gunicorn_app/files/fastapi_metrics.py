# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker counts of its requests, without the app doing anything for it.

Each worker adds up by itself, and once a second sends what is new in DogStatsD lines to a unix datagram socket; whoever
listens there adds up over workers and releases. Nothing of it waits: a datagram that is not taken is kept, added to,
and sent later, so that without a listener there is no more than one number for each kind of request.

An answer counts when its last byte is handed over. Event streams and WebSockets may last for hours: they count when
they begin, with the time that took, and are then a number of open streams. Their time does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import mmap
import os
import socket
import time
from bisect import bisect_left

try:
    from starlette.routing import Mount
except ImportError:  # another framework: it tells of no routes
    Mount = ()

# Upper ends of a histogram's buckets in seconds, and one without an end.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BUCKETS = len(BOUNDS) + 1
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER = "other"
# An app that makes routes as it goes does not fill the memory of everybody else.
MOST_ROUTES = 500
# A datagram that every kernel takes whole.
MOST_BYTES = 8000
INTERVAL = 1.0
# While another app floods the listener, its queue has room for moments only: so often in a second one is tried.
TRIES = 10
STATES = ("starting", "serving", "draining")
# In the place of a status where an app never answered, as with an exception.
FAILED = 500
UNSAFE = str.maketrans(dict.fromkeys(",|#:\n\r\t", "_"))


class Socket:
    """The listener's. It may come, go and come back."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)

    def send(self, text):
        """Whether it was taken."""
        try:
            # By path each time: after its restart the listener is another one.
            self.socket.sendto(text.encode(), self.path)
        except OSError:
            return False
        return True


def datagrams(items):
    """Pairs of key and lines, packed into as few datagrams as they fit into: (text, keys)."""
    keys, texts, size = [], [], 0
    for key, text in items:
        if texts and size + len(text) > MOST_BYTES:
            yield "\n".join(texts), keys
            keys, texts, size = [], [], 0
        keys.append(key)
        texts.append(text)
        size += len(text) + 1
    if texts:
        yield "\n".join(texts), keys


def label(text):
    """A value that cannot end its tag."""
    return str(text).translate(UNSAFE)


def route_of(scope):
    """The template of the route that answers, such as /items/{item_id}; never what somebody asked for."""
    route = scope.get("route") or named_by_endpoint(scope)
    if route is None:
        return OTHER
    # A router that FastAPI includes leaves its routes as they are, and notes beside them where they are found.
    noted = scope.get("fastapi")
    context = noted.get("effective_route_context") if isinstance(noted, dict) else None
    if context is not None and getattr(context, "original_route", None) is route:
        path = context.path_format
    else:
        path = getattr(route, "path_format", None) or getattr(route, "path", None)
    if not isinstance(path, str):
        return OTHER
    root, outer = scope.get("root_path", ""), scope.get("app_root_path", "")
    if root == outer or "app_root_path" not in scope:
        return path or "/"
    return mounted(root[len(outer) :], scope.get("path_params") or {}, "/{path}" if isinstance(route, Mount) else path)


# By the id of an endpoint: the endpoint, which so keeps its id, and its route.
ENDPOINTS = {}


def named_by_endpoint(scope):
    """FastAPI names its own routes only. The others, and what is mounted, are found by what answers."""
    endpoint, router = scope.get("endpoint"), scope.get("router")
    if endpoint is None or router is None:
        return None
    known = ENDPOINTS.get(id(endpoint))
    if known is None and len(ENDPOINTS) < MOST_ROUTES:
        known = ENDPOINTS[id(endpoint)] = (endpoint, find_route(router.routes, endpoint))
    return known[1] if known else None


def find_route(routes, endpoint):
    for route in routes:
        answers = getattr(route, "app" if isinstance(route, Mount) else "endpoint", None)
        found = route if answers is endpoint else find_route(getattr(route, "routes", None) or (), endpoint)
        if found is not None:
            return found
    return None


def mounted(prefix, params, path):
    """A path below the place where an app is mounted, which is known as it was asked for: its parameters go back in."""
    values = {str(value): name for name, value in params.items() if "{" + name + "}" not in path and name != "path"}
    parts = prefix.split("/")
    named = ["{" + values[part] + "}" if part in values else part for part in parts]
    if sum(one != other for one, other in zip(parts, named, strict=True)) != len(values):
        return OTHER  # a parameter that is not written as it was read
    return "/".join(named) + path


class Metrics:
    """What one worker has counted and not sent yet."""

    def __init__(self, send, tags):
        self.send = send
        self.tags = tags
        # By method, route and status: how many requests are in each bucket, then the seconds of each.
        self.requests = {}
        self.routes = set()
        self.in_flight = 0
        self.streams = {"sse": 0, "websocket": 0}
        self.state = STATES[0]
        # Whether the listener has taken all that there was.
        self.told = True

    def observe(self, scope, method, status, seconds):
        route = route_of(scope)
        if route not in self.routes:
            if len(self.routes) < MOST_ROUTES:
                self.routes.add(route)
            else:
                route = OTHER
        key = (method if method in METHODS else OTHER, route, status if 100 <= status <= 599 else FAILED)
        entry = self.requests.get(key)
        if entry is None:
            entry = self.requests[key] = [0] * BUCKETS + [0.0] * BUCKETS
        bucket = bisect_left(BOUNDS, seconds)
        entry[bucket] += 1
        entry[BUCKETS + bucket] += seconds

    def lines(self, key, entry):
        method, route, status = key
        tags = f"|#{self.tags['app']},method:{method},route:{label(route)},status:{status}"
        yield f"fastapi_http_requests_total:{sum(entry[:BUCKETS])}|c{tags}"
        for bucket in range(BUCKETS):
            count = entry[bucket]
            if count:
                # As many times their mean: it is in the same bucket, and makes the same sum.
                rate = f"|@{1 / count!r}" if count > 1 else ""
                yield f"fastapi_http_request_duration_seconds:{entry[BUCKETS + bucket] / count!r}|h{rate}{tags}"

    def gauges(self):
        tags = f"|#{self.tags['worker']}"
        yield f"fastapi_http_requests_in_flight:{self.in_flight}|g{tags}"
        for kind, count in self.streams.items():
            yield f"fastapi_streams_open:{count}|g{tags},kind:{kind}"
        for state in STATES:
            yield f"fastapi_workers:{int(state == self.state)}|g{tags},state:{state}"

    def flush(self):
        """Sends what is new. A generator: between two datagrams somebody may be answered."""
        counted, self.requests = self.requests, {}
        texts = ((key, "\n".join(self.lines(key, entry))) for key, entry in counted.items())
        for text, keys in datagrams(texts):
            if not self.send(text):
                break
            for key in keys:
                counted[key] = None
            yield
        for key, entry in counted.items():
            if entry is not None:
                new = self.requests.get(key)
                self.requests[key] = [a + b for a, b in zip(entry, new, strict=True)] if new else entry
        self.told = not self.requests and self.send("\n".join(self.gauges()))

    async def run(self):
        while True:
            for _try in range(TRIES):
                for _datagram in self.flush():
                    await asyncio.sleep(0)
                if self.told:
                    break
                await asyncio.sleep(INTERVAL / TRIES)
            await asyncio.sleep(INTERVAL)

    def end(self):
        """The last of it. A listener that has much to do has a moment for it."""
        self.state, self.in_flight, self.streams = "", 0, dict.fromkeys(self.streams, 0)
        for _try in range(10):
            for _datagram in self.flush():
                pass
            if not self.requests or not os.path.exists(self.send.__self__.path):
                return
            time.sleep(0.05)


def counted(app, metrics):
    """The app, with its answers counted."""

    async def http(scope, receive, send):
        begun = time.perf_counter()
        status, done, streams = 0, False, False
        metrics.in_flight += 1

        def count():
            nonlocal done
            done = True
            metrics.in_flight -= 1
            metrics.observe(scope, scope["method"], status or FAILED, time.perf_counter() - begun)

        async def watched(message):
            nonlocal status, streams
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
                if not done and is_event_stream(message):
                    streams = True
                    metrics.streams["sse"] += 1
                    count()
            elif not done and message["type"] == "http.response.body" and not message.get("more_body", False):
                count()

        try:
            await app(scope, receive, watched)
        finally:
            if not done:
                status = FAILED  # also where an answer breaks off
                count()
            if streams:
                metrics.streams["sse"] -= 1

    async def websocket(scope, receive, send):
        begun = time.perf_counter()
        done, accepted = False, False

        async def watched(message):
            nonlocal done, accepted
            await send(message)
            if not done and message["type"] in ANSWERS:
                done = True
                accepted = message["type"] == "websocket.accept"
                metrics.streams["websocket"] += accepted
                # As the client is answered: an app that closes before it has accepted says 403.
                status = message.get("status", 101 if accepted else 403)
                metrics.observe(scope, "GET", status, time.perf_counter() - begun)

        try:
            await app(scope, receive, watched)
        finally:
            if not done:
                metrics.observe(scope, "GET", FAILED, time.perf_counter() - begun)
            metrics.streams["websocket"] -= accepted

    async def asgi(scope, receive, send):
        if scope["type"] == "http":
            await http(scope, receive, send)
        elif scope["type"] == "websocket":
            await websocket(scope, receive, send)
        else:
            await app(scope, receive, send)

    return asgi


ANSWERS = frozenset(("websocket.accept", "websocket.close", "websocket.http.response.start"))


def is_event_stream(message):
    for name, value in message.get("headers", ()):
        if name.lower() == b"content-type":
            return value.startswith(b"text/event-stream")
    return False


def slot(directory):
    """A number that no other worker of this release has, and a later one will have again: 0, 1, ..."""
    if not directory:
        return os.getpid()
    # Given back by the kernel when the process ends, however it does; so it is not closed.
    descriptor = os.open(os.path.join(directory, "slots"), os.O_RDWR | os.O_CREAT, 0o600)
    for number in range(1024):
        with contextlib.suppress(OSError):
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            return number
    return os.getpid()


def of_worker(app, release):
    """The metrics of this process, or None where they are wanted by nobody."""
    path = os.environ.get("FASTAPI_METRICS", "")
    if not path:
        return None
    worker = f"app:{label(app)},release:{label(release)},worker:{slot(os.environ.get('RUNTIME_DIRECTORY', ''))}"
    return Metrics(Socket(path).send, {"app": f"app:{label(app)}", "worker": worker})


class Ends:
    """How workers end, as the master sees it.

    A worker notes in memory that it shares with the master how it ends; one that is killed notes nothing.
    """

    def __init__(self):
        path = os.environ.get("FASTAPI_METRICS", "")
        self.socket = Socket(path) if path else None
        self.unsent = {}
        self.out_of_memory = oom_kills()

    def count(self, app, worker, stopping):
        reason = self.reason(worker, stopping)
        self.unsent[reason] = self.unsent.get(reason, 0) + 1
        if self.socket:
            for reason, count in list(self.unsent.items()):
                if self.socket.send(f"fastapi_worker_exits_total:{count}|c|#app:{label(app)},reason:{reason}"):
                    del self.unsent[reason]

    def reason(self, worker, stopping):
        noted = worker.note.read()
        before, self.out_of_memory = self.out_of_memory, oom_kills()
        if noted not in ("", "serving"):
            return noted
        if not noted and stopping:
            return "stopped"  # by the signal, before it had learnt what to do then
        if worker.aborted:
            return "timeout"
        return "oom" if self.out_of_memory > before else "killed"


class Note:
    """A word that a worker leaves to its master."""

    def __init__(self):
        self.memory = mmap.mmap(-1, 16)

    def write(self, word):
        self.memory[:] = word.encode().ljust(16, b"\0")

    def read(self):
        return bytes(self.memory).rstrip(b"\0").decode()


def oom_kills():
    """How many processes of this cgroup the kernel has killed for memory; 0 where it does not tell."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/cgroup", encoding="ascii") as stream:
            found = [line.strip().split(":", 2) for line in stream]
        for number, controllers, path in found:
            unified = number == "0" and not controllers
            if not unified and "memory" not in controllers.split(","):
                continue
            name = path + "/memory.events" if unified else "/memory" + path + "/memory.oom_control"
            with contextlib.suppress(OSError), open("/sys/fs/cgroup" + name, encoding="ascii") as stream:
                values = dict(line.split() for line in stream)
                return int(values.get("oom_kill", 0))
    return 0
