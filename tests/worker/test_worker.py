"""The worker in a real gunicorn, seen from the connections that nginx keeps to it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WORKER = HERE.parents[1] / "roles/gunicorn_app/files"
LINGER = 2
CONFIG = """
wsgi_app = "answering:app"
bind = "unix:{directory}/app.sock"
worker_class = "fastapi_worker.LameDuckWorker"
worker_tmp_dir = "/dev/shm"
control_socket_disable = True
graceful_timeout = 8
keepalive = 30
from fastapi_worker import child_exit
{settings}
"""


def wait_for(condition, seconds: float = 10):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return result


class Connection(http.client.HTTPConnection):
    """A connection that is kept, as nginx keeps its own."""

    def __init__(self, path: Path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))

    def ask(self, path: str = "/", method: str = "POST") -> http.client.HTTPResponse:
        """A POST, which nobody may send again. The answer's `text` is read."""
        self.request(method, path, body=b"x" if method == "POST" else None)
        answer = self.getresponse()
        answer.text = answer.read().decode()
        return answer

    def is_closed_within(self, seconds: float) -> bool:
        self.sock.settimeout(seconds)
        try:
            return self.sock.recv(1) == b""
        except TimeoutError:
            return False


class Gunicorn:
    def __init__(self, directory: Path):
        self.directory = directory
        self.log = directory / "log"
        self.process = None

    def start(self, environment: dict[str, str] | None = None, **settings) -> None:
        config = self.directory / "gunicorn.conf.py"
        lines = "\n".join(f"{name} = {value!r}" for name, value in {"workers": 1, **settings}.items())
        config.write_text(CONFIG.format(directory=self.directory, settings=lines), encoding="utf-8")
        environment = {
            "PYTHONPATH": f"{WORKER}:{HERE}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "FASTAPI_LINGER": str(LINGER),
            "RUNTIME_DIRECTORY": str(self.directory),
            **(environment or {}),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--config", config], env=environment, stderr=log
            )
        wait_for(lambda: self.log.read_text().count("Application startup complete") >= settings.get("workers", 1))

    def connect(self) -> Connection:
        return Connection(self.directory / "app.sock")

    def websocket(self) -> socket.socket:
        """A connection on which the handshake is over."""
        connection = self.connect()
        connection.connect()
        connection.sock.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" % base64.b64encode(bytes(16))
        )
        assert b" 101 " in connection.sock.recv(4096)
        return connection.sock

    def workers(self) -> set[str]:
        return set(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.process:
            self.stop()
            self.process.wait(30)


@pytest.fixture
def gunicorn(tmp_path: Path):
    server = Gunicorn(tmp_path)
    yield server
    server.kill()


def test_a_request_on_a_kept_connection_is_answered_after_the_stop(gunicorn):
    gunicorn.start()
    connection = gunicorn.connect()
    assert connection.ask().headers["connection"] is None
    gunicorn.stop()
    time.sleep(LINGER / 2)
    answer = connection.ask()
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_a_connection_is_closed_once_it_was_idle_for_longer_than_nginx_keeps_it(gunicorn):
    gunicorn.start()
    connection = gunicorn.connect()
    connection.ask()
    gunicorn.stop()
    assert not connection.is_closed_within(LINGER - 0.5)
    assert connection.is_closed_within(2)
    assert gunicorn.process.wait(5) == 0


@pytest.mark.parametrize("end", ["stopped", "recycled"])
def test_a_request_that_takes_longer_than_the_timeout_is_answered_in_the_drain(gunicorn, end):
    gunicorn.start(timeout=2, max_requests=3 if end == "recycled" else 0)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(gunicorn.connect().ask, "/slow/5")
        time.sleep(0.5)
        if end == "recycled":
            for _ in range(4):
                gunicorn.connect().ask()
            wait_for(lambda: "Recycled after" in gunicorn.log.read_text())
        else:
            gunicorn.stop()
        assert answer.result().status == 200
    assert "WORKER TIMEOUT" not in gunicorn.log.read_text()


def test_a_worker_shows_every_second_that_it_lives(gunicorn):
    """Or a worker that is held up for less than `timeout` is killed: the stock one shows it twice in that time."""
    gunicorn.start(timeout=30)
    (worker,) = gunicorn.workers()
    (file,) = [path for path in Path(f"/proc/{worker}/fd").iterdir() if "wgunicorn" in os.readlink(path)]
    shown = {file.stat().st_mtime}
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        time.sleep(0.1)
        shown.add(file.stat().st_mtime)
    assert len(shown) >= 4


def assert_asks_to_connect_again(frame: bytes) -> None:
    assert (frame[:1], frame[2:4]) == (b"\x88", (1012).to_bytes(2, "big"))


def test_what_outlasts_the_graceful_timeout_is_cut_and_counted(gunicorn):
    gunicorn.start(graceful_timeout=4)
    websocket = gunicorn.websocket()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(gunicorn.connect().ask, "/slow/30")
        time.sleep(0.5)
        gunicorn.stop()
        # Asked to connect again (RFC 6455 section 5.5.1; code 1012, service restart), not just cut off.
        assert_asks_to_connect_again(websocket.recv(4096))
        assert answer.result().status == 500
    gunicorn.process.wait(10)
    lines = [json.loads(line) for line in gunicorn.log.read_text().splitlines() if line.startswith("{")]
    assert [(line["cut_requests"], line["cut_websockets"]) for line in lines] == [(1, 1)]


def test_a_message_on_its_way_does_not_cost_a_websocket_its_closing_frame(gunicorn):
    """nginx that finds a connection closed for what it has to send does not look at what there is to be read."""
    gunicorn.start(graceful_timeout=4)
    websocket = gunicorn.websocket()
    gunicorn.stop()
    wait_for(lambda: "Cut: " in gunicorn.log.read_text())
    time.sleep(0.3)
    websocket.sendall(b"\x81\x82" + bytes(4) + b"hi")
    assert_asks_to_connect_again(websocket.recv(4096))
    assert websocket.recv(1) == b""
    websocket.close()
    gunicorn.process.wait(10)
    assert "Traceback" not in gunicorn.log.read_text()


def test_a_recycled_worker_answers_on_its_connections_while_another_has_its_place(gunicorn):
    gunicorn.start(max_requests=5)
    connection = gunicorn.connect()
    first = {connection.ask().text for _ in range(6)}
    wait_for(lambda: "Recycled after" in gunicorn.log.read_text())
    assert len(first) == 1
    second = wait_for(lambda: gunicorn.workers() - first)
    wait_for(lambda: gunicorn.connect().ask().text in second)
    answer = connection.ask()
    assert (answer.text in first, answer.headers["connection"]) == (True, "close")
    wait_for(lambda: not gunicorn.workers() & first)
    assert len(gunicorn.workers()) == 1


def test_the_only_worker_serves_until_the_next_one_is_ready(gunicorn):
    gunicorn.start({"SLOW_START": "3"}, max_requests=5)
    connection = gunicorn.connect()
    (first,) = {connection.ask().text for _ in range(6)}
    wait_for(lambda: len(gunicorn.workers()) == 2)
    answers = []
    while gunicorn.log.read_text().count("Application startup complete") < 2:
        begun = time.monotonic()
        answers.append(gunicorn.connect().ask().text)
        assert time.monotonic() - begun < 1, "a request waited for the next worker"
        time.sleep(0.05)
    assert set(answers) == {first} and len(answers) > 20
    wait_for(lambda: gunicorn.connect().ask().text != first)
    wait_for(lambda: len(gunicorn.workers()) == 1, 20)
    assert first not in gunicorn.workers()


def test_a_successor_that_ends_before_it_is_ready_is_asked_for_again(gunicorn, tmp_path):
    gunicorn.start({"SLOW_START": "2"}, max_requests=5)
    (first,) = {gunicorn.connect().ask().text for _ in range(6)}
    (second,) = wait_for(lambda: gunicorn.workers() - {first})
    os.kill(int(second), signal.SIGKILL)
    assert gunicorn.connect().ask().text == first
    wait_for(lambda: gunicorn.connect().ask().text not in {first, second}, 30)


def test_workers_that_are_due_together_are_recycled_one_after_the_other(gunicorn):
    gunicorn.start(workers=3, max_requests=5)
    original = gunicorn.workers()
    connections = [gunicorn.connect() for _ in range(12)]
    most = 0
    deadline = time.monotonic() + 60
    while gunicorn.workers() & original:
        assert time.monotonic() < deadline
        connections = [c if c.ask().headers["connection"] is None else gunicorn.connect() for c in connections]
        most = max(most, len(gunicorn.workers()))
        time.sleep(0.02)
    # One drains while another has its place, and the master takes a moment to notice that one has gone.
    assert 4 <= most <= 5


def test_a_release_that_is_no_longer_live_sends_its_connections_away(gunicorn, tmp_path):
    live = tmp_path / "live.sock"
    live.symlink_to("/run/app/new.sock")
    gunicorn.start({"FASTAPI_LIVE": str(live), "FASTAPI_RELEASE": "new"})
    connection = gunicorn.connect()
    time.sleep(1.5)
    assert connection.ask().headers["connection"] is None
    os.replace(new_link(tmp_path, "/run/app/newer.sock"), live)
    time.sleep(1.5)
    answer = connection.ask()
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def new_link(directory: Path, target: str) -> Path:
    link = directory / "link"
    link.symlink_to(target)
    return link


def test_an_exception_after_the_answer_keeps_the_connection_and_is_logged(gunicorn):
    gunicorn.start()
    connection = gunicorn.connect()
    for _ in range(2):
        assert connection.ask("/raises-after-its-answer").headers["connection"] is None
    wait_for(lambda: gunicorn.log.read_text().count("RuntimeError: on purpose") == 2)


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "fastapi_worker.RequestId"}},
    "formatters": {"json": {"()": "pythonjsonlogger.json.JsonFormatter", "format": "%(message)s"}},
    "handlers": {
        "all": {
            "class": "logging.StreamHandler",
            "formatter": "json",
            "filters": ["request_id"],
            "stream": "ext://sys.stderr",
        }
    },
    "root": {"level": "INFO", "handlers": ["all"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["all"], "propagate": False}},
}


def test_what_is_logged_while_a_request_is_answered_carries_its_id(gunicorn):
    """The request's own, on a connection that is kept, and nothing else any."""
    gunicorn.start(logconfig_dict=LOGGING)
    connection = gunicorn.connect()
    for headers in ({"X-Request-ID": "first-one"}, {}, {"X-Request-ID": "second-one"}):
        connection.request("GET", "/raises-after-its-answer", headers=headers)
        assert connection.getresponse().read()
    lines = wait_for(lambda: (text := gunicorn.log.read_text()).count('"exc_info"') >= 3 and text.splitlines())
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    raised = [entry.get("request_id") for entry in entries if "on purpose" in entry.get("exc_info", "")]
    assert raised == ["first-one", None, "second-one"]
    assert {entry.get("request_id") for entry in entries if "exc_info" not in entry} == {None}
