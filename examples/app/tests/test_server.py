"""The app in a real server: logs, streams, and how it stops."""

import socket
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

from tests.support import wait_until


@pytest.mark.parametrize("command", ["gunicorn", "gunicorn without preload"])
def test_sees_what_the_proxy_forwards(serve, command):
    server = serve("--workers=2", command=command)
    forwarded = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Request-ID": "request-0001"}
    me = server.http.get("/whoami", headers=forwarded).json()
    assert (me["client"], me["scheme"], me["host"]) == ("192.0.2.7", "https", "localhost")
    assert me["pid"] != server.process.pid


@pytest.mark.parametrize("command", ["gunicorn", "uvicorn"])
def test_every_log_line_is_json_from_boot_to_stop(serve, command):
    server = serve(command=command)
    server.http.get("/whoami", headers={"X-Request-ID": "not well formed"})
    server.stop()
    lines = server.log_lines()  # fails on a line that is not JSON
    loggers = {line["logger"] for line in lines}
    assert {"app.main", "uvicorn.error", "asgi_correlation_id"} <= loggers
    assert ("gunicorn.error" in loggers) == (command == "gunicorn")
    assert all({"timestamp", "level", "message", "process", "request_id"} <= line.keys() for line in lines)
    assert not any("color_message" in line for line in lines)
    assert not any("/whoami" in line["message"] for line in lines), "requests are logged by nginx"


def test_error_is_one_log_line_with_traceback_and_the_request_id_of_the_answer(serve, tmp_path):
    (tmp_path / "broken.py").write_text(
        "from app.main import app\n@app.get('/broken')\nasync def broken(): raise RuntimeError('over\\ntwo lines')\n"
    )
    server = serve(f"--pythonpath={tmp_path}", app="broken:app")
    answer = server.http.get("/broken", headers={"X-Request-ID": "request-0001"})
    assert answer.status_code == 500
    assert answer.headers.get_list("x-request-id") == ["request-0001"]
    assert "RuntimeError" not in answer.text
    server.stop()
    (line,) = [line for line in server.log_lines() if line["level"] == "ERROR"]
    assert line["request_id"] == "request-0001"
    assert line["exc_info"].startswith("Traceback")
    assert line["exc_info"].endswith("RuntimeError: over\ntwo lines")


def test_events_arrive_as_they_happen_and_end_when_the_client_leaves(serve):
    server = serve(APP_LOG_LEVEL="DEBUG")
    with server.http.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        lines = answer.iter_lines()
        assert next(lines) == "event: heartbeat"
        while next(lines) != "id: 2":
            pass
        assert not server.logged("Event stream ended")
    wait_until(lambda: server.logged("Event stream ended") != [], "the generator has ended")


def test_stops_in_time_with_a_stream_a_websocket_and_a_slow_request_open(serve):
    server = serve("--graceful-timeout=30")
    slow = []
    thread = threading.Thread(target=lambda: slow.append(server.http.get("/slow", params={"seconds": 2})))
    with (
        server.http.stream("GET", "/events") as events,
        unix_connect(str(server.socket), "ws://localhost/ws") as websocket,
    ):
        websocket.send("hello")
        assert websocket.recv() == "hello"
        thread.start()
        time.sleep(1)
        assert server.stop() < 20
        thread.join()
        assert slow[0].json() == {"slept": 2.0}, "what was begun is finished"
        assert "event: heartbeat" in events.read().decode(), "the stream ends cleanly"
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv()
        assert closed.value.rcvd.code == 1012  # service restart: reconnect


def test_not_ready_while_it_shuts_down(serve):
    server = serve()
    # The worker that is told to stop still answers what arrives on an open connection, here behind a slow request.
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server.socket))
        connection.sendall(b"GET /slow?seconds=2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.3)
        connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        server.stop()
        received = connection.makefile("rb").read()
    assert b"200 OK" in received, "the slow request is finished"
    assert b"503 Service Unavailable" in received
    assert b"shutting down" in received


def test_a_bad_setting_stops_the_start_and_says_which(serve):
    with pytest.raises(AssertionError, match="log_level"):
        serve(APP_LOG_LEVEL="loud")
