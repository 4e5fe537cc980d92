# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What root reads and asks cannot be led elsewhere, blocked, or made endless by an app."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import files, switch
from fastapi_doctor import facts, host


@pytest.fixture
def secret(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/secret").write_text("s3cret")
    return tmp_path / "victim/secret"


def test_a_file_is_read_as_far_as_wanted(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"begin" + b"\0" * (1 << 20) + b"\xffend")
    assert files.read_bytes(str(path), 5) == b"begin"
    assert files.read_bytes(str(path), 4, end=True) == b"\xffend"
    assert files.read_text(str(path), 3) == "beg" and files.read_text(str(tmp_path / "none")) == ""


@pytest.mark.parametrize("links", [False, True])
def test_no_link_leads_elsewhere(tmp_path, secret, links):
    (tmp_path / "link").symlink_to(secret)
    (tmp_path / "directory").symlink_to(secret.parent)
    for path in ("link", "directory/secret", "directory/../victim/../link"):
        if links:
            assert files.read_bytes(str(tmp_path / path), links=True) == b"s3cret"
        else:
            with pytest.raises(OSError):
                files.read_bytes(str(tmp_path / path))


@pytest.mark.parametrize("links", [False, True])
def test_what_is_no_file_blocks_nothing(tmp_path, links):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    begun = time.monotonic()
    for path in (tmp_path / "fifo", tmp_path / "directory", "/dev/zero", "/dev/tty"):
        with pytest.raises(OSError):
            files.read_bytes(str(path), links=links)
    assert time.monotonic() - begun < 1


def test_settings_that_are_no_dict_are_empty(tmp_path):
    for text in ("[1]", "x", "", "[" * 100_000, '{"a": 1'):
        (tmp_path / "x.json").write_text(text)
        assert files.read_json(str(tmp_path / "x.json")) == {}


def test_names_of_a_directory_are_read_without_links_and_with_a_bound(tmp_path, secret, monkeypatch):
    monkeypatch.setattr(facts, "NAMES", 3)
    for name in ("a\nb", "-rf", "*", "x y", "z"):
        (tmp_path / name).touch()
    assert len(facts._names(str(tmp_path))) == 3
    (tmp_path / "link").symlink_to(secret.parent)
    assert facts._names(str(tmp_path / "link")) == []


def test_one_that_hangs_or_fails_takes_nothing_from_the_others():
    begun = time.monotonic()
    work = {"hangs": lambda: time.sleep(5), "fails": lambda: int("x"), "works": lambda: 1}
    found, failed = host.side_by_side(work, 0.3)
    assert found == {"works": 1} and time.monotonic() - begun < 2
    assert "not done within 0.3 s" in failed["hangs"] and failed["fails"].startswith("ValueError")


def test_an_app_that_cannot_be_looked_at_is_named(monkeypatch):
    """Its own facts are missing; those of the other app, and of the machine, are there."""
    def one(app, _held, _deep):
        if app["name"] == "alpha":
            raise KeyError("x")
        return {"name": app["name"]}

    monkeypatch.setattr(facts, "_app", one)
    monkeypatch.setattr(facts, "COLLECTORS", {"apps": facts.apps, "clock": lambda _host: {"future": []}})
    found = facts.gather(SimpleNamespace(apps=[{"name": "alpha"}, {"name": "beta"}], deep=False))
    assert found == {"apps": [{"name": "beta"}], "clock": {"future": []}, "failed": {"app alpha": "KeyError: 'x'"}}


# -- questions --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(path, *parts, pause=0.0, endless=b""):
    """Answers one question on a unix socket with these parts, and then with `endless` again and again."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    asked = []

    def serve():
        with contextlib.suppress(OSError):
            connection, _address = listener.accept()
            with connection:
                asked.append(connection.recv(4096))
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
                while endless:
                    connection.sendall(endless)
                    time.sleep(pause)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield asked
    listener.close()


OK = b"HTTP/1.1 200 OK\r\n"


def test_an_answer_is_taken(tmp_path):
    with server(tmp_path / "s", OK + b"Content-Length: 5\r\n\r\nre\x1bdy") as asked:
        assert switch.ask(str(tmp_path / "s"), "/health", "shop.example.com", 5) == (200, "re\\x1bdy")
    lines = asked[0].decode().split("\r\n")
    assert lines[0] == "GET /health HTTP/1.1"
    assert {"Host: shop.example.com", "X-Forwarded-Proto: https", "Connection: close"} <= set(lines)


@pytest.mark.parametrize(
    "parts, endless",
    [
        ([], b""),
        ([], b"H"),
        ([OK], b"X: y\r\n"),
        ([OK], b"X"),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n"], b"1"),
        ([], b"HTTP/1.1 100 Continue\r\n\r\n"),
        ([OK + b"Content-Length: 1000\r\n\r\n"], b"x"),
    ],
)
def test_an_answer_that_never_ends_is_given_up_in_time(tmp_path, parts, endless):
    """Each part comes soon enough for a timeout that counts from part to part."""
    with server(tmp_path / "s", *parts, pause=0.05, endless=endless):
        begun = time.monotonic()
        with contextlib.suppress(OSError, switch.http.client.HTTPException):
            switch.ask(str(tmp_path / "s"), "/", "h", 0.5)
        assert time.monotonic() - begun < 1.5


def test_a_huge_answer_is_cut(tmp_path):
    with server(tmp_path / "s", OK + b"\r\n", endless=b"x" * 65536):
        status, body = switch.ask(str(tmp_path / "s"), "/", "h", 5)
    assert status == 200 and body.startswith("x" * 500) and len(body) < 550


def test_huge_headers_are_refused(tmp_path):
    with server(tmp_path / "s", OK, endless=b"X: " + b"y" * 60000 + b"\r\n"), pytest.raises(OSError, match="too long"):
        switch.ask(str(tmp_path / "s"), "/", "h", 5)


def test_a_link_to_the_socket_of_another_is_not_asked(tmp_path):
    with server(tmp_path / "victim.sock", OK + b"\r\n") as asked:
        (tmp_path / "s").symlink_to(tmp_path / "victim.sock")
        with pytest.raises(OSError):
            switch.ask(str(tmp_path / "s"), "/", "h", 1)
        assert not asked
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError):
        switch.ask(str(tmp_path / "fifo"), "/", "h", 1)


def test_the_doctor_asks_in_the_same_way(tmp_path):
    with server(tmp_path / "s", OK, pause=0.05, endless=b"X: y\r\n"):
        begun = time.monotonic()
        answer = facts.ask("h", "/", unix=str(tmp_path / "s"))
        assert answer["status"] == 0 and answer["error"] and time.monotonic() - begun < facts.ASK + 1
