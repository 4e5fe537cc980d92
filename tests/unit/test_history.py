# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of an app tells others which source was released, and none of its secrets."""

from __future__ import annotations

import grp
import json
import os

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import history
from ansible_collections.daoman.fastapi.plugins.module_utils._host.history import (
    append,
    damaged_lines,
    public,
    tidy,
)
from ansible_collections.daoman.fastapi.plugins.module_utils._host.redact import redact_url as public_source
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout

ID = "20260101T000000Z-000000000001"
TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
SHA = "9c1d2f0a77be51aa0e61d3c451c0ffee00010002"


@pytest.fixture
def layout(tmp_path):
    layout = Layout("shop", root=str(tmp_path))
    os.makedirs(layout.release(ID))
    return layout


@pytest.mark.parametrize(
    "source, shown",
    [
        (f"https://user:{TOKEN}@host/x.git", "https://host/x.git"),
        (f"https://{TOKEN}@host/x.git", "https://host/x.git"),
        (f"https://user:{TOKEN}/with@slash@host:8443/x.git", "https://host:8443/x.git"),
        (f"git+https://oauth2:{TOKEN}@host/x@v1", "git+https://host/x@v1"),
        (f"shop @ https://user:{TOKEN}@host/shop-1.whl", "shop @ https://host/shop-1.whl"),
        (
            f"shop[pg] @ git+https://{TOKEN}@host/shop ; python_version > '3'",
            "shop[pg] @ git+https://host/shop ; python_version > '3'",
        ),
        (f"https://host/x.whl?token={TOKEN}", "https://host/x.whl?token=<hidden>"),
        (f"https://host/x.whl?version=2&sig={TOKEN}&ref=main", "https://host/x.whl?version=2&sig=<hidden>&ref=main"),
        (f"https://host/x.whl?X-Amz-Signature={TOKEN}", "https://host/x.whl?X-Amz-Signature=<hidden>"),
        ("https://host/x.whl?access%5Ftoken=a", "https://host/x.whl?access%5Ftoken=<hidden>"),
        (f"https://host/x.whl?t={TOKEN}", "https://host/x.whl?t=<hidden>"),
        (f"https://host/x.whl?anything={TOKEN}", "https://host/x.whl?anything=<hidden>"),
        (f"https://host/x.whl#sha256={SHA}", f"https://host/x.whl#sha256={SHA}"),
        (f"https://host/x.whl#egg=shop&password={TOKEN}", "https://host/x.whl#egg=shop&password=<hidden>"),
        (f"https://host/x.zip?ref={SHA}", f"https://host/x.zip?ref={SHA}"),
        ("https://host/x.zip?page=2&order=up", "https://host/x.zip?page=2&order=up"),
        ("shop==1.2", "shop==1.2"),
        ("git@host:shop.git", "git@host:shop.git"),
        ("./shop", "./shop"),
        ("shop @ git+https://host:8443/a/shop@v1", "shop @ git+https://host:8443/a/shop@v1"),
        ("https://u:p@[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
        ("https://", "https://"),
        ("https://host?mail=a@b", "https://host?mail=a@b"),
        ("see https://a:b@h/x and http://c:d@h/y.", "see https://h/x and http://h/y."),
    ],
)
def test_a_source_is_shown_without_its_secrets(source, shown):
    assert public_source(source) == shown
    assert TOKEN not in public_source(source)


def test_two_sources_stay_two():
    for one, other in (
        ("?version=1", "?version=2"),
        ("?ref=" + SHA, "?ref=" + SHA[::-1]),
        ("/a", "/b"),
        ("/a@v1", "/b@v1"),
        (":1/a", ":2/a"),
        ("#egg=a", "#egg=b"),
    ):
        assert public_source("https://h/x" + one) != public_source("https://h/x" + other)


def test_a_line_is_for_the_group_adm_and_has_no_secret(layout):
    append(layout, {"revision": f"shop @ https://x:{TOKEN}@h/y", "reason": "\x1b]0;x\x07ok", "phases": {"build": 1.5}})
    append(layout, {"revision": "v2"})
    with open(layout.history, encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    assert lines == [
        {"revision": "shop @ https://h/y", "reason": "?]0;x?ok", "phases": {"build": 1.5}},
        {"revision": "v2"},
    ]
    status = os.stat(layout.history)
    assert status.st_mode & 0o007 == 0
    if os.geteuid() == 0:
        assert (status.st_mode & 0o777, grp.getgrgid(status.st_gid).gr_name) == (0o640, "adm")


def test_lines_of_before_lose_their_secrets_and_their_readers(layout):
    with open(layout.history, "w", encoding="utf-8") as stream:
        stream.write(json.dumps({"revision": f"shop @ https://x:{TOKEN}@h/y", "nr": 1}) + "\n")
        stream.write(f"half a line https://{TOKEN}@h/y\n" + "[" * 100_000 + "\n[1, null]\n")
    state = layout.release(ID, "state.json")
    with open(state, "w", encoding="utf-8") as stream:
        stream.write("{}")
    for path in (layout.history, state):
        os.chmod(path, 0o644)
    tidy(layout)
    with open(layout.history, encoding="utf-8") as stream:
        text = stream.read()
    assert TOKEN not in text
    first, second, _deep, last = text.splitlines()
    assert (json.loads(first), second, last) == (
        {"revision": "shop @ https://h/y", "nr": 1},
        "half a line https://h/y",
        "[1, null]",
    )
    assert os.stat(layout.history).st_mode & 0o007 == os.stat(state).st_mode & 0o077 == 0
    before = os.stat(layout.history)
    tidy(layout)
    assert os.stat(layout.history).st_ino == before.st_ino


def test_without_a_history_there_is_nothing_to_tidy(layout):
    tidy(layout)
    assert not os.path.exists(layout.history)


def test_a_link_in_its_place_is_not_written_through(layout, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("x")
    victim.chmod(0o600)
    os.symlink(victim, layout.history)
    with pytest.raises(OSError):
        append(layout, {})
    assert victim.read_text() == "x"


def test_fields_have_an_end():
    assert len(public("x" * 10_000_000)) <= history.LONGEST
    assert public({"a": [None, True, 1, {"b": "\x00"}]}) == {"a": [None, True, 1, {"b": "?"}]}


def lines(layout):
    with open(layout.history, encoding="utf-8") as stream:
        return stream.read().splitlines()


@pytest.mark.parametrize("fits", [0, 1, 20])
def test_a_line_that_a_full_disk_cuts_is_taken_away_again(layout, monkeypatch, fits):
    append(layout, {"nr": 1})
    write, left = os.write, [fits]

    def until_the_disk_is_full(descriptor, data):
        if not left[0]:
            raise OSError(28, "No space left on device")
        count = write(descriptor, data[: left[0]])
        left[0] -= count
        return count

    monkeypatch.setattr(os, "write", until_the_disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        append(layout, {"nr": 2, "reason": "x" * 100})
    monkeypatch.undo()
    assert lines(layout) == ['{"nr": 1}']


@pytest.mark.parametrize(
    "before, kept, aside",
    [
        ('{"nr": 1}\n{"nr": ', ['{"nr": 1}'], ['{"nr": ']),
        ('{"nr": 1}', ['{"nr": 1}'], None),
        ('{"nr": 1}\nnull\n\n[\n{"nr": 2}\n', ['{"nr": 1}', '{"nr": 2}'], ["null", "", "["]),
        ('{"nr": 1}{"nr": 2}\n{"nr": 3}\n', ['{"nr": 3}'], ['{"nr": 1}{"nr": 2}']),
        ("\0\0\0\0", [], ["\0\0\0\0"]),
    ],
)
def test_a_damaged_line_is_set_aside_and_glues_to_none(layout, before, kept, aside):
    with open(layout.history, "w", encoding="utf-8") as stream:
        stream.write(before)
    os.chmod(layout.history, 0o600)
    said = append(layout, {"nr": 9})
    assert lines(layout) == [*kept, '{"nr": 9}']
    path = layout.history + ".damaged-1"
    assert bool(aside) == os.path.exists(path) == bool(said)
    if aside:
        assert path in said
        with open(path, encoding="utf-8") as stream:
            assert stream.read().splitlines() == aside
    assert damaged_lines(b'{"nr": 1}\n') == []
