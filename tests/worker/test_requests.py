"""What one request leaves on a connection for the next one, who may be somebody else behind nginx: nothing."""

from __future__ import annotations

import base64
import json

import pytest
from test_worker import HERE, WORKER, Gunicorn, wait_for

# What uvicorn takes with and without its extra `standard`.
SERVERS = [("asyncio", "h11"), ("uvloop", "httptools"), ("asyncio", "httptools")]
WORKERS = """
from fastapi_worker import LameDuckWorker
class Worker(LameDuckWorker):
    CONFIG_KWARGS = {{"loop": {loop!r}, "http": {http!r}}}
"""
LOG = {
    "version": 1,
    "filters": {"request_id": {"()": "fastapi_worker.RequestId"}},
    "formatters": {"json": {"()": "pythonjsonlogger.json.JsonFormatter", "format": "%(message)s"}},
    "handlers": {"journal": {"class": "logging.StreamHandler", "filters": ["request_id"], "formatter": "json"}},
    "root": {"level": "WARNING", "handlers": ["journal"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["journal"], "propagate": False}},
}


@pytest.fixture(scope="module", params=SERVERS, ids="-".join)
def server(request, tmp_path_factory):
    loop, http = request.param
    gunicorn = Gunicorn(tmp_path_factory.mktemp("requests"))
    (gunicorn.directory / "servers.py").write_text(WORKERS.format(loop=loop, http=http))
    gunicorn.start(
        {"PYTHONPATH": f"{WORKER}:{HERE}:{gunicorn.directory}", "FASTAPI_LINGER": "0"},
        wsgi_app="contexts:app",
        worker_class="servers.Worker",
        logconfig_dict=LOG,
    )
    yield gunicorn
    gunicorn.kill()


class Client:
    """A connection as nginx keeps it, on which bytes are sent as they are."""

    def __init__(self, server: Gunicorn):
        connection = server.connect()
        connection.connect()
        self.socket, self.read = connection.sock, b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, str] | None:
        """Status and body of the next answer; None where the server has closed the connection."""
        self.socket.settimeout(5)
        if not self.more(lambda: b"\r\n\r\n" in self.read):
            return None
        head, self.read = self.read.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").lower().split("\r\n")
        length = sum(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        self.more(lambda: len(self.read) >= length)
        body, self.read = self.read[:length], self.read[length:]
        return int(lines[0].split()[1]), body.decode()

    def more(self, enough) -> bool:
        while not enough():
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                return False
            if not data:
                return False
            self.read += data
        return True


def request(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_a_request_with_a_large_body_does_not_give_its_user_to_the_next_one(server):
    """uvicorn stops reading while an app is slow, and resumes in the task of the request: asyncio keeps its context."""
    client = Client(server)
    client.send(request("/first", b"x" * 300_000, "X-User: alice", "X-Request-Id: one"))
    assert client.answer() == (200, "nobody shop 300000 /first")
    client.send(request("/next"))
    assert client.answer() == (200, "nobody shop 0 /next")


def test_requests_sent_at_once_do_not_share_their_context(server):
    client = Client(server)
    client.send(request("/1", b"", "X-User: alice", "X-Request-Id: id-1") + request("/2") + request("/3"))
    assert [client.answer() for _ in range(3)] == [(200, f"nobody shop 0 /{number}") for number in (1, 2, 3)]
    lines = wait_for(lambda: logged(server, "request of"))
    assert {line.get("request_id") for line in lines if line["message"] == "request of nobody"} == {None}


def test_a_websocket_takes_nothing_from_the_request_before_it(server):
    client = Client(server)
    client.send(request("/first", b"x" * 300_000, "X-User: alice", "X-Request-Id: one"))
    client.answer()
    key = base64.b64encode(bytes(16)).decode()
    client.send(
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    assert client.answer()[0] == 101
    client.send(b"\x81\x80" + bytes(4))
    assert client.more(lambda: b"nobody" in client.read)
    assert [line.get("request_id") for line in logged(server, "websocket")][-1] is None
    client.socket.close()


def logged(server: Gunicorn, message: str) -> list[dict]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"].startswith(message)]


def test_a_body_that_nobody_reads_is_not_taken_for_a_request(server):
    client = Client(server)
    hidden = request("/hidden")
    client.send(request("/unread", hidden)[: -len(hidden)])
    assert client.answer() == (200, "nobody shop 0 /unread")
    try:
        client.send(hidden + request("/next"))
        answer = client.answer()
    except ConnectionError:
        answer = None
    assert answer in (None, (200, "nobody shop 0 /next"))
