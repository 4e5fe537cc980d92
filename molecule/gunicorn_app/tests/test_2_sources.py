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
    output = tiny.refused(source=git(tiny, "unknown")[0], version="nope")
    assert "version 'nope' is not a branch, tag or commit" in output


SSH = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get install -qq -y --no-install-recommends openssh-server openssh-client >/dev/null
mkdir -p /run/sshd; systemctl start ssh
id git >/dev/null 2>&1 || useradd --create-home --shell /bin/sh git
grep -q own.example /etc/hosts || echo '127.0.0.1 own.example other.example' >>/etc/hosts
mkdir -p /root/.ssh /home/git/.ssh
[ -f /root/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /home/git/.ssh/authorized_keys
rm -rf /home/git/*.git
for name in app lib; do
    rm -rf /tmp/work && mkdir /tmp/work && cd /tmp/work && git init -q -b main
    [ $name = lib ] && echo 'x = 1' >x.py || tar -C /tmp/work -xf /tmp/tiny.tar
    git add -A && git -c user.name=t -c user.email=t@example.com commit -qm one
    git clone -q --bare /tmp/work /home/git/$name.git
done
chown -R git:git /home/git
"""
SUBMODULE = """
set -e
export GIT_SSH_COMMAND='ssh -o StrictHostKeyChecking=no'
cd /tmp && rm -rf sub && git clone -q ssh://git@own.example/home/git/app.git sub
cd sub && git checkout -q -b {branch}
printf '[submodule "lib"]\\n\\tpath = lib\\n\\turl = ssh://git@{host}/home/git/lib.git\\n' >.gitmodules
git update-index --add --cacheinfo 160000,$(git --git-dir=/home/git/lib.git -c safe.directory='*' rev-parse HEAD),lib
git add .gitmodules && git -c user.name=t -c user.email=t@example.com commit -qm sub
git push -q -f origin {branch}
"""


def test_the_key_of_a_source_is_for_its_own_host_only(host, tiny):
    """Root's default key, as well: a repository names its submodules where it likes."""
    tiny.edit('REVISION = "1"', 'REVISION = "ssh"')
    packed = subprocess.run(["tar", "-C", str(tiny.source), "-c", "."], capture_output=True, check=True).stdout
    send(host, packed, "/tmp/tiny.tar")
    host.check_output(SSH)
    for branch, name in (("own", "own.example"), ("other", "other.example")):
        host.check_output(SUBMODULE.format(branch=branch, host=name))
    source = "ssh://git@own.example/home/git/app.git"
    tiny.deployed(source=source, version="own")
    assert tiny.ask("/revision") == "ssh" and host.file("/srv/tiny/current/src/lib/x.py").exists
    assert "is given to its own host only" in tiny.refused(source=source, version="other")
    # The account that builds keeps no key, and the key is the source's alone.
    assert host.run("grep -rl 'PRIVATE KEY' /srv/tiny /run/fastapi /tmp/systemd-private-*").stdout == ""


LOGIN = """
import base64, http.server, os
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"me:t0p-s3cret-t0ken").decode():
            self.send_response(401); self.send_header("WWW-Authenticate", "Basic"); self.end_headers()
        else:
            super().do_GET()
os.chdir("/tmp/www-git")
http.server.ThreadingHTTPServer(("127.0.0.1", 8019), Handler).serve_forever()
"""
WATCH = """
import glob, os, time
end = time.time() + 60
found = set()
while time.time() < end and not os.path.exists("/tmp/watched"):
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            text = open(path, "rb").read()
        except OSError:
            continue
        if b"t0p-s3cret" in text:
            found.add(text)
open("/tmp/seen", "wb").write(b"\\n".join(found))
"""


def test_a_password_in_a_url_is_seen_by_nobody(host, tiny):
    tiny.edit('REVISION = "1"', 'REVISION = "login"')
    git(tiny, "login")
    host.check_output(
        "rm -rf /tmp/www-git /tmp/watched /tmp/seen && mkdir /tmp/www-git && git -c safe.directory='*' clone -q --bare "
        "/srv/git/login /tmp/www-git/app.git && git -C /tmp/www-git/app.git update-server-info"
    )
    for name, program in (("login", LOGIN), ("watch", WATCH)):
        send(host, program.encode(), f"/tmp/{name}.py")
        host.check_output(f"systemd-run --quiet --collect --unit={name} python3 /tmp/{name}.py")
    try:
        wait_for(lambda: host.run("curl -sS http://127.0.0.1:8019/").rc == 0)
        source = "http://me:t0p-s3cret-t0ken@127.0.0.1:8019/app.git"
        tiny.deployed(source=source, version="main")
        assert tiny.ask("/revision") == "login"
        failed = tiny.refused(source=source, version="nope")
        assert "t0p-s3cret" not in failed and "is not a branch, tag or commit" in failed
        assert "t0p-s3cret" not in tiny.refused(source=source.replace("t0ken", "wrong"), version="main")
    finally:
        host.check_output("touch /tmp/watched; systemctl stop login")
    wait_for(lambda: host.file("/tmp/seen").exists)
    assert host.check_output("cat /tmp/seen") == "", "in the arguments of a process"
    assert host.run("grep -rl t0p-s3cret /srv/tiny /run /etc /tmp/systemd-private-*").stdout == ""
    journal = host.run("journalctl --no-pager --grep t0p-s3cret").stdout
    assert "t0p-s3cret" not in journal.replace("--grep t0p-s3cret", ""), journal
