"""The load generator of the acceptance tests sees every way in which a server can fail a user."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "acceptance"))

from load import Load

SECONDS = 0.3  # in which the generator gives up


class Request:
    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body


def read_request(stream) -> Request | None:
    start = stream.readline().decode().split()
    if not start:
        return None
    headers = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    return Request(start[0], start[1], headers, stream.read(int(headers.get("content-length", 0))))


def reset(connection: socket.socket) -> None:
    """Close so that the client gets RST instead of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer(body: bytes, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n".encode() + body


def chunked(*chunks: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def right(request: Request) -> bytes:
    """What the example app would answer."""
    if request.path == "/whoami":
        return answer(json.dumps({"request_id": request.headers["x-request-id"], "version": "1"}).encode())
    if request.path == "/echo":
        return answer(request.body)
    if request.path.startswith("/slow"):
        return answer(json.dumps({"slept": float(request.path.split("=")[1])}).encode())
    return answer(b"a file")


def event(number: int) -> bytes:
    return f'event: heartbeat\ndata: {{"time": "now"}}\nid: {number}\n\n'.encode()


def handshake(request: Request, key: str | None = None) -> bytes:
    digest = hashlib.sha1(((key or request.headers["sec-websocket-key"]) + WEBSOCKET_GUID).encode()).digest()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n\r\n"
    ).encode()


WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def read_message(stream) -> bytes:
    head = stream.read(2)
    if len(head) < 2:
        raise ConnectionError("the client has gone")
    size = head[1] & 0x7F
    if size == 126:
        size = int.from_bytes(stream.read(2), "big")
    mask = stream.read(4)
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(stream.read(size)))


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + payload


def closing(code: int) -> bytes:
    return frame(8, code.to_bytes(2, "big") + b"reason")


class Server:
    """Serves each request of each connection with `behave`, which gets the socket and says whether it goes on."""

    def __init__(self, behave) -> None:
        self.behave = behave
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while (request := read_request(stream)) and self.behave(connection, stream, request):
                    pass
            except OSError:
                pass


@pytest.fixture
def load():
    """Runs the users that `counts` says against a server with a behaviour; what they saw."""
    servers = []

    def run(behave, seconds: float = 3, enough=lambda tally: tally.failures, **counts):
        servers.append(Server(behave))
        users = {"clients": 0, "fresh": 0, "slow": 0, "ws": 0, "sse": 0, **counts}
        generator = Load(servers[-1].url, rate=100, slow_seconds=0.1, limit=SECONDS, read_limit=SECONDS, **users)
        with generator as load:
            tally = load.tally
            deadline = time.monotonic() + seconds
            while not enough(tally) and time.monotonic() < deadline:
                time.sleep(0.01)
        return tally

    yield run
    for server in servers:
        server.listener.close()


USERS = {
    "get": {"clients": 1, "mix": {"get": 1}},
    "post": {"clients": 1, "mix": {"post": 1}},
    "static": {"clients": 1, "mix": {"static": 1}},
    "slow": {"slow": 1},
}


def sends(make):
    """A behaviour: send what `make` makes of the request, and close the connection."""

    def behave(connection, _stream, request):
        connection.sendall(make(request))
        return False

    return behave


def resets(make=lambda request: b""):
    def behave(connection, _stream, request):
        connection.sendall(make(request))
        time.sleep(0.02)  # what was sent arrives before the reset
        reset(connection)
        return False

    return behave


def hangs(make=lambda request: b""):
    def behave(connection, _stream, request):
        connection.sendall(make(request))
        time.sleep(2 * SECONDS)
        return False

    return behave


@pytest.mark.parametrize("what", USERS)
@pytest.mark.parametrize(
    "behave, kind",
    [
        (sends(lambda request: answer(b"no", "502 Bad Gateway")), "status"),
        (sends(lambda request: answer(b"no", "404 Not Found")), "status"),
        (sends(lambda request: answer(right(request), "206 Partial Content")), "status"),
        (sends(lambda request: b""), "closed"),
        (sends(lambda request: right(request)[:20]), "truncated"),
        (sends(lambda request: right(request)[:-1]), "truncated"),
        (sends(lambda request: chunked(right(request).split(b"\r\n\r\n", 1)[1])), "truncated"),
        (sends(lambda request: b"HTTP/1.1 200 OK\r\n\r\n" + right(request)), "protocol"),
        (sends(lambda request: b"nonsense\r\n\r\n"), "protocol"),
        (resets(), "reset"),
        (resets(lambda request: right(request)[:-1]), "reset"),
        (hangs(), "timeout"),
        (hangs(lambda request: right(request)[:-1]), "timeout"),
    ],
    ids=[
        *("502", "404", "206", "closed", "truncated head", "truncated body", "no last chunk", "no length", "nonsense"),
        *("reset", "reset in the body", "silence", "silence in the body"),
    ],
)
def test_a_broken_answer_is_seen(load, what, behave, kind):
    # An empty echo has no body to lose: another failure than the one that is meant may come first.
    tally = load(behave, enough=lambda tally: any(failure.kind == kind for failure in tally.failures), **USERS[what])
    assert kind in {failure.kind for failure in tally.failures}, tally.report()
    assert {failure.what for failure in tally.failures} == {what}


def other_file(request):
    other_file.asked = getattr(other_file, "asked", 0) + 1
    return answer(b"a file" if other_file.asked == 1 else b"b file")


@pytest.mark.parametrize(
    "what, make",
    [
        ("get", lambda request: answer(b'{"request_id": "of another", "version": "1"}')),
        ("get", lambda request: answer(b"<html>an error page</html>")),
        ("get", lambda request: answer(b"[]")),
        ("post", lambda request: answer(request.body[:-1] + b"x")),
        ("post", lambda request: answer(request.body * 2 + b"x")),
        ("slow", lambda request: answer(b'{"slept": 0.0001}')),
        ("static", other_file),
    ],
)
def test_a_wrong_body_is_seen(load, what, make):
    tally = load(sends(make), **USERS[what])
    assert {failure.kind for failure in tally.failures} == {"body"}, tally.report()


def test_a_server_that_is_not_there_is_seen(load):
    with Load("http://127.0.0.1:9", rate=100, clients=1, fresh=0, slow=0, ws=1, sse=1) as users:
        time.sleep(0.3)
    failures = users.tallies[-1].failures
    assert {failure.kind for failure in failures} == {"refused"}
    assert {failure.what for failure in failures} >= {"ws", "sse"}


def test_right_answers_are_no_failures(load):
    def behave(connection, _stream, request):
        connection.sendall(right(request))
        return True

    tally = load(behave, enough=lambda tally: len(tally.fast) > 60, clients=2, fresh=1, slow=1)
    assert not tally.failures and not tally.resent, tally.report()
    assert set(tally.latencies) == {"get", "post", "static", "slow"}
    assert len(tally.versions["1"].times) == len(tally.latencies["get"])


@pytest.mark.parametrize("end", ["closed", "reset"])
def test_an_idle_connection_that_is_closed_costs_a_resent_request(load, end):
    """Each connection serves one request, does not say that it will close, and closes when the next one comes."""
    served = set()

    def behave(connection, _stream, request):
        if connection in served:
            if end == "reset":
                reset(connection)
            return False
        served.add(connection)
        connection.sendall(right(request))
        return True

    tally = load(behave, enough=lambda tally: len(tally.resent) > 3, clients=1)
    assert not tally.failures, tally.report()
    assert len(tally.resent) > 3


def test_a_new_connection_is_given_no_second_try(load):
    tally = load(sends(lambda request: b""), fresh=1)
    assert tally.failures and not tally.resent


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behave, kind",
    [
        (sends(lambda request: answer(b"no", "502 Bad Gateway")), "status"),
        (sends(lambda request: b""), "closed"),
        (sends(lambda request: chunked(event(1))), "truncated"),
        (sends(lambda request: chunked(event(1)[:-3], b"")), "truncated"),
        (sends(lambda request: chunked(event(1), event(3), b"")), "body"),
        (sends(lambda request: chunked(event(1), event(1), b"")), "body"),
        (resets(lambda request: chunked(event(1))), "reset"),
        (hangs(lambda request: chunked(event(1))), "timeout"),
    ],
    ids=["502", "closed", "no last chunk", "half an event", "gap", "repeated", "reset", "silence"],
)
def test_a_broken_event_stream_is_seen(load, behave, kind):
    tally = load(behave, sse=1)
    assert {failure.kind for failure in tally.failures} == {kind}, tally.report()


def test_an_event_stream_that_ends_completely_is_taken_up_again(load):
    behave = sends(lambda request: chunked(event(1)[:9], event(1)[9:] + event(2), b""))
    tally = load(behave, enough=lambda tally: tally.reconnects["sse"] > 2, sse=1)
    assert not tally.failures, tally.report()
    assert tally.reconnects["sse"] > 2
    assert tally.messages["sse"] >= 6


def test_a_stream_that_cannot_be_taken_up_again_is_seen(load):
    asked = []

    def behave(connection, _stream, request):
        asked.append(request)
        connection.sendall(chunked(event(1), b"") if len(asked) == 1 else answer(b"no", "503 Service Unavailable"))
        return False

    tally = load(behave, sse=1)
    assert [failure.kind for failure in tally.failures][:1] == ["status"]
    assert tally.reconnects["sse"] == 1


def websocket(converse):
    """A behaviour: shake hands, then converse."""

    def behave(connection, stream, request):
        connection.sendall(handshake(request))
        converse(connection, stream)
        return False

    return behave


def echo(connection, stream, times: int = 1) -> None:
    for _ in range(times):
        connection.sendall(frame(1, read_message(stream)))


def echo_then(data: bytes):
    def converse(connection, stream):
        echo(connection, stream)
        connection.sendall(data)
        time.sleep(0.1)

    return websocket(converse)


def wrong_echo(connection, stream):
    connection.sendall(frame(1, read_message(stream)[::-1] + b"x"))
    time.sleep(0.1)


def no_echo(connection, stream):
    read_message(stream)
    time.sleep(2 * SECONDS)


def resets_websocket(connection, stream):
    echo(connection, stream)
    reset(connection)


@pytest.mark.parametrize(
    "behave, kind",
    [
        (sends(lambda request: answer(b"no", "502 Bad Gateway")), "status"),
        (sends(lambda request: answer(b"no")), "status"),
        (sends(lambda request: b""), "closed"),
        (sends(lambda request: handshake(request, "another key")), "protocol"),
        (websocket(echo), "truncated"),
        (websocket(resets_websocket), "reset"),
        (websocket(wrong_echo), "body"),
        (websocket(no_echo), "timeout"),
        (echo_then(frame(1, b"unasked")), "body"),
        (echo_then(closing(1011)), "closed"),
        (echo_then(closing(1006)), "closed"),
    ],
    ids=[
        *("502", "200", "closed", "another's handshake", "no closing frame", "reset", "wrong echo", "no echo"),
        *("unasked", "1011", "1006"),
    ],
)
def test_a_broken_websocket_is_seen(load, behave, kind):
    tally = load(behave, ws=1)
    assert {failure.kind for failure in tally.failures} == {kind}, tally.report()


@pytest.mark.parametrize("code", [1012, 1001])
def test_a_websocket_that_is_closed_for_a_restart_loses_no_message(load, code):
    """The second message of each connection is not echoed but answered by the close: it comes again on the next."""
    messages = []

    def converse(connection, stream):
        messages.append(read_message(stream))
        connection.sendall(frame(1, messages[-1]))
        messages.append(read_message(stream))
        connection.sendall(closing(code))
        time.sleep(0.05)

    tally = load(websocket(converse), enough=lambda tally: tally.reconnects["ws"] > 1, seconds=5, ws=1)
    assert not tally.failures, tally.report()
    assert tally.reconnects["ws"] > 1
    assert messages[1] == messages[2]


# -- what is told -----------------------------------------------------------------------------------------------------


def test_a_report_says_when_and_what(load):
    tally = load(sends(lambda request: answer(b"no such thing", "502 Bad Gateway")), **USERS["get"])
    text = tally.report()
    assert "get: status: 502 b'no such thing'" in text
    assert "1 failed" in text or f"{len(tally.failures)} failed" in text


def test_phases_divide_what_is_counted(load):
    def behave(connection, _stream, request):
        connection.sendall(right(request))
        return True

    server = Server(behave)
    with Load(server.url, rate=200, clients=2, fresh=0, slow=0, ws=0, sse=0) as users:
        users.phase("one")
        users.wait(20)
        one = users.phase("two")
        users.wait(10)
        assert users.tally.requests >= 10
    server.listener.close()
    assert [tally.name for tally in users.tallies] == ["start", "one", "two"]
    assert one.requests >= 20 and one.seconds > 0
