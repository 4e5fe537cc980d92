"""The parts of a release that touch a host's files and processes, on the files and processes of this one."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import subprocess
import threading
from typing import ClassVar

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.daoman.fastapi.plugins.action import release as action
from ansible_collections.daoman.fastapi.plugins.filter.with_defaults import with_defaults
from ansible_collections.daoman.fastapi.plugins.module_utils._host import switch as release_switch
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError
from ansible_collections.daoman.fastapi.plugins.module_utils._host.shell import (
    Shell,
    clean_environment,
    point,
    read_bounded,
    write_file,
)
from ansible_collections.daoman.fastapi.plugins.module_utils.release_units import (
    service_sections,
    socket_sections,
    units,
)

APP = {"name": "shop", "domain": "shop.example.com", "source": "./shop", "app": "main:app"}


def run(argv, cwd=None, environ_update=None, umask=-1, errors=None, expand_user_and_vars=True):
    assert not expand_user_and_vars
    """What AnsibleModule.run_command does, without a module around it."""
    done = subprocess.run(
        argv, cwd=cwd, env={**os.environ, **(environ_update or {})}, umask=umask, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


SHELL = Shell(run)


def app(**options):
    return with_defaults([{**APP, **options}], "gunicorn_app", "gunicorn_app_apps")[0]


# -- running commands -------------------------------------------------------------------------------------------------


def test_a_command_that_fails_brings_its_output_along():
    with pytest.raises(ReleaseError) as error:
        SHELL.run(["sh", "-c", "echo out; echo err >&2; exit 3"], "build", "cannot build")
    assert "cannot build" in error.value.message
    assert "ended with 3" in error.value.message
    assert error.value.output.split() == ["out", "err"]
    assert error.value.phase == "build"


def test_a_command_that_hangs_is_ended():
    with pytest.raises(ReleaseError, match=r"not done within 0\.2 s"):
        SHELL.run(["sleep", "60"], "build", "cannot build", timeout=0.2)


@pytest.mark.parametrize(
    ("phase", "option"),
    [("build", "release.build_timeout"), ("migrate", "release.build_timeout"), ("check", "service.timeout_start")],
)
def test_a_time_limit_names_its_option(phase, option):
    with pytest.raises(ReleaseError, match=rf"not done within 0\.1 s \({option}\)"):
        Shell(run, 0.1).run(["sleep", "5"], phase, "it hangs")


def test_a_missing_command_is_named():
    with pytest.raises(ReleaseError) as error:
        SHELL.run(["no-such-command"], "fetch", "cannot fetch")
    assert "no-such-command" in error.value.output


def test_a_command_does_not_see_this_environment(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ["LEAKED"] = "1"
    clean_environment()
    assert "LEAKED" not in os.environ


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file_has_its_mode_from_the_start(tmp_path):
    before = os.umask(0)
    try:
        write_file(str(tmp_path / "a/env"), "SECRET=1\n", 0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "a/env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a/env").read_text() == "SECRET=1\n"
    assert os.listdir(tmp_path / "a") == ["env"]


def test_a_link_is_never_missing_while_it_moves(tmp_path):
    link = str(tmp_path / "live")
    point(link, "one")
    seen, stop = set(), threading.Event()

    def watch():
        while not stop.is_set():
            try:
                seen.add(os.readlink(link))
            except FileNotFoundError:
                seen.add("missing")

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(2000):
        point(link, ("one", "two")[number % 2])
    stop.set()
    watcher.join()
    assert seen == {"one", "two"}
    assert os.listdir(tmp_path) == ["live"]


def test_a_leftover_of_an_interrupted_move_is_no_obstacle(tmp_path):
    os.symlink("half", tmp_path / "live.new")
    point(str(tmp_path / "live"), "one")
    assert os.readlink(tmp_path / "live") == "one"


def test_a_file_is_read_in_part_and_only_where_it_is_one(tmp_path):
    (tmp_path / "long").write_text("a" * 100 + "z" * 100)
    (tmp_path / "link").symlink_to("long")
    os.mkfifo(tmp_path / "fifo")
    assert read_bounded(str(tmp_path / "long"), 1000) == "a" * 100 + "z" * 100
    assert read_bounded(str(tmp_path / "long"), 20) == "a" * 10 + "\n[...]\n" + "z" * 10
    assert [read_bounded(str(tmp_path / name), 9) for name in ("link", "fifo", "none", ".")] == ["", "", "", ""]


# -- a local source ---------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/main.py").write_text("x")
    (tmp_path / "app/__pycache__").mkdir()
    (tmp_path / "app/__pycache__/main.pyc").write_text("x")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/x").write_text("x")
    return tmp_path


def test_caches_are_no_source(source):
    assert action.directory_files(str(source)) == ["app/main.py"]


def test_what_git_ignores_is_no_source(source):
    SHELL.run(["git", "init", "-q", str(source)], "fetch", "")
    (source / ".gitignore").write_text("*.log\n")
    (source / "debug.log").write_text("x")
    assert action.directory_files(str(source)) == [".gitignore", "app/main.py"]


def test_a_directory_that_git_ignores_whole_is_still_a_source(tmp_path):
    SHELL.run(["git", "init", "-q", str(tmp_path)], "fetch", "")
    (tmp_path / ".gitignore").write_text("build/\n")
    (tmp_path / "build").mkdir()
    (tmp_path / "build/main.py").write_text("x")
    assert action.directory_files(str(tmp_path / "build")) == ["main.py"]


@pytest.mark.parametrize(
    "change",
    [
        lambda top: (top / "app/main.py").write_text("y"),
        lambda top: (top / "app/main.py").chmod(0o755),
        lambda top: (top / "app/main.py").rename(top / "app/other.py"),
        lambda top: os.symlink("main.py", top / "app/link.py"),
    ],
)
def test_the_digest_sees_every_change(source, change):
    before = action.directory_digest(str(source), action.directory_files(str(source)))
    change(source)
    assert action.directory_digest(str(source), action.directory_files(str(source))) != before


def test_the_digest_is_of_content_and_not_of_time(source):
    before = action.directory_digest(str(source), action.directory_files(str(source)))
    os.utime(source / "app/main.py", (0, 0))
    assert action.directory_digest(str(source), action.directory_files(str(source))) == before


# -- units ------------------------------------------------------------------------------------------------------------


def test_the_units_name_no_release():
    """Else every release would be another one."""
    for text in units(app(), "www-data").values():
        assert "%i" in text
        assert "/current/" not in text


def test_the_service_has_time_to_drain():
    service = service_sections(app(gunicorn={"graceful_timeout": 100}, release={"linger": 5}))["Service"]
    assert service["TimeoutStopSec"] > 105


@pytest.mark.parametrize(("start", "longest"), [(60, 115), (600, 600)])
def test_the_service_cannot_ask_for_more_time_without_an_end(start, longest):
    options = {"gunicorn": {"graceful_timeout": 100}, "release": {"linger": 5}, "service": {"timeout_start": start}}
    assert longest < service_sections(app(**options))["Unit"]["JobRunningTimeoutSec"] <= longest + 10


@pytest.mark.parametrize("answer", [(0, "", ""), (1, "", "Job timed out"), (124, "", "")])
def test_what_does_not_stop_is_killed(tmp_path, answer):
    calls = []

    def systemctl(argv, **_):
        calls.append(argv[4])
        return answer if calls.count("stop") == 1 and argv[4] == "stop" else (0, "", "")

    layout = Layout("shop", root=str(tmp_path))
    release_switch.Instance(layout, "20260101T000000Z-0123456789ab", Shell(systemctl)).stop()
    stopped = ["stop"] if answer[0] == 0 else ["stop", "kill", "stop"]
    assert calls == ["disable", *stopped, "reset-failed"]


def test_overrides_replace_and_add():
    sections = service_sections(
        app(service={"overrides": {"Service": {"Restart": "no", "CPUQuota": "50%"}, "Unit": {"After": "x"}}})
    )
    assert sections["Service"]["Restart"] == "no"
    assert sections["Service"]["CPUQuota"] == "50%"
    assert sections["Unit"]["After"] == "x"


def test_the_sandbox_is_the_one_asked_for():
    assert service_sections(app(service={"sandbox": "strict"}))["Service"]["PrivateNetwork"] is True
    assert "PrivateNetwork" not in service_sections(app())["Service"]


def test_one_app_starves_nobody_and_answers_for_nobody():
    service = service_sections(app())["Service"]
    assert service["CPUWeight"] == service["IOWeight"] == 100 and service["OOMScoreAdjust"] > 0
    assert service["SocketBindDeny"] == "1-32767"
    assert service["InaccessiblePaths"] == ["-/run/systemd/journal", "-/run/dbus"]
    overrides = {"Service": {"SocketBindAllow": "tcp:50051", "InaccessiblePaths": []}}
    text = units(app(service={"overrides": overrides}), "www-data")["service"]
    assert "SocketBindAllow=tcp:50051\n" in text and "InaccessiblePaths" not in text


def test_an_app_writes_nothing_to_the_file_system_of_services():
    """Who fills /run keeps systemd from starting anything."""
    service = service_sections(app())["Service"]
    assert "RuntimeDirectory" not in service and "RUNTIME_DIRECTORY=/dev/shm" in service["Environment"]
    # Without memory of its own it would share that of all apps.
    opened = {"overrides": {"Service": {"TemporaryFileSystem": []}}}
    service = service_sections(app(service=opened))["Service"]
    assert service["RuntimeDirectory"] == "shop/%i" and "RUNTIME" not in str(service["Environment"])


def test_an_app_writes_to_the_journal_by_its_output_alone_unless_it_is_told_otherwise():
    text = units(app(), "www-data")["service"]
    assert "\nInaccessiblePaths=-/run/systemd/journal\n" in text and "\nSyslogLevelPrefix=no\n" in text
    assert "\nLogRateLimitIntervalSec=60\nLogRateLimitBurst=2000\n" in text
    service = {"journal_sockets": True, "log_rate_limit_interval": 5, "log_rate_limit_burst": 0}
    text = units(app(service=service), "www-data")["service"]
    assert "/run/systemd/journal" not in text and "\nSyslogLevelPrefix=yes\n" in text
    assert "\nLogRateLimitIntervalSec=5\nLogRateLimitBurst=0\n" in text


def test_the_socket_is_for_nginx():
    socket = socket_sections(app(), "www-data")["Socket"]
    assert (socket["SocketUser"], socket["SocketGroup"], socket["SocketMode"]) == ("shop", "www-data", "0660")


# -- asking a release -------------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[list] = []

    def do_GET(self):
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(self.headers["Host"].encode())

    def address_string(self):
        return "unix"

    def log_message(self, *arguments):
        pass


@pytest.fixture
def instance(tmp_path, monkeypatch):
    layout = Layout("shop", root=str(tmp_path))
    instance = release_switch.Instance(layout, "20260101T000000Z-000000000000", SHELL)
    monkeypatch.setattr(instance, "properties", lambda *names: {"NRestarts": "0", "ActiveState": "active"})
    os.makedirs(layout.run)
    server = socketserver.ThreadingUnixStreamServer(layout.socket(instance.id), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield instance
    server.shutdown()
    server.server_close()


HEALTH = {"readiness": "/health/ready", "successes": 3, "timeout": 2}


def test_a_release_is_ready_after_enough_answers_in_a_row(instance):
    Handler.answers = [200, 503, 200, 200, 200, 503]
    instance.wait_ready("shop.example.com", HEALTH)
    assert Handler.answers == [503], "it stopped asking after the third in a row"


def test_a_release_that_is_not_ready_says_what_it_answered(instance):
    Handler.answers = [503]
    with pytest.raises(ReleaseError, match=r"the last answer was 503: shop\.example\.com"):
        instance.wait_ready("shop.example.com", {**HEALTH, "timeout": 0.5})


def test_a_release_that_crashes_is_not_waited_for(instance, monkeypatch):
    Handler.answers = [503]
    monkeypatch.setattr(instance, "properties", lambda *names: {"NRestarts": "1", "ActiveState": "active"})
    with pytest.raises(ReleaseError, match="ended before it answered"):
        instance.wait_ready("shop.example.com", {**HEALTH, "timeout": 60})


# -- what an app logs -------------------------------------------------------------------------------------------------

SHAPES = [None, True, 0, -1, 1.5, 10**30, "", "1", [], [1], {}, {"a": []}, float("nan")]


def instance_that_logs(monkeypatch, *lines):
    instance = release_switch.Instance(Layout("shop"), "20260101T000000Z-000000000000", SHELL)
    monkeypatch.setattr(SHELL, "run", lambda *_arguments, **_options: ("\n".join(lines), 0), raising=False)
    return instance


@pytest.mark.parametrize("shape", SHAPES)
def test_no_line_of_an_app_stops_a_deploy_that_counts_what_was_cut(monkeypatch, shape):
    good = json.dumps({"cut_requests": 2, "cut_websockets": 1})
    lines = [json.dumps({"cut_requests": shape, "cut_websockets": shape}), json.dumps({"cut_requests": 1})]
    lines += [json.dumps(shape), json.dumps([{"cut_requests": 1}]), "[" * 100_000, '"cut_requests"']
    assert instance_that_logs(monkeypatch, *lines, good).cut(0) == {"requests": 2, "websockets": 1}


@pytest.mark.parametrize("field", ["message", "event", "msg", "level", "exc_info", "exception", "stack_info"])
def test_no_line_of_an_app_stops_the_report_of_a_failure(monkeypatch, field):
    lines = [json.dumps({field: shape}) for shape in SHAPES] + [json.dumps(shape) for shape in SHAPES] + ["[" * 100_000]
    assert instance_that_logs(monkeypatch, *lines).journal()


def test_only_units_of_releases_are_left_over(tmp_path):
    layout = Layout("shop", root=str(tmp_path))
    os.makedirs(layout.units)
    ids = [f"2026010{number}T000000Z-000000000000" for number in (1, 2, 3)]
    names = [f"shop@{ids[0]}.service", f"shop@{ids[1]}.socket.new", f"shop@{ids[2]}.service"]
    others = ["shop@tty1.service", "shop@.service", f"shop-b@{ids[0]}.service", "shop.service", f"shop@{ids[0]}.timer"]
    for name in names + others:
        (tmp_path / "etc/systemd/system" / name).touch()
    assert release_switch.strangers(layout, ids[2]) == ids[:2]


@pytest.mark.parametrize("name", ["", "../x", "-x", "a/b", "Shop", "shop\n", "a b", "a" * 32, "_shop"])
def test_a_name_that_is_no_apps_makes_no_paths(name):
    with pytest.raises(ReleaseError, match="not a valid app name"):
        Layout(name)


# -- defaults ---------------------------------------------------------------------------------------------------------


def test_nested_defaults_are_filled_in():
    assert app()["gunicorn"]["timeout"] == 30
    assert app(gunicorn={"timeout": "7"})["gunicorn"]["timeout"] == 7


def test_bad_input_names_its_path():
    with pytest.raises(AnsibleFilterError, match=r"gunicorn_app_apps\[0\].gunicorn.wrokers.*workers"):
        app(gunicorn={"wrokers": 3})
