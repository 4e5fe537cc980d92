#!/usr/bin/env python3
"""Users of the example app who notice everything: a load generator that checks every answer to its last byte.

It speaks HTTP and WebSocket by itself, on bare streams, because libraries hide what is to be seen: they send a request
again when its connection breaks, and take what came for a body when its end did not come.

What is a failure:

- a request of any kind: a status, body or length that is not the expected one; a connection that is refused, reset or
  closed before the answer is complete; no answer within a time.
- an event stream: the same, a missing or repeated event, silence, or an end without the last chunk. A stream that ends
  completely, after a whole event, and is taken up again at once, is a *reconnect*.
- a WebSocket: the same, an echo that differs, an end without a closing frame or with one that is neither 1012 (restart)
  nor 1001 (going away). With one of these two it is connected again at once: a *reconnect*. A message that had no echo
  yet is then sent again and must be answered, so none is lost.

A request on a connection that was used before, and is closed before any byte of the answer, is sent once more on a new
one, as browsers and curl do (RFC 9112, 9.3.1): a reload of nginx closes idle connections, and a request may just be on
its way. It is counted as *resent*, for the caller to judge.

By hand: load.py https://localhost:8443 --seconds 10
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import random
import re
import ssl
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3})(?: [^\r\n]*)?$")
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
RESTART, GOING_AWAY = 1012, 1001
# What users do most of the time, and how often; a POST in ten is larger than what nginx keeps in memory.
MIX = {"get": 60, "post": 25, "static": 15}
FAST = tuple(MIX)
POST_SIZES = [0, *[2_000] * 8, 200_000]


class Broken(Exception):
    """What a user would have noticed. `unanswered`: the connection ended before any byte of the answer."""

    def __init__(self, kind: str, detail: str, unanswered: bool = False) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail, self.unanswered = kind, detail, unanswered


class Ended(Exception):
    """A stream was ended by the server in the way that is allowed."""


def expect(holds: bool, kind: str, detail: object) -> None:
    if not holds:
        raise Broken(kind, str(detail)[:300])


@contextmanager
def noticing(during: str, unanswered: bool = False):
    """Turns what a stream raises into what a user notices."""
    try:
        yield
    except TimeoutError as exc:
        raise Broken("timeout", f"nothing more came, {during}") from exc
    except asyncio.IncompleteReadError as exc:
        raise Broken("truncated", f"closed {during}, after {exc.partial[-80:]!r}") from exc
    except ssl.SSLError as exc:
        raise Broken("tls", f"{exc} {during}", unanswered) from exc
    except OSError as exc:
        raise Broken("reset", f"{exc or type(exc).__name__} {during}", unanswered) from exc


# -- one connection ---------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError as exc:
            raise Broken("body", f"no JSON: {self.body[:200]!r}") from exc


class Connection:
    """HTTP/1.1 on one connection; after a handshake, WebSocket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader, self.writer, self.host = reader, writer, host
        self.used = False
        self.reusable = True

    def close(self) -> None:
        # Not waited for: a peer that does not answer the end of TLS would hold the client.
        self.writer.close()

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", *(f"{k}: {v}" for k, v in headers.items())]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        with noticing("while sending", unanswered=True):
            self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await self.writer.drain()

    async def head(self) -> Answer:
        with noticing("before the answer", unanswered=True):
            first = await self.reader.read(1)
        if not first:
            raise Broken("closed", "closed before the answer", unanswered=True)
        with noticing("in the answer's head"):
            head = first + await self.reader.readuntil(b"\r\n\r\n")
        start, *lines = head[:-4].split(b"\r\n")
        match = STATUS_LINE.match(start)
        expect(match is not None, "protocol", start)
        headers = {}
        for line in lines:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        self.used = True
        self.reusable = headers.get("connection", "").lower() != "close"
        return Answer(int(match[1]), headers)

    async def chunks(self):
        """The chunks of a chunked body; a body without its last chunk is truncated."""
        while True:
            with noticing("in a chunk's head"):
                line = await self.reader.readuntil(b"\r\n")
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise Broken("protocol", f"chunk size {line!r}") from None
            with noticing("in a chunk"):
                chunk = (await self.reader.readexactly(size + 2))[:-2]
            if not size:
                return
            yield chunk

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        await self.send(method, path, headers, body)
        answer = await self.head()
        if "content-length" in answer.headers:
            length = int(answer.headers["content-length"])
            with noticing(f"in a body of {length} bytes"):
                answer.body = await self.reader.readexactly(length)
        elif answer.headers.get("transfer-encoding") == "chunked":
            answer.body = b"".join([chunk async for chunk in self.chunks()])
        elif answer.status not in (204, 304):
            raise Broken("protocol", f"{answer.status}, and nothing says where the body ends")
        return answer

    # WebSocket (RFC 6455), as much of it as an echo needs

    async def upgrade(self, path: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
        }
        await self.send("GET", path, headers)
        answer = await self.head()
        expect(answer.status == 101, "status", f"{answer.status} instead of 101")
        wanted = base64.b64encode(hashlib.sha1(key.encode() + WEBSOCKET_GUID).digest()).decode()
        expect(answer.headers.get("sec-websocket-accept") == wanted, "protocol", answer.headers)

    async def send_frame(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        with noticing("while sending a message"):
            self.writer.write(bytes([0x80 | opcode]) + length + mask + masked)
            await self.writer.drain()

    async def frame(self) -> tuple[int, bytes]:
        with noticing("without a closing frame"):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            return first & 0x0F, await self.reader.readexactly(size)

    async def message(self) -> str:
        """The next message. `Ended` when the server closes as a server that restarts does."""
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT:
                return payload.decode()
            if opcode == PING:
                await self.send_frame(PONG, payload)
            elif opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big")
                with suppress(Broken):
                    await self.send_frame(CLOSE, payload[:2])
                expect(code in (RESTART, GOING_AWAY), "closed", f"WebSocket closed with {code} {payload[2:]!r}")
                raise Ended
            else:
                raise Broken("protocol", f"frame with opcode {opcode}")


# -- what is counted --------------------------------------------------------------------------------------------------


@dataclass
class Failure:
    at: float  # seconds since the load began
    clock: str
    what: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.at:8.2f} s ({self.clock}) {self.what}: {self.kind}: {self.detail}"


@dataclass
class Seen:
    """When a version of the app answered, by time.monotonic()."""

    times: list[float] = field(default_factory=list)

    @property
    def first(self) -> float:
        return self.times[0]

    @property
    def last(self) -> float:
        return self.times[-1]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


@dataclass
class Tally:
    """What the users saw in one phase. A request belongs to the phase in which it ends."""

    name: str
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    excused: list[Failure] = field(default_factory=list)  # those that the caller found to be promised by nobody
    resent: list[Failure] = field(default_factory=list)
    reconnects: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)  # on WebSockets and event streams
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    versions: dict[str, Seen] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return sum(map(len, self.latencies.values()))

    def failed(self, *kinds: str) -> list[Failure]:
        return [failure for failure in self.failures if not kinds or failure.what in kinds]

    def saw(self, version: str) -> None:
        self.versions.setdefault(version, Seen()).times.append(time.monotonic())

    @property
    def fast(self) -> list[float]:
        return [value for kind in FAST for value in self.latencies.get(kind, ())]

    HEADER = f"{'phase':<46}{'requests':>9}{'failed':>7}{'resent':>7}{'reconn.':>8}{'p50':>7}{'p99':>7}{'longest':>9}"

    def line(self, name: str = "") -> str:
        """A row of a table of phases; times in milliseconds, of fast requests."""
        p50, p99, longest = (percentile(self.fast, share) * 1000 for share in (0.5, 0.99, 1))
        return (
            f"{name or self.name:<46}{self.requests:>9}{len(self.failures):>7}{len(self.resent):>7}"
            f"{self.reconnects.total():>8}{p50:>7.0f}{p99:>7.0f}{longest:>9.0f}"
        )

    def report(self) -> str:
        lines = [f"{self.name}: {self.requests} requests, {len(self.failures)} failed, in {self.seconds:.1f} s"]
        failed, resent = (Counter(f.what for f in some) for some in (self.failures, self.resent))
        for kind in sorted({*self.latencies, *failed, *self.messages}):
            values = self.latencies.get(kind, [])
            row = f"  {kind:<8}{len(values):>8} requests {failed[kind]:>6} failed {resent[kind]:>4} resent"
            row += f" {self.reconnects[kind]:>4} reconnects {self.messages[kind]:>7} messages" * (kind in STREAMS)
            row += "".join(
                f"  {label} {percentile(values, share) * 1000:.0f} ms"
                for label, share in (("p50", 0.5), ("p99", 0.99), ("longest", 1))
            ) * (kind not in STREAMS)
            lines.append(row)
        lines += [f"  version {version} answered {len(seen.times)} times" for version, seen in self.versions.items()]
        for title, some in (("failures", self.failures), ("excused", self.excused), ("resent", self.resent)):
            if some:
                kinds = Counter(f"{failure.what}: {failure.kind}" for failure in some)
                lines.append(f"  {title}: " + ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common()))
                lines += [f"    {failure}" for failure in some[:10]]
        return "\n".join(lines)


# -- the users --------------------------------------------------------------------------------------------------------

STREAMS = ("ws", "sse")


class Load:
    """Users of the example app, in a thread of their own, from `with` to its end.

    `url` is where they connect, `host` the name that they ask for. `rate` fast requests a second, mixed by `mix`, come
    from `clients` that keep their connections and `fresh` ones that open one for each request; `slow` users ask for an
    answer that takes `slow_seconds`, again and again; `ws` and `sse` users stay connected. `static` are paths with
    their SHA-256; without one, the first answer is the measure.
    """

    def __init__(
        self,
        url: str,
        host: str | None = None,
        *,
        rate: float = 300,
        mix: dict[str, int] | None = None,
        clients: int = 16,
        fresh: int = 2,
        slow: int = 4,
        slow_seconds: float = 20,
        ws: int = 4,
        sse: int = 4,
        static: dict[str, str] | None = None,
        limit: float = 5,
        read_limit: float = 10,
    ) -> None:
        parts = urlsplit(url)
        self.address = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host = host or (parts.netloc if parts.port else parts.hostname)
        self.tls = None
        if parts.scheme == "https":
            # Whose certificate it is, is not this tool's question, and a placeholder signs itself.
            self.tls = ssl.create_default_context()
            self.tls.check_hostname = False
            self.tls.verify_mode = ssl.CERT_NONE
        self.rate, self.mix, self.clients, self.fresh = rate, mix or MIX, clients, fresh
        self.slow, self.slow_seconds, self.ws, self.sse = slow, slow_seconds, ws, sse
        self.static = dict(static or {"/static/app.js": ""})
        # A fast request, a connection, and a handshake have `limit` seconds; a stream may be silent for `read_limit`.
        self.limit, self.read_limit = limit, read_limit
        self.tally = Tally("start")
        self.tallies: list[Tally] = []
        self.began = time.monotonic()
        self._under_way: dict[object, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    # for the caller's thread

    def __enter__(self) -> Load:
        self.began = time.monotonic()
        self._thread.start()
        return self

    def stop(self) -> None:
        """No new requests; the end of `with` waits for those under way."""
        self._stopping.set()

    def __exit__(self, *_) -> None:
        self.stop()
        self._thread.join()
        self.phase("")

    def phase(self, name: str) -> Tally:
        """Begin a phase; what has been counted until now is the phase that ends."""
        ended, self.tally = self.tally, Tally(name)
        ended.seconds = time.monotonic() - ended.began
        self.tallies.append(ended)
        return ended

    def wait(self, requests: int, seconds: float = 60) -> None:
        """Until this phase has so many requests."""
        self._until(lambda: self.tally.requests >= requests, seconds, f"{requests} requests")

    def answered(self, seconds: float = 60) -> None:
        """Until all requests have ended that are under way now; they count in the phase in which they end."""
        now = time.monotonic()
        self._until(
            lambda: all(began > now for began in [*self._under_way.values()]), seconds, "the end of those under way")

    def _until(self, reached, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not {what} in {seconds} s: this phase has {self.tally.requests}")
            time.sleep(0.05)

    # the users themselves

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        fast = [self._fast(keep=n < self.clients) for n in range(self.clients + self.fresh)]
        slow = [self._slow() for _ in range(self.slow)]
        users = [asyncio.create_task(user) for user in [*fast, *slow]]
        streams = [self._stream("ws", self._websocket) for _ in range(self.ws)]
        streams += [self._stream("sse", self._events) for _ in range(self.sse)]
        streams = [asyncio.create_task(stream) for stream in streams]
        await loop.run_in_executor(None, self._stopping.wait)
        # Who waits for an answer gets it; streams have no end of their own.
        for done in asyncio.as_completed(users):
            await done
        for stream in streams:
            stream.cancel()
        for result in await asyncio.gather(*streams, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self.limit):
                server_hostname = self.host.partition(":")[0] if self.tls else None
                reader, writer = await asyncio.open_connection(
                    self.address, self.port, ssl=self.tls, server_hostname=server_hostname, limit=1 << 20
                )
        except TimeoutError as exc:
            raise Broken("timeout", f"no connection in {self.limit} s") from exc
        except ssl.SSLError as exc:
            raise Broken("tls", f"{exc} in the handshake") from exc
        except OSError as exc:
            raise Broken("refused", str(exc)) from exc
        return Connection(reader, writer, self.host)

    def _note(self, what: str, broken: Broken) -> Failure:
        now = time.monotonic() - self.began
        return Failure(now, time.strftime("%H:%M:%S"), what, broken.kind, broken.detail)

    async def _ask(self, keeper: list[Connection], what: str, *request, limit: float) -> Answer:
        """One request, on the connection in `keeper` if it holds one, which is then left there if it can be reused."""
        while True:
            connection = keeper.pop() if keeper else await self._connect()
            reused = connection.used
            try:
                with noticing(f"after {limit} s"):
                    async with asyncio.timeout(limit):
                        answer = await connection.ask(*request)
            except Broken as broken:
                connection.close()
                if not (broken.unanswered and reused):
                    raise
                self.tally.resent.append(self._note(what, broken))
                continue
            if connection.reusable:
                keeper.append(connection)
            else:
                connection.close()
            return answer

    async def _counted(self, what: str, user) -> None:
        """One request of a user; how it ended, and how long it took."""
        started = self._under_way[user] = time.monotonic()
        try:
            await user
        except Broken as broken:
            self.tally.failures.append(self._note(what, broken))
        finally:
            del self._under_way[user]
        self.tally.latencies[what].append(time.monotonic() - started)

    async def _fast(self, keep: bool) -> None:
        interval = (self.clients + self.fresh) / self.rate
        keeper: list[Connection] = []
        due = time.monotonic() + random.random() * interval
        while not self._stopping.is_set():
            await asyncio.sleep(due - time.monotonic())
            what = random.choices(list(self.mix), self.mix.values())[0]
            await self._counted(what, getattr(self, f"_{what}")(keeper))
            if not keep and keeper:
                keeper.pop().close()
            due = max(due + interval, time.monotonic())
        for connection in keeper:
            connection.close()

    async def _get(self, keeper: list[Connection]) -> None:
        id_ = os.urandom(8).hex()
        answer = await self._ask(keeper, "get", "GET", "/whoami", {"X-Request-ID": id_}, limit=self.limit)
        expect(answer.status == 200, "status", f"{answer.status} {answer.body!r}")
        data = answer.json()
        expect(isinstance(data, dict) and data.get("request_id") == id_, "body", f"not of request {id_}: {data}")
        self.tally.saw(str(data.get("version")))

    async def _post(self, keeper: list[Connection]) -> None:
        body = random.randbytes(random.choice(POST_SIZES))
        answer = await self._ask(keeper, "post", "POST", "/echo", {}, body, limit=self.limit)
        expect(answer.status == 200, "status", f"{answer.status} {answer.body!r}")
        expect(answer.body == body, "body", f"{len(answer.body)} bytes are not the {len(body)} that were sent")

    async def _static(self, keeper: list[Connection]) -> None:
        path = random.choice(list(self.static))
        answer = await self._ask(keeper, "static", "GET", path, {}, limit=self.limit)
        expect(answer.status == 200, "status", f"{answer.status} {answer.body[:200]!r}")
        found = hashlib.sha256(answer.body).hexdigest()
        self.static[path] = self.static[path] or found
        expect(found == self.static[path], "body", f"{path} is another file: {answer.body!r}")

    async def _slow(self) -> None:
        keeper: list[Connection] = []
        # Not all at once, so that at any time some are near their beginning and some near their end.
        seconds = self.slow_seconds * random.random()
        while not self._stopping.is_set():
            await self._counted("slow", self._sleep(keeper, seconds))
            seconds = self.slow_seconds
        for connection in keeper:
            connection.close()

    async def _sleep(self, keeper: list[Connection], seconds: float) -> None:
        path = f"/slow?seconds={seconds:.1f}"
        answer = await self._ask(keeper, "slow", "GET", path, {}, limit=seconds + self.limit)
        if answer.status != 200:
            await asyncio.sleep(0.2)  # who is refused at once would otherwise ask as fast as it can
        expect(answer.status == 200, "status", f"{answer.status} {answer.body!r}")
        expect(answer.json() == {"slept": float(f"{seconds:.1f}")}, "body", answer.body)

    async def _stream(self, what: str, use) -> None:
        """Use a stream; take it up again at once when it was ended as promised, and after a failure as well."""
        state: dict[str, str] = {}
        while not self._stopping.is_set():
            started = time.monotonic()
            connection = None
            try:
                connection = await self._connect()
                await use(connection, state)
            except Ended:
                self.tally.reconnects[what] += 1
            except Broken as broken:
                self.tally.failures.append(self._note(what, broken))
                await asyncio.sleep(0.2)
            finally:
                self.tally.latencies[what].append(time.monotonic() - started)
                if connection:
                    connection.close()

    async def _websocket(self, connection: Connection, state: dict[str, str]) -> None:
        with noticing("in the handshake"):
            async with asyncio.timeout(self.limit):
                await connection.upgrade("/ws")
        reading = asyncio.create_task(connection.message())
        try:
            while True:
                state["unanswered"] = sent = state.get("unanswered") or os.urandom(random.randint(1, 200)).hex()
                with suppress(Broken):  # that of the reading side says more
                    await connection.send_frame(TEXT, sent.encode())
                echo = await self._next(reading, self.limit)
                expect(echo == sent, "body", f"{echo!r} is not the echo of {sent!r}")
                del state["unanswered"]
                self.tally.messages["ws"] += 1
                reading = asyncio.create_task(connection.message())
                # A close must be seen now, and not with the next message.
                with suppress(TimeoutError):
                    unasked = await self._next(reading, random.uniform(0.1, 0.9), quiet=True)
                    raise Broken("body", f"a message that nobody asked for: {unasked!r}")
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, Broken, Ended):
                await reading

    async def _next(self, reading: asyncio.Task, seconds: float, quiet: bool = False) -> str:
        done, _ = await asyncio.wait({reading}, timeout=seconds)
        if done:
            return reading.result()
        if quiet:
            raise TimeoutError
        raise Broken("timeout", f"no echo within {seconds} s")

    async def _events(self, connection: Connection, state: dict[str, str]) -> None:
        with noticing("in the head of the stream"):
            async with asyncio.timeout(self.limit):
                await connection.send("GET", "/events", {"Accept": "text/event-stream"})
                answer = await connection.head()
        expect(answer.status == 200, "status", answer.status)
        expect(answer.headers.get("transfer-encoding") == "chunked", "protocol", answer.headers)
        text, number, chunks = "", 0, connection.chunks()
        while True:
            try:
                with noticing(f"within {self.read_limit} s"):
                    async with asyncio.timeout(self.read_limit):
                        text += (await anext(chunks)).decode()
            except StopAsyncIteration:
                expect(not text, "truncated", f"the stream ended within an event: {text!r}")
                raise Ended from None
            *events, text = text.split("\n\n")
            for event in events:
                fields = dict(line.partition(": ")[::2] for line in event.split("\n") if not line.startswith(":"))
                if fields:
                    number += 1
                    expect(fields.get("id") == str(number), "body", f"event {fields} instead of number {number}")
                    self.tally.messages["sse"] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Load on the example app; every answer is checked.")
    parser.add_argument("url", help="where it is, for example https://localhost:8443")
    parser.add_argument("--host", help="the name to ask for, where it is not that of the URL")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=300, help="fast requests a second")
    parser.add_argument("--slow-seconds", type=float, default=20, help="how long a slow request takes")
    options = parser.parse_args()
    with Load(options.url, options.host, rate=options.rate, slow_seconds=options.slow_seconds) as load:
        load.phase("load")
        with suppress(KeyboardInterrupt):
            time.sleep(options.seconds)
    tally = load.tallies[-1]
    print(tally.report())
    print(f"{tally.requests} requests, {len(tally.failures)} failed")
    return int(bool(tally.failures))


if __name__ == "__main__":
    sys.exit(main())
