"""Where the code of an app comes from."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from conftest import wait_for

pytestmark = pytest.mark.either_host

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
