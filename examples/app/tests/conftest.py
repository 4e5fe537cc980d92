import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[1]
REDIS = shutil.which("redis-server")


def pytest_report_header() -> str:
    return f"redis-server: {REDIS or 'not installed: tests marked `redis` are DESELECTED'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if REDIS is None:
        deselected = [item for item in items if "redis" in item.keywords]
        items[:] = [item for item in items if "redis" not in item.keywords]
        config.hook.pytest_deselected(items=deselected)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def make_client() -> Iterator[Callable[..., TestClient]]:
    """A client of the app in this process, for the given settings."""
    with contextlib.ExitStack() as stack:

        def make(raise_server_exceptions: bool = True, **settings: object) -> TestClient:
            app = create_app(Settings(allowed_hosts=["testserver"], **settings))
            return stack.enter_context(TestClient(app, raise_server_exceptions=raise_server_exceptions))

        yield make


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client()


class Server:
    """The app as in production: gunicorn with one uvicorn worker on a unix socket."""

    def __init__(self, directory: Path, *options: str, app: str = "app.main:app", **env: str) -> None:
        self.socket = directory / "app.sock"
        self.log = directory / "log"
        self.http = httpx2.Client(transport=httpx2.HTTPTransport(uds=str(self.socket)), base_url="http://localhost")
        command = [sys.executable, "-m", "gunicorn", app, "--worker-class=uvicorn_worker.UvicornWorker"]
        command += [f"--bind=unix:{self.socket}", "--forwarded-allow-ips=*", "--no-control-socket", *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, stdout=log, stderr=log)
        wait_until(self.is_ready, f"the server is ready; its log:\n{self.log.read_text()}")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.socket.exists() and self.http.get("/health/ready").status_code == 200

    def log_lines(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def logged(self, message: str) -> list[dict]:
        return [line for line in self.log_lines() if line["message"] == message]

    def stop(self) -> float:
        """Stop gracefully; how long it took, in seconds."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(timeout=20) == 0, self.log.read_text()
        finally:
            self.process.kill()
        return time.monotonic() - start


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*options: str, preload: bool = True, **arguments: str) -> Server:
        servers.append(Server(tmp_path, *(["--preload"] if preload else []), *options, **arguments))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()
        server.http.close()


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [REDIS, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def is_up() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    try:
        wait_until(is_up, "redis-server listens")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()
