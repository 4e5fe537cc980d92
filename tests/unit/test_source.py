"""What the unit that fetches a source is given: logins, keys and settings, and for which host."""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import caged_fetch, source
from ansible_collections.daoman.fastapi.plugins.module_utils._host.cage import app_service, read_answer
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError


@pytest.mark.parametrize(
    "url, bare, login",
    [
        ("https://git.example.com/a.git", "https://git.example.com/a.git", ""),
        ("https://me:p%40ss@git.example.com:8443/a.git", "https://git.example.com:8443/a.git", "me:p@ss"),
        ("https://ghp_token@github.com/a.git", "https://github.com/a.git", "ghp_token:"),
        ("ssh://git@git.example.com/a.git", "ssh://git@git.example.com/a.git", ""),
        ("git@git.example.com:a.git", "git@git.example.com:a.git", ""),
        ("./here", "./here", ""),
    ],
)
def test_a_login_is_taken_out_of_a_url(url, bare, login):
    assert source.split_login(url) == (bare, login)


@pytest.mark.parametrize(
    "url, host",
    [
        ("ssh://git@git.example.com:2222/a.git", "git.example.com"),
        ("git@git.example.com:a/b.git", "git.example.com"),
        ("https://git.example.com/a.git", ""),
        ("/srv/git/a.git", ""),
    ],
)
def test_the_host_of_an_ssh_url(url, host):
    assert source.ssh_host(url) == host


def files(url, key="", shell=None, **known):
    asked = SimpleNamespace(**dict(zip(("url", "login"), source.split_login(url), strict=True)), ssh_key_file=key)
    asked.layout, asked.check = Layout("shop"), False
    return source.git_files(asked, shell)


def test_a_login_is_for_its_own_host_and_in_no_argument():
    found = files("https://me:secret@git.example.com/a.git")
    assert '[credential "https://git.example.com"]\n\thelper = ' in found["gitconfig"]
    assert "secret" not in found["gitconfig"]
    assert found["login"] == "username=me\npassword=secret\n"


class Git(http.server.BaseHTTPRequestHandler):
    """Answers as the server says: status and headers. Keeps the logins that it was shown."""

    def do_GET(self):
        self.server.shown.append(self.headers.get("Authorization"))
        status, headers = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value + self.path if name == "Location" else value)
        self.end_headers()
        # A repository of plain files: git asks this host for more of it.
        self.wfile.write(f"{'1' * 40}\trefs/heads/main\n".encode() if status == 200 else b"")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def git_server(status, **headers):
    """The URL of a server, and the logins that it was shown."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Git)
    server.answer, server.shown = (status, headers), []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.shown
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask_git(directory, url):
    host = url.removeprefix("http://")
    for name, text in files(f"http://me:secret@{host}/a.git").items():
        (directory / name).write_text(text.replace("{work}", str(directory)))
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": str(directory / "gitconfig"), "GIT_TERMINAL_PROMPT": "0"}
    subprocess.run(["git", "ls-remote", f"{url}/a.git"], env=env, check=False, capture_output=True)


LOGIN = "Basic " + base64.b64encode(b"me:secret").decode()


def test_a_host_that_wants_the_login_of_its_source_gets_it(tmp_path):
    with git_server(401, **{"WWW-Authenticate": 'Basic realm="git"'}) as (url, shown):
        ask_git(tmp_path, url)
    assert shown == [None, LOGIN]


def test_a_login_does_not_follow_a_redirect_to_another_host(tmp_path):
    """Whoever has a repository on the host of the source, such as a submodule, may be able to make it redirect."""
    with git_server(200) as (other, shown), git_server(302, Location=other) as (url, _shown):
        ask_git(tmp_path, url)
    assert len(shown) > 1 and set(shown) == {None}


def test_keys_are_for_the_host_of_the_source(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "ROOT_SSH", str(tmp_path))
    (tmp_path / "id_ed25519").write_text("ed25519 key")
    (tmp_path / "known_hosts").write_text("git.example.com ssh-ed25519 AAAA\n")
    found = files("ssh://git@git.example.com/a.git")
    assert found["key0"] == "ed25519 key" and found["known_hosts"].startswith("git.example.com")
    own, _any, others = found["ssh_config"].partition("Host *\n")
    assert own == "Host git.example.com\n  IdentityFile {work}/key0\n"
    assert "IdentityFile none" in others and "IdentityAgent none" in others and "key0" not in others


def test_a_key_of_the_apps_own_is_the_only_one(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "ROOT_SSH", str(tmp_path))
    for name in ("id_ed25519", "deploy"):
        (tmp_path / name).write_text(name)
    found = files("git@git.example.com:a.git", key=str(tmp_path / "deploy"))
    assert [found[name] for name in found if name.startswith("key")] == ["deploy"]
    with pytest.raises(ReleaseError, match=r"ssh_key_file: there is no private key at '/nowhere'"):
        files("git@git.example.com:a.git", key="/nowhere")


def test_roots_own_settings_of_a_host_are_kept(tmp_path, monkeypatch):
    """People name hosts in /root/.ssh/config: a deploy key for each repository of one host, for example."""
    monkeypatch.setattr(source, "ROOT_SSH", str(tmp_path))
    (tmp_path / "config").write_text("Host shop-git\n")
    (tmp_path / "shop_key").write_text("shop key")
    said = f"user git\nhostname git.example.com\nport 2222\nproxyjump none\nidentityfile {tmp_path}/shop_key\n"
    shell = SimpleNamespace(run=lambda argv, *_, **__: (said, 0))
    found = files("ssh://shop-git/a.git", shell=shell)
    assert found["key0"] == "shop key"
    assert found["ssh_config"].startswith(
        "Host shop-git\n  IdentityFile {work}/key0\n  hostname git.example.com\n  port 2222\n  user git\nHost *\n"
    )


def test_a_repository_in_a_home_directory_is_shown_to_the_unit():
    assert source.local_repository("file:///root/a.git") == ["/root/a.git"]
    assert source.local_repository("/home/me/a.git") == ["/home/me/a.git"]
    assert source.local_repository("https://git.example.com/home/a.git") == []


def test_a_repository_behind_a_link_is_not_shown_to_the_unit(tmp_path):
    """Root's rights would open the repository of somebody else, to which the owner of the home laid a link."""
    (tmp_path / "root/private.git").mkdir(parents=True)
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice/a.git").symlink_to(tmp_path / "root/private.git")
    (tmp_path / "alice/all").symlink_to(tmp_path / "root")
    for path in ("alice/a.git", "alice/all/private.git", "alice/missing.git"):
        with pytest.raises(ReleaseError, match="is not a directory, or lies behind a link"):
            source.identity(str(tmp_path / path))
    # Nor does it help to be faster than root.
    job = {"readable": {str(tmp_path / "alice/a.git"): source.identity(str(tmp_path / "alice"))}}
    with pytest.raises(caged_fetch.Failed, match="is not the directory that it was a moment ago"):
        caged_fetch.check_readable(job)
    path = str(tmp_path / "root/private.git")
    assert caged_fetch.check_readable({"readable": {path: source.identity(path)}}) is None


def test_an_uploaded_source_is_read_by_the_build_account_only(tmp_path, monkeypatch):
    """It may be private, and other apps and users can pass through the directories above it."""
    account = SimpleNamespace(pw_gid=os.getgid())
    monkeypatch.setattr(pwd, "getpwnam", {"_shop": account}.__getitem__)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: os.stat(path) and (uid, gid) == (0, account.pw_gid))
    monkeypatch.setattr(os, "fchown", lambda descriptor, uid, gid: os.fstat(descriptor))
    upload = tmp_path / "uploaded"
    upload.write_text("code")
    asked = SimpleNamespace(layout=Layout("shop"), location="/src/a.tar.gz", type="archive", upload=str(upload))
    path = Path(source.Source._lay_down(asked, str(tmp_path / "src.upload")))
    assert path.read_text() == "code" and not upload.exists()
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)]
    assert modes == [0o640, 0o750]


# -- the program of the unit ------------------------------------------------------------------------------------------


def test_the_program_imports_nothing_of_ours_and_answers_in_a_file(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("top/main.py")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    (tmp_path / "program.py").write_text(caged_fetch.__spec__.loader.get_source(caged_fetch.__name__))
    target = tmp_path / "src"
    target.mkdir()
    job = {"do": "fetch", "type": "archive", "upload": str(tmp_path / "a.tar.gz"), "target": str(target)}
    for change, code, answer in (({}, 0, {"answer": None}), ({"upload": "/nowhere"}, 1, {"failed"})):
        (tmp_path / "job.json").write_text(json.dumps({**job, **change}))
        argv = [sys.executable, "-I", "-B", "program.py", "job.json", "answer"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        found = json.loads((tmp_path / "answer").read_text())
        assert found == answer if isinstance(answer, dict) else set(found) == answer
    assert (target / "main.py").read_text() == "x"


def test_an_answer_is_text_that_can_be_written():
    assert read_answer('{"failed": "a\\ud800b"}') == {"failed": "a?b"}


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 60_000, "nonsense", '{"answer": 3}', '{"failed": ["x"]}', "null", '{"x": "y"}']
)
def test_an_answer_is_texts_or_nothing(text):
    assert read_answer(text) == {}


def test_a_unit_of_the_app_has_the_settings_of_its_service_and_not_its_life(tmp_path):
    layout = Layout("shop", root=str(tmp_path))
    (tmp_path / "srv/shop/releases/R/systemd").mkdir(parents=True)
    (tmp_path / "srv/shop/releases/R/systemd/service").write_text(
        "[Unit]\nRequires=shop@%i.socket\n[Service]\nType=notify\nUser=shop\nEnvironmentFile=/srv/shop/releases/%i/env\n"
        "ExecStart=/x\nRuntimeDirectory=shop/%i\nTimeoutStopSec=9\nRestart=always\nMemoryMax=1G\n"
        "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged\n[Install]\nWantedBy=x\n"
    )
    assert app_service(layout, "R") == {
        "User": "shop",
        "EnvironmentFile": ["/srv/shop/releases/R/env"],
        "MemoryMax": ["1G"],
        "SystemCallFilter": ["@system-service", "~@privileged"],
    }


def test_a_git_server_that_accepts_and_says_nothing_ends_in_a_deadline_with_a_name(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/shop.git"
        job = {"url": url, "shown": url, "version": "main", "timeout": 0.5, "repository": str(tmp_path / "x")}
        begun = time.monotonic()
        with pytest.raises(caged_fetch.Failed, match=r"no answer within 0\.5 s \(release\.resolve_timeout\)"):
            caged_fetch.resolve(job)
    assert time.monotonic() - begun < 5


def test_a_prediction_remembers_no_host_key():
    """ssh writes the key of a new host into the first file, and that one goes with the unit."""

    def line(check):
        asked = SimpleNamespace(layout=Layout("shop"), check=check)
        text = source.ssh_config("git.example.com", [], {}, asked)
        return next(words for words in map(str.split, text.splitlines()) if words[0] == "UserKnownHostsFile")[1:]

    assert line(False) == ["/srv/shop/build/fetched/known_hosts", "{work}/known_hosts"]
    assert line(True) == ["{work}/new_hosts", *line(False)]
