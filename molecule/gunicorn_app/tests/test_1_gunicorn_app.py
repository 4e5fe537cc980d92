"""What a release is on the host, what its unit can and cannot do, and that a bad one changes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import wait_for

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])


# -- what lies where --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, owner, group, mode",
    [
        ("", "root", "root", 0o755),
        ("shared", "tiny", "tiny", 0o750),
        ("current/env", "root", "root", 0o600),
        ("current/manifest.json", "root", "root", 0o600),
        ("current/gunicorn.conf.py", "root", "tiny", 0o640),
        ("current/lib/fastapi_worker.py", "root", "tiny", 0o640),
        ("current/start.sh", "root", "tiny", 0o750),
        ("current/src/main.py", "root", "tiny", 0o640),
        ("current/src/static/site.css", "root", "tiny", 0o644),
        ("current/venv/bin", "root", "tiny", 0o750),
        ("venvs", "root", "tiny", 0o751),
        ("build/fetched", "_tiny", "_tiny", 0o700),
    ],
)
def test_a_release_is_roots_and_secrets_are_closed(host, path, owner, group, mode):
    file = host.file(f"/srv/tiny/{path}")
    assert (file.user, file.group, file.mode) == (owner, group, mode)


def test_the_socket_is_for_nginx_alone(host, tiny):
    file = host.file(f"/run/tiny/{tiny.live()}.sock")
    assert (file.is_socket, file.user, file.group, file.mode) == (True, "tiny", "www-data", 0o660)


def test_nginx_reads_static_files_and_no_source(host):
    read = "runuser -u www-data -- cat /srv/tiny/current/src/"
    assert host.run(read + "static/site.css").rc == 0
    assert host.run(read + "main.py").rc != 0
    assert host.run(read + "../env").rc != 0


def test_another_app_cannot_read_the_source(host):
    assert host.run("runuser -u tiny -- cat /srv/example/current/src/app/main.py").rc != 0


def test_every_app_has_its_own_user_without_a_login(host, tiny):
    for name in ("tiny", "example"):
        user = host.user(name)
        assert user.shell == "/usr/sbin/nologin"
        assert host.check_output(f"systemctl show -P User '{name}@*.service'") == name


@pytest.mark.parametrize("path", ["venv/lib/python3*/site-packages/fastapi", "src/app"])
def test_code_is_compiled_once_and_not_at_every_start(host, path):
    assert int(host.check_output(f"find /srv/example/current/{path}/__pycache__ -name '*.pyc' | wc -l")) > 3


# -- how it runs ------------------------------------------------------------------------------------------------------


def test_the_live_release_serves_and_is_enabled(host, tiny):
    assert tiny.ask("/release") == tiny.live()
    for kind in ("service", "socket"):
        unit = host.service(f"tiny@{tiny.live()}.{kind}")
        assert unit.is_running and unit.is_enabled


def test_the_unit_is_closed_and_still_works(host, tiny):
    out = host.check_output(f"systemd-analyze security --no-pager tiny@{tiny.live()}.service")
    exposure = float(out.rstrip().splitlines()[-1].split(":")[1].split()[0])
    assert exposure <= 1.5
    assert tiny.ask("/write") == {
        "main.py": "OSError",
        "/etc/x": "OSError",
        "/srv/tiny/shared/x": "written",
        "/tmp/x": "written",
    }
    assert not host.file("/tmp/x").exists, "the app's /tmp is the host's"
    assert tiny.ask("/home") is False
    assert tiny.ask("/temporary").startswith("/tmp/")
    assert tiny.ask("/tcp") == "ConnectionRefusedError", "TCP does not leave the sandbox"


def test_the_environment_arrives_as_written(tiny):
    env = tiny.ask("/env")
    assert env["GREETING"] == 'a "quoted" $HOME \\ value'
    assert env["FLAG"] == "true"


def test_gunicorn_is_set_as_asked(host, tiny):
    assert tiny.ask("/umask") == "0027"
    cpus = int(host.check_output("nproc"))
    processes = host.check_output("systemctl show -P TasksCurrent 'example@*.service'")
    assert int(processes) >= 2 * cpus + 1 + 1, "2 x CPUs + 1 workers and the master"


def test_uploads_work_in_the_sandbox(host):
    host.check_output("head -c 3000000 /dev/zero > /tmp/upload")
    out = host.check_output(
        "curl -sS --fail --unix-socket /srv/example/live.sock -F file=@/tmp/upload http://example.example.com/upload"
    )
    assert json.loads(out)["size"] == 3000000


def test_a_killed_worker_comes_back(host, tiny):
    worker, master = tiny.ask("/pid")
    host.check_output(f"kill -9 {worker}")
    tiny.ask("/revision")
    seconds = wait_for(lambda: len(host.check_output(f"pgrep -P {master}").split()) == 2)
    assert seconds < 5
    assert not host.file(f"/proc/{worker}").exists


def test_a_killed_master_comes_back(host, tiny):
    master = tiny.ask("/pid")[1]
    host.check_output(f"kill -9 {master}")
    begun = time.monotonic()
    assert tiny.ask("/pid")[1] != master
    assert time.monotonic() - begun < 5


def test_start_sh_runs_the_same_app_by_hand(host, tiny):
    host.run_expect(
        [0], "systemd-run --quiet --collect --unit=by-hand /srv/tiny/current/start.sh --bind 127.0.0.1:8017"
    )
    try:
        ask = "curl -sS --fail -H 'Host: tiny.example.com' http://127.0.0.1:8017"
        wait_for(lambda: host.run(f"{ask}/health/ready").rc == 0)
        assert json.loads(host.check_output(f"{ask}/env"))["GREETING"] == tiny.ask("/env")["GREETING"]
        assert host.run("pgrep -u tiny -f 'bind 127.0.0.1:8017'").rc == 0
    finally:
        host.run("systemctl stop by-hand; pkill -f 'bind 127.0.0.1:8017'")


def test_its_log_is_json(host, tiny):
    lines = host.check_output(f"journalctl -o cat _SYSTEMD_UNIT=tiny@{tiny.live()}.service").splitlines()
    assert lines
    for line in lines:
        assert json.loads(line)["message"]


# -- releasing --------------------------------------------------------------------------------------------------------


def test_a_code_change_is_a_new_release_in_the_same_environment(host, tiny):
    tiny.deployed()
    before = tiny.live()
    environment = host.check_output("readlink -f /srv/tiny/current/venv")
    tiny.edit('REVISION = "1"', 'REVISION = "2"')
    tiny.deployed()
    assert tiny.ask("/revision") == "2"
    assert tiny.live() != before
    assert host.check_output("readlink -f /srv/tiny/current/venv") == environment
    assert (
        host.run(f"systemctl is-active tiny@{before}.service tiny@{before}.socket").stdout.split() == ["inactive"] * 2
    )


def test_a_setting_is_a_new_release_and_nothing_is_none(tiny):
    tiny.deployed()
    before = tiny.live()
    tiny.deployed(gunicorn={"workers": 3})
    changed = tiny.live()
    assert changed != before
    assert "changed=0" in tiny.deployed(gunicorn={"workers": 3})
    tiny.deployed()
    assert tiny.live() == before, "a release with the same inputs is there already"


def test_only_wanted_releases_are_kept(host, tiny):
    for number in range(3):
        tiny.deployed(env={"NUMBER": str(number)}, release={"keep": 2})
    assert len(host.check_output("ls /srv/tiny/releases").split()) == 2
    environments = set(host.check_output("ls /srv/tiny/venvs").split())
    used = host.check_output("readlink -f /srv/tiny/releases/*/venv").split()
    assert environments == {path.rsplit("/", 1)[1] for path in used}


def test_check_mode_shows_the_change_and_makes_none(host, tiny):
    tiny.deployed(env={"TOKEN": "first-secret-value"})
    before = tiny.live()
    out = tiny.deploy("--check", "--diff", env={"TOKEN": "other-secret-value"}, gunicorn={"workers": 4}).stdout
    assert "changed=1" in out
    assert "+workers = 4" in out
    assert "secret-value" not in out
    assert tiny.live() == before


def test_a_stopped_app_is_started_again(host, tiny):
    tiny.deployed()
    live = tiny.live()
    host.check_output(f"systemctl stop tiny@{live}.socket tiny@{live}.service")
    tiny.deployed()
    assert tiny.live() == live
    assert tiny.ask("/release") == live


def test_what_an_interrupted_deploy_left_is_taken_away(host, tiny):
    tiny.deployed()
    live = tiny.live()
    half = "20200101T000000Z-000000000000"
    host.check_output(f"mkdir -p /srv/tiny/releases/{half}/src")
    for kind in ("service", "socket"):
        host.check_output(f"cp /etc/systemd/system/tiny@{live}.{kind} /etc/systemd/system/tiny@{half}.{kind}")
    tiny.deployed()
    assert tiny.live() == live
    assert not host.file(f"/srv/tiny/releases/{half}").exists
    assert not host.file(f"/etc/systemd/system/tiny@{half}.service").exists


def test_two_deploys_at_once_do_not_meet(host, tiny):
    tiny.deployed()
    tiny.edit('REVISION = "1"', 'REVISION = "3"')
    host.check_output("systemd-run --quiet --collect --unit=holder flock /srv/tiny/.lock sleep 60")
    try:
        assert "another run is changing it" in tiny.refused()
    finally:
        host.check_output("systemctl stop holder")


# -- dependencies -----------------------------------------------------------------------------------------------------

PYPROJECT = '[project]\nname = "tiny"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["{}"]\n'
# From the index of PyPI: https://pypi.org/project/six/1.17.0/#files
SIX = "six==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"


def has_six(host) -> bool:
    return host.run("/srv/tiny/current/venv/bin/python -c 'import six'").rc == 0


def test_hashes_in_requirements_are_honoured(host, tiny):
    tiny.deployed()
    (tiny.source / "requirements.txt").write_text(SIX.replace("4721f391", "00000000") + "\n")
    assert "Hash mismatch" in tiny.refused()
    (tiny.source / "requirements.txt").write_text(SIX + "\n")
    tiny.deployed()
    assert has_six(host)


def test_dependencies_of_pyproject(host, tiny):
    (tiny.source / "requirements.txt").unlink()
    (tiny.source / "pyproject.toml").write_text(PYPROJECT.format("six"))
    tiny.deployed()
    assert has_six(host)


@pytest.mark.parametrize("lock", ["uv.lock", "pylock.toml"])
def test_a_lock_decides(host, tiny, lock):
    (tiny.source / "requirements.txt").unlink()
    (tiny.source / "pyproject.toml").write_text(PYPROJECT.format("six==1.16.0"))
    command = ["uv", "lock"] if lock == "uv.lock" else ["uv", "export", "--format", "pylock.toml", "-o", "pylock.toml"]
    subprocess.run([*command, "--quiet", "--python", sys.executable], cwd=tiny.source, check=True)
    if lock == "pylock.toml":
        (tiny.source / "uv.lock").unlink(missing_ok=True)
    tiny.deployed()
    assert host.check_output("/srv/tiny/current/venv/bin/python -c 'import six; print(six.__version__)'") == "1.16.0"


def test_a_lock_that_does_not_fit_is_refused(tiny):
    tiny.deployed()
    (tiny.source / "pyproject.toml").write_text(PYPROJECT.format("six==1.16.0"))
    subprocess.run(["uv", "lock", "--quiet", "--python", sys.executable], cwd=tiny.source, check=True)
    (tiny.source / "pyproject.toml").write_text(PYPROJECT.format("six==1.17.0"))
    assert "lockfile" in tiny.refused()


def test_a_source_without_dependencies_file_is_refused(tiny):
    tiny.deployed()
    (tiny.source / "requirements.txt").unlink()
    assert "has no uv.lock, pylock.toml, requirements.txt or pyproject.toml" in tiny.refused()


def test_the_asked_python(host, tiny):
    version = host.check_output("python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'")
    tiny.deployed(python=version)
    assert host.check_output("/srv/tiny/current/venv/bin/python -V").startswith(f"Python {version}.")


def test_the_apps_own_server_is_kept(host):
    locked = re.search(r'name = "uvicorn"\nversion = "(.+?)"', (PROJECT / "examples/app/uv.lock").read_text())[1]
    version = host.check_output("/srv/example/current/venv/bin/python -c 'import uvicorn; print(uvicorn.__version__)'")
    assert version == locked
