"""What a release is on the host, what its unit can and cannot do, and that a bad one changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])


def wait_for(condition, seconds: float = 10) -> float:
    """Seconds until the condition held."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - begun


# -- what lies where --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, owner, group, mode",
    [
        ("", "root", "root", 0o755),
        ("shared", "tiny", "tiny", 0o750),
        ("current/env", "root", "root", 0o600),
        ("current/manifest.json", "root", "root", 0o600),
        ("current/gunicorn.conf.py", "root", "root", 0o644),
        ("current/start.sh", "root", "root", 0o755),
        ("current/src/main.py", "root", "tiny", 0o640),
        ("current/src/static/site.css", "root", "tiny", 0o644),
        ("current/venv/bin", "root", "root", 0o755),
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


# -- sources ----------------------------------------------------------------------------------------------------------


def archive(tiny) -> str:
    return shutil.make_archive(str(tiny.source), "gztar", tiny.source.parent, tiny.source.name)


def checksum(path: str) -> str:
    return "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()


def send(host, content: bytes, path: str) -> None:
    subprocess.run(
        ["docker", "exec", "-i", host.backend.hostname, "sh", "-c", f"cat > {path}"], input=content, check=True
    )


def test_an_archive_with_its_checksum(tiny):
    tiny.edit('REVISION = "1"', 'REVISION = "archive"')
    path = archive(tiny)
    tiny.deployed(source=path, checksum=checksum(path))
    assert tiny.ask("/revision") == "archive"


def test_an_archive_with_another_checksum_is_refused(tiny):
    tiny.deployed()
    assert "wanted sha256:00000" in tiny.refused(source=archive(tiny), checksum="sha256:" + "0" * 64)


def test_an_archive_from_a_url(host, tiny):
    tiny.deployed()
    tiny.edit('REVISION = "1"', 'REVISION = "url"')
    path = archive(tiny)
    host.check_output("mkdir -p /tmp/www")
    send(host, Path(path).read_bytes(), "/tmp/www/tiny.tar.gz")
    host.check_output(
        "systemd-run --quiet --collect --unit=www python3 -m http.server --bind 127.0.0.1 --directory /tmp/www 8018"
    )
    try:
        wait_for(lambda: host.run("curl -sS http://127.0.0.1:8018/").rc == 0)
        source = "http://127.0.0.1:8018/tiny.tar.gz"
        assert "has checksum sha256:" in tiny.refused(source=source, checksum="sha256:" + "0" * 64)
        tiny.deployed(source=source, checksum=checksum(path))
        assert tiny.ask("/revision") == "url"
    finally:
        host.check_output("systemctl stop www")


def wheel(tiny) -> str:
    path = tiny.source.parent / "tinyapp-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.write(tiny.source / "main.py", "tinyapp.py")
        file.writestr("tinyapp-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinyapp\nVersion: 1.0\n")
        file.writestr(
            "tinyapp-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr("tinyapp-1.0.dist-info/RECORD", "")
    return str(path)


def test_a_wheel(tiny):
    tiny.edit('REVISION = "1"', 'REVISION = "wheel"')
    tiny.deployed(source=wheel(tiny), app="tinyapp:app", static_paths=[])
    assert tiny.ask("/revision") == "wheel"


def test_a_requirement(host, tiny):
    tiny.edit('REVISION = "1"', 'REVISION = "requirement"')
    send(host, Path(wheel(tiny)).read_bytes(), "/srv/tinyapp-1.0-py3-none-any.whl")
    tiny.deployed(source="tinyapp @ file:///srv/tinyapp-1.0-py3-none-any.whl", app="tinyapp:app", static_paths=[])
    assert tiny.ask("/revision") == "requirement"


def git(tiny, name: str) -> tuple[str, str]:
    """A bare repository of tiny's source on the host, with a branch and two kinds of tags: its URL and its commit."""
    run = ["git", "-C", str(tiny.source), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in ("init -q -b main", "add -A", "commit -qm one", "tag light", "tag -m x heavy", "branch feature"):
        subprocess.run(run + command.split(), check=True)
    send(
        tiny.host,
        subprocess.run(["tar", "-C", str(tiny.source), "-c", ".git"], capture_output=True, check=True).stdout,
        "/tmp/git.tar",
    )
    tiny.host.check_output(
        f"rm -rf /srv/git/{name} && mkdir -p /srv/git/{name} && tar -C /srv/git/{name} --no-same-owner -xf /tmp/git.tar"
    )
    return f"file:///srv/git/{name}/.git", subprocess.check_output([*run, "rev-parse", "HEAD"], text=True).strip()


@pytest.mark.parametrize("kind", ["feature", "light", "heavy", "commit", "abbreviated"])
def test_a_version_of_a_git_repository(host, tiny, kind):
    tiny.edit('REVISION = "1"', f'REVISION = "{kind}"')
    url, commit = git(tiny, kind)
    tiny.deployed(source=url, version={"commit": commit, "abbreviated": commit[:9]}.get(kind, kind))
    assert tiny.ask("/revision") == kind
    manifest = json.loads(host.check_output("cat /srv/tiny/current/manifest.json"))
    assert manifest["inputs"]["source"]["revision"] == commit
    assert not host.file("/srv/tiny/current/src/.git").exists


def test_an_unknown_version_is_refused_by_name(tiny):
    tiny.deployed()
    assert "version 'nope' is no branch, tag or commit" in tiny.refused(source=git(tiny, "unknown")[0], version="nope")


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


# -- releases that fail -----------------------------------------------------------------------------------------------


def test_an_app_that_cannot_be_imported_says_why(tiny):
    tiny.deployed()
    tiny.edit("import json", "import json\nimport nonsense")
    out = tiny.refused()
    assert "Traceback (most recent call last)" in out
    assert "ModuleNotFoundError: No module named 'nonsense'" in out


def test_an_app_that_does_not_start_says_why(host, tiny):
    tiny.deployed()
    # An exception here would tell uvicorn that the app has no lifespan; frameworks report theirs like this.
    tiny.edit(
        '{"type": message["type"] + ".complete"}', '{"type": "lifespan.startup.failed", "message": "no database"}'
    )
    out = tiny.refused()
    assert "no database" in out
    failed = host.check_output("grep -l '\"failed\"' /srv/tiny/releases/*/state.json").split()
    assert len(failed) == 1


def test_an_app_that_is_not_ready_says_what_it_answered(tiny):
    tiny.deployed()
    tiny.edit("status = 400 if host", 'status = 503 if scope["path"] == "/health/ready" else 400 if host')
    assert "the last answer was 503" in tiny.refused(health={"timeout": 3})


def test_an_app_that_hangs_at_import_is_given_up(tiny):
    tiny.deployed()
    tiny.edit("import json", "import json\nimport time\ntime.sleep(600)")
    assert "not done within 3 s" in tiny.refused(service={"timeout_start": 3})


def test_a_unit_that_systemd_does_not_know_is_refused(tiny):
    tiny.deployed()
    assert "Memory-Max" in tiny.refused(service={"overrides": {"Service": {"Memory-Max": "1G"}}})


def test_a_unit_that_is_too_open_is_refused(tiny):
    tiny.deployed()
    assert "over service.exposure_limit 1.5" in tiny.refused(
        service={"overrides": {"Service": {"PrivateDevices": False, "ProtectHome": False}}}
    )


def test_a_lower_limit_counts_though_the_unit_is_the_same(tiny):
    tiny.deployed()
    tiny.edit('REVISION = "1"', 'REVISION = "4"')
    assert "over service.exposure_limit 0.1" in tiny.refused(service={"exposure_limit": 0.1})


def test_secrets_are_not_shown_by_a_failure(tiny):
    tiny.deployed()
    tiny.edit("import json", 'import json\nimport os\nraise RuntimeError(os.environ["TOKEN"])')
    out = tiny.refused(env={"TOKEN": "correct-horse-battery"})
    assert "correct-horse-battery" not in out
    assert "RuntimeError: <TOKEN>" in out
