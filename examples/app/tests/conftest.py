"""Fixtures: the app in this process, in a server, and a Redis."""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.support import Server, free_port, wait_until

REDIS = shutil.which("redis-server")


def pytest_report_header() -> str:
    return f"redis-server: {REDIS or 'not installed: tests marked `redis` are DESELECTED'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if REDIS is None:
        deselected = [item for item in items if "redis" in item.keywords]
        items[:] = [item for item in items if "redis" not in item.keywords]
        config.hook.pytest_deselected(items=deselected)


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


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*options: str, command: str = "gunicorn", app: str = "app.main:app", **env: str) -> Server:
        server = Server(tmp_path, command, app, *options, **env)
        servers.append(server)
        wait_until(server.is_ready, "the server is ready")
        return server

    yield start
    for server in servers:
        print(server.log.read_text())  # shown when the test has failed
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
