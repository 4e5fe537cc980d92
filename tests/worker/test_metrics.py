"""What the worker tells of its requests, in a real gunicorn: the lines that somebody who listens gets."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from test_worker import Gunicorn, wait_for

COUNT = "fastapi_http_requests_total"
DURATION = "fastapi_http_request_duration_seconds"


class Listener:
    """Takes and adds up lines, as the exporter does. It can be away, and it can be deaf."""

    def __init__(self, path: Path):
        self.path = path
        self.counts: Counter[tuple] = Counter()
        self.observed: Counter[tuple] = Counter()
        self.sums: Counter[tuple] = Counter()
        self.gauges: dict[tuple, float] = {}
        self.lines: list[str] = []
        self.socket = None

    def start(self, listens: bool = True):
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        if listens:
            self.listen()

    def listen(self):
        threading.Thread(target=self._take, args=(self.socket,), daemon=True).start()

    def stop(self):
        self.path.unlink(missing_ok=True)

    def _take(self, sock):
        while True:
            for line in sock.recv(65536).decode().split("\n"):
                self._note(line)

    def _note(self, line: str):
        self.lines.append(line)
        name, value, kind, rate, tags = re.fullmatch(r"(\w+):([^|]+)\|(\w)(?:\|@([^|]+))?\|#(.*)", line).groups()
        labels = dict(tag.split(":", 1) for tag in tags.split(","))
        key = (name, *(labels[name] for name in sorted(labels) if name not in ("app", "release", "worker")))
        if kind == "c":
            self.counts[key] += int(value)
        elif kind == "h":
            times = round(1 / float(rate or 1))
            self.observed[key] += times
            self.sums[key] += times * float(value)
        else:
            self.gauges[(*key, labels["worker"])] = float(value)

    def of(self, name: str) -> dict[tuple, int]:
        return {key[1:]: count for key, count in self.counts.items() if key[0] == name}

    def total(self) -> int:
        return sum(self.of(COUNT).values())

    def gauge(self, *key: str) -> float:
        return sum(value for name, value in self.gauges.items() if name[:-1] == key)


@pytest.fixture
def listener(tmp_path: Path):
    return Listener(tmp_path / "statsd.sock")


@pytest.fixture
def gunicorn(tmp_path: Path, listener):
    server = Gunicorn(tmp_path)
    begin = server.start
    server.start = lambda environment=None, **settings: begin(
        {"FASTAPI_METRICS": str(listener.path), "FASTAPI_RELEASE": "one", **(environment or {})},
        **{"wsgi_app": "routes:app", "proc_name": "shop", **settings},
    )
    yield server
    server.kill()


def get(gunicorn, path: str, method: str = "GET") -> int:
    connection = gunicorn.connect()
    try:
        return connection.ask(path, method).status
    finally:
        connection.close()


def test_answers_are_counted_by_method_route_and_status(gunicorn, listener):
    listener.start()
    gunicorn.start()
    connection = gunicorn.connect()
    for path, method in (
        ("/items/1", "GET"),
        ("/items/2?token=secret", "GET"),
        ("/items/none", "GET"),
        ("/items", "POST"),
        ("/items", "DELETE"),
        ("/items", "PURGE"),
        ("/nothing/secret", "GET"),
        ("/v1/shop/orders/secret", "GET"),
        ("/part/pages/secret", "GET"),
        ("/of/7/pages/7", "GET"),
        ("/of/007/pages/secret", "GET"),
        ("/static/routes.py", "GET"),
        ("/static/secret", "GET"),
        ("/docs", "GET"),
    ):
        connection.ask(path, method)
    assert get(gunicorn, "/raises") == 500
    wait_for(lambda: listener.total() >= 15)
    assert listener.of(COUNT) == {
        ("GET", "/items/{item_id}", "200"): 2,
        ("GET", "/items/{item_id}", "422"): 1,
        ("POST", "/items", "200"): 1,
        ("DELETE", "/items", "405"): 1,
        ("other", "/items", "405"): 1,
        ("GET", "other", "404"): 1,
        ("GET", "/v1/shop/orders/{order}", "200"): 1,
        ("GET", "/part/pages/{page}", "200"): 1,
        ("GET", "/of/{customer}/pages/{page}", "200"): 1,
        ("GET", "other", "200"): 1,
        ("GET", "/static/{path}", "200"): 1,
        ("GET", "/static/{path}", "404"): 1,
        ("GET", "/docs", "200"): 1,
        ("GET", "/raises", "500"): 1,
    }
    assert "secret" not in "\n".join(listener.lines)


def test_an_answer_that_breaks_off_is_an_error(gunicorn, listener):
    listener.start()
    gunicorn.start()
    with pytest.raises(Exception, match=r"IncompleteRead|RemoteDisconnected|read, 0 bytes"):
        get(gunicorn, "/breaks")
    wait_for(lambda: listener.of(COUNT) == {("GET", "/breaks", "500"): 1})


def test_durations_are_those_of_the_answers(gunicorn, listener):
    listener.start()
    gunicorn.start()
    begun = time.monotonic()
    for _ in range(3):
        get(gunicorn, "/slow")
    seconds = time.monotonic() - begun
    key = (DURATION, "GET", "/slow", "200")
    wait_for(lambda: listener.observed[key] == 3)
    assert 0.9 <= listener.sums[key] <= seconds


def test_requests_in_flight_and_open_streams_are_gauges(gunicorn, listener):
    listener.start()
    gunicorn.start()
    stream = gunicorn.connect()
    stream.request("GET", "/events")
    assert stream.getresponse().read(1)
    wait_for(lambda: listener.gauge("fastapi_streams_open", "sse") == 1)
    # It counts from its beginning, and is not in flight all day.
    assert listener.of(COUNT) == {("GET", "/events", "200"): 1}
    assert listener.gauge("fastapi_http_requests_in_flight") == 0
    stream.sock.close()
    stream.close()
    wait_for(lambda: listener.gauge("fastapi_streams_open", "sse") == 0)


HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def test_websockets_count_when_they_are_answered(gunicorn, listener):
    listener.start()
    gunicorn.start()
    sockets = []
    for room, answer in (("secret", b" 101 "), ("closed", b" 403 ")):
        connection = gunicorn.connect()
        connection.connect()
        connection.sock.sendall(HANDSHAKE.format(path=f"/chat/{room}").encode())
        assert answer in connection.sock.recv(4096)
        sockets.append(connection)
    wait_for(lambda: listener.gauge("fastapi_streams_open", "websocket") == 1)
    assert listener.of(COUNT) == {("GET", "/chat/{room}", "101"): 1, ("GET", "/chat/{room}", "403"): 1}
    sockets[0].close()
    wait_for(lambda: listener.gauge("fastapi_streams_open", "websocket") == 0)


def test_no_request_is_lost_or_counted_twice_while_workers_are_recycled(gunicorn, listener):
    listener.start()
    gunicorn.start(workers=2, max_requests=100)
    sent = 0
    while gunicorn.log.read_text().count("Recycled after") < 3:
        for _ in range(50):
            get(gunicorn, "/items/1")
        sent += 50
    gunicorn.kill()
    wait_for(lambda: listener.total() >= sent)
    time.sleep(0.2)
    assert listener.of(COUNT) == {("GET", "/items/{item_id}", "200"): sent}
    assert listener.observed[(DURATION, "GET", "/items/{item_id}", "200")] == sent
    exits = listener.of("fastapi_worker_exits_total")
    assert exits[("recycled",)] >= 2
    assert set(exits) <= {("recycled",), ("stopped",)}


def test_what_nobody_takes_is_kept_until_somebody_does(gunicorn, listener):
    """Without a listener, with one that does not listen, and with another one after that."""
    gunicorn.start()
    for _ in range(30):
        assert get(gunicorn, "/items/1") == 200
    time.sleep(1.5)
    listener.start(listens=False)
    deadline = time.monotonic() + 3
    asked = 30
    while time.monotonic() < deadline:
        assert get(gunicorn, "/items/1") == 200
        asked += 1
        # Fills the socket's buffer: whoever waited for room there would wait for ever.
        filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        filler.setblocking(False)
        try:
            while True:
                filler.sendto(b"filler:0|c|#app:none", str(listener.path))
        except BlockingIOError:
            pass
    listener.listen()
    wait_for(lambda: listener.total() == asked)
    listener.stop()
    get(gunicorn, "/items/1")
    time.sleep(1.5)
    listener.start()
    wait_for(lambda: listener.total() == asked + 1)


def test_the_states_of_workers_are_known(gunicorn, listener):
    listener.start()
    gunicorn.start(workers=2)
    wait_for(lambda: listener.gauge("fastapi_workers", "serving") == 2)
    assert {key[-1] for key in listener.gauges if key[0] == "fastapi_workers"} == {"0", "1"}
    held = gunicorn.connect()
    held.ask("/items/1", "GET")
    gunicorn.stop()
    wait_for(lambda: listener.gauge("fastapi_workers", "draining") >= 1)
    gunicorn.process.wait(20)
    wait_for(lambda: sum(value for key, value in listener.gauges.items() if key[0] == "fastapi_workers") == 0)
    assert listener.of("fastapi_worker_exits_total") == {("stopped",): 2}


@pytest.mark.parametrize(("sign", "reason"), [(signal.SIGKILL, "killed"), (signal.SIGSTOP, "timeout")])
def test_a_worker_that_did_not_end_by_itself_is_counted_as_such(gunicorn, listener, sign, reason):
    listener.start()
    gunicorn.start(timeout=2)
    os.kill(int(gunicorn.workers().pop()), sign)
    wait_for(lambda: listener.of("fastapi_worker_exits_total") == {(reason,): 1}, 20)


def test_without_a_socket_nothing_is_counted(gunicorn, listener):
    listener.start()
    gunicorn.start({"FASTAPI_METRICS": ""})
    get(gunicorn, "/items/1")
    time.sleep(1.5)
    assert not listener.lines
