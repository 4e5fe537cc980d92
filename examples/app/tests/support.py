"""What the fixtures and tests are made of."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import httpx2

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class Server:
    """The app in a server of its own, on a unix socket: as in production under gunicorn, or as in development."""

    GUNICORN = ("gunicorn", "--worker-class=uvicorn_worker.UvicornWorker", "--forwarded-allow-ips=*")
    COMMANDS: ClassVar = {
        "gunicorn": (*GUNICORN, "--no-control-socket", "--preload", "--bind=unix:{socket}"),
        "gunicorn without preload": (*GUNICORN, "--no-control-socket", "--bind=unix:{socket}"),
        "uvicorn": ("uvicorn", "--uds={socket}"),
    }

    def __init__(self, directory: Path, command: str, app: str, *options: str, **env: str) -> None:
        self.socket = directory / "app.sock"
        self.log = directory / "log"
        transport = httpx2.HTTPTransport(uds=str(self.socket))
        self.http = httpx2.Client(transport=transport, base_url="http://localhost", timeout=30)
        words = [word.format(socket=self.socket) for word in self.COMMANDS[command]]
        command = [sys.executable, "-m", *words, *options, app]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, stdout=log, stderr=log)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.socket)) != 0:
                return False
        return self.http.get("/health/ready").status_code == 200

    def log_lines(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def logged(self, message: str) -> list[dict]:
        return [line for line in self.log_lines() if line["message"] == message]

    def stop(self) -> float:
        """Stop gracefully; how long it took, in seconds."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            # uvicorn ends by the signal itself, after it has stopped gracefully.
            assert self.process.wait(timeout=40) in (0, -signal.SIGTERM), self.log.read_text()
        finally:
            self.process.kill()
        return time.monotonic() - start
