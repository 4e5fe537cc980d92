"""What an import leaves open, as the check of a release finds it, and what gunicorn then does."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_worker import Connection, wait_for

FILES = Path(__file__).parents[2] / "roles/gunicorn_app/files"
CONFIG = """
import os, pathlib, sys
RELEASE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, {files!r})
import fastapi_check
wsgi_app = {app!r}
chdir = str(RELEASE / "src")
bind = f"unix:{{RELEASE}}/app.sock"
worker_class = "fastapi_worker.LameDuckWorker"
worker_tmp_dir = "/dev/shm"
control_socket_disable = True
workers = 4
preload_app = fastapi_check.preload("{setting}", RELEASE / "preload.json"{unsafe})
{extra}
"""
CLEAN = """
async def app(scope, receive, send):
    pass
"""


class Release:
    """What of a release gunicorn needs, with an app of one or two files."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.log = directory / "log"
        self.process = None
        self.configure()

    def configure(self, app="shop.main:app", setting="auto", unsafe=False, extra="") -> None:
        text = CONFIG.format(
            files=str(FILES), app=app, setting=setting, unsafe=", unsafe=True" if unsafe else "", extra=extra
        )
        (self.directory / "gunicorn.conf.py").write_text(text, encoding="utf-8")

    def write(self, main: str, **others: str) -> None:
        package = self.directory / "src/shop"
        package.mkdir(parents=True)
        for name, text in {"__init__": "", "main": main, **others}.items():
            (package / f"{name}.py").write_text(text, encoding="utf-8")

    def environment(self, **environment: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "FASTAPI_LINGER": "0", **environment}

    def check(self, timeout: float = 30, **environment: str) -> tuple[int, dict, str]:
        """Exit code, result and output of the check."""
        result = self.directory / "result.json"
        command = [sys.executable, FILES / "fastapi_check.py", "--config", self.directory / "gunicorn.conf.py"]
        done = subprocess.run(
            [*command, "--result", result, "--timeout", str(timeout)],
            cwd=self.directory / "src",
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout + 20,
            text=True,
        )
        return done.returncode, json.loads(result.read_text()), done.stdout

    def findings(self, **environment: str) -> list[tuple[str, str]]:
        code, result, output = self.check(**environment)
        assert (code, result["loaded"]) == (0, True), output
        assert {item["stage"] for item in result["findings"]} <= {"import"}
        return [(item["where"], item["what"]) for item in result["findings"]]

    def start(self, until=None, **environment: str) -> None:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--config", self.directory / "gunicorn.conf.py"],
                cwd=self.directory,
                env=self.environment(**environment),
                stderr=log,
            )
        wait_for(until or self.serves, 20)

    def serves(self) -> bool:
        return self.log.read_text().count("Application startup complete") >= 4

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


@pytest.fixture
def release(tmp_path: Path):
    made = Release(tmp_path)
    yield made
    made.stop()


class Slow(socketserver.StreamRequestHandler):
    """A database: answers one question after the other, each with what was asked for."""

    def handle(self):
        for line in self.rfile:
            time.sleep(0.005)
            self.wfile.write(line)


@pytest.fixture
def database():
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield "{}:{}".format(*server.server_address)
        server.shutdown()


CONNECT = """
import os, socket

host, port = os.environ["DATABASE"].split(":")
connection = socket.create_connection((host, int(port)), timeout=2)
"""
OPENED = {
    "a thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='feed', daemon=True).start()",
        "started the thread 'feed' (time.sleep)",
    ),
    "an event loop": ("import asyncio\nloop = asyncio.new_event_loop()", "made an event loop or a selector"),
    "uvloop's loop": ("import uvloop\nloop = uvloop.new_event_loop()", "made an event loop or a selector"),
    "a database file": (
        "import sqlite3\nbase = sqlite3.connect('../shop.db')\nbase.execute('create table t (a)')",
        "opened the file {directory}/shop.db for writing",
    ),
    "a file that is read": (
        "rates = open('../gunicorn.conf.py')",
        "opened the file {directory}/gunicorn.conf.py",
    ),
    "a lock": (
        "import fcntl\nlock = open('../once', 'a')\nfcntl.flock(lock, fcntl.LOCK_EX)",
        "locked the file {directory}/once",
    ),
    "a process": (
        "import subprocess\nhelper = subprocess.Popen(['sleep', '1'])",
        "started the process 'sleep'",
    ),
    "a watcher": (
        "import ctypes\nwatch = ctypes.CDLL(None).inotify_init1(0o2000000)",
        "watches files (inotify)",
    ),
    "a listener": (
        "import socket\nadmin = socket.socket(socket.AF_UNIX)\nadmin.bind('\\0shop-admin')\nadmin.listen()",
        "listens on @shop-admin",
    ),
    "a queue": ("import multiprocessing\nqueue = multiprocessing.Queue()", "left a pipe open"),
    "a native thread": (
        "import _thread, time\n_thread.start_new_thread(time.sleep, (60,))",
        "started the native thread 'python",
    ),
    "a device": ("import os\nterminal = os.open('/dev/ptmx', os.O_RDWR)", "opened the device /dev/"),
    "a timer": ("import signal\nsignal.setitimer(signal.ITIMER_REAL, 600)", "set a timer (setitimer)"),
}
CLOSED = """
import fcntl, logging, logging.handlers, mmap, socket, subprocess, threading
from concurrent.futures import ThreadPoolExecutor

connection.close()
subprocess.run(["true"])
with ThreadPoolExecutor() as pool:
    list(pool.map(str, range(9)))
lazy = ThreadPoolExecutor()
logging.basicConfig(filename="../app.log")
statsd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
with open("../gunicorn.conf.py", "rb") as stream:
    data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
null = open("/dev/null", "w")
"""
# As OpenBLAS does it: unknown to Python, and ended by the fork.
POOL = """
import _thread, os, time

def work():
    while not stopped:
        time.sleep(0.001)

stopped = []
_thread.start_new_thread(work, ())
os.register_at_fork(before=lambda: stopped.append(True))
"""


def test_a_connection_is_found_with_its_peer_and_the_line_that_opened_it(release, database):
    release.write("from .db import connection\n" + CLEAN, db=CONNECT)
    assert release.findings(DATABASE=database) == [("shop/db.py line 5", f"opened a connection to {database}")]


def test_a_connection_of_a_factory_is_found(release, database):
    release.configure(app="shop.main:make()")
    release.write(f"{CLEAN}\ndef make():\n    from .db import connection\n    return app\n", db=CONNECT)
    assert release.findings(DATABASE=database) == [("shop/db.py line 5", f"opened a connection to {database}")]


def test_what_workers_must_not_share_is_found_and_who_opened_it(release):
    """One app that does all of it; each kind in a file of its own."""
    modules = {f"opened_{number}": code for number, (code, _what) in enumerate(OPENED.values())}
    release.write(f"from . import {', '.join(modules)}\n{CLEAN}", **modules)
    found = release.findings()
    missed = [
        kind
        for number, (kind, (_code, what)) in enumerate(OPENED.items())
        if not any(
            where.startswith(f"shop/opened_{number}.py") and fact.startswith(what.format(directory=release.directory))
            for where, fact in found
        )
    ]
    assert missed == []


def test_what_is_closed_again_or_may_be_shared_is_not_found(release, database):
    release.write(CONNECT + CLOSED + POOL + CLEAN)
    assert release.findings(DATABASE=database) == []


def test_what_the_configuration_opens_is_told_apart(release):
    release.configure(extra="import socket; listener = socket.create_server(('127.0.0.1', 0))")
    release.write(CLEAN)
    code, result, _output = release.check()
    assert (code, [item["stage"] for item in result["findings"]]) == (0, ["configuration"])


@pytest.mark.parametrize(
    ("app", "main", "error"),
    [
        ("shop.mian:app", "", "app: 'shop.mian:app' cannot be imported: No module named 'shop.mian'"),
        ("shop.main:ap", CLEAN, "app: Failed to find attribute 'ap' in 'shop.main'."),
        (
            "shop.main:app",
            "import nowhere",
            "app: 'shop.main:app' cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
        ),
        ("shop.main:app", "raise SystemExit(0)", "'shop.main:app' ends the process when it is imported: sys.exit(0)"),
        ("shop.main:app", "def app():\n    pass", "'shop.main:app' is a function without parameters."),
        ("shop.main:app", "import os; os._exit(0)", "the import of the app does not come to its end within 4 s"),
        ("shop.main:app", "import time; time.sleep(60)", "the import of the app does not come to its end within 4 s"),
    ],
)
def test_an_app_that_cannot_be_loaded_fails_the_check_with_the_cause(release, app, main, error):
    release.configure(app=app)
    release.write(main)
    code, result, output = release.check(timeout=4 if "sleep" in main or "_exit" in main else 20)
    assert error in result["error"]
    assert not result["loaded"]
    assert code == 1 or "os._exit" in main
    if main and "app" not in main and "_exit" not in main:
        assert "shop/main.py" in output  # the app's own traceback, or where it waits
    assert "fastapi_check.py" not in output or "sleep" in main


def test_an_app_that_disturbs_its_check_gets_no_other_result(release, database):
    release.write(
        CONNECT
        + 'print(\'{"format": 1, "loaded": true, "findings": []}\')\n'
        + "os.dup2(os.open('/dev/null', os.O_WRONLY), 1)\n"
        + "import sys, warnings\nsys.stdout = sys.stderr = None\nwarnings.simplefilter('error')\nos.chdir('/')\n"
        + "if not os.fork():\n    sys.exit()\n"
        + CLEAN
    )
    found = release.findings(DATABASE=database)
    assert ("shop/main.py line 5", f"opened a connection to {database}") in found


def test_a_process_that_the_app_forks_does_not_write_the_result(release):
    release.write("import os, time\nif os.fork():\n    time.sleep(0.3)\nelse:\n    raise SystemExit(1)\n" + CLEAN)
    assert release.findings() == []


ASKING = (
    CONNECT
    + """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    connection.sendall(scope["path"].encode() + b"\\n")
    answer = b""
    while not answer.endswith(b"\\n"):
        answer += connection.recv(100)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": answer.strip()})
"""
)


def answers_of_others(release: Release, requests: int) -> int:
    """How many requests get what another one has asked for, with status 200."""

    def ask(number: int) -> bool:
        try:
            answer = Connection(release.directory / "app.sock").ask(f"/{number}", "GET")
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200 and answer.text != f"/{number}"

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(ask, range(requests)))


def test_a_connection_that_is_shared_gives_requests_the_answers_of_others(release, database):
    release.configure(setting="true", unsafe=True)
    release.write(ASKING)
    release.start(DATABASE=database)
    wait_for(lambda: answers_of_others(release, 20), 20)


def test_with_auto_every_request_gets_its_own_answer(release, database):
    release.write(ASKING)
    assert release.findings(DATABASE=database)
    (release.directory / "preload.json").write_text('{"preload": false}')
    release.start(DATABASE=database)
    assert answers_of_others(release, 80) == 0
    assert "Starts again" not in release.log.read_text()


def test_a_master_that_opens_what_the_check_did_not_see_starts_again_without_preload(release, database):
    release.write(ASKING)
    (release.directory / "preload.json").write_text('{"preload": true}')
    release.start(DATABASE=database)
    log = release.log.read_text()
    assert f"Starts again without preload: the import of 'shop.main:app' opened a connection to {database}" in log
    assert answers_of_others(release, 80) == 0


def test_a_socket_of_systemd_survives_the_start_without_preload(release, database):
    """As systemd starts it: with the listener as descriptor 3, and the process' own id."""
    release.write(ASKING)
    (release.directory / "preload.json").write_text('{"preload": true}')
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(release.directory / "app.sock"))
    listener.listen()
    command = 'exec 3<&"$0"; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", release.directory / "gunicorn.conf.py"]
    with release.log.open("w") as log:
        release.process = subprocess.Popen(
            ["bash", "-c", command, str(listener.fileno()), *gunicorn],
            cwd=release.directory,
            env=release.environment(DATABASE=database),
            pass_fds=[listener.fileno()],
            stderr=log,
        )
    wait_for(release.serves, 20)
    listener.close()
    assert "Starts again" in release.log.read_text()
    assert answers_of_others(release, 20) == 0
    assert Connection(release.directory / "app.sock").ask("/1", "GET").text == "/1"


def test_a_clean_app_is_imported_once_with_auto(release):
    once = "import sys\nprint('imported once', file=sys.stderr, flush=True)\n"
    release.write(once + ASKING.replace(CONNECT, ""))
    assert release.findings() == []
    (release.directory / "preload.json").write_text('{"preload": true}')
    release.start()
    assert release.log.read_text().count("imported once") == 1


@pytest.mark.parametrize("content", [None, "", "[]", '{"preload": 1}'])
def test_without_a_result_an_app_is_not_preloaded(tmp_path, content, monkeypatch):
    monkeypatch.syspath_prepend(str(FILES))
    import fastapi_check

    if content is not None:
        (tmp_path / "preload.json").write_text(content)
    assert fastapi_check.preload("auto", tmp_path / "preload.json", unsafe=True) is False


def test_extra_that_sets_preload_does_not_get_past_it(release, database):
    release.configure(extra="preload_app = True")
    release.write(ASKING)
    release.start(until=lambda: release.process.poll() is not None, DATABASE=database)
    assert "gunicorn.extra or GUNICORN_CMD_ARGS sets preload_app" in release.log.read_text()


def test_an_import_without_preload_may_take_longer_than_a_request(release):
    release.configure(setting="false", extra="workers = 1\ntimeout = 1")
    release.write("import time\ntime.sleep(2.5)\n" + ASKING.replace(CONNECT, ""))
    log = release.log
    release.start(until=lambda: "Application startup complete" in log.read_text() or "TIMEOUT" in log.read_text())
    assert "TIMEOUT" not in log.read_text()
