# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of files, and its way back; with real files and commands, but without a timer."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "roles/hardening/files"))
import commit_confirmed  # the path comes first
from commit_confirmed import Change, ChangeError  # the path comes first

COMMANDS = {"activate": [], "leave": [], "restore": [], "trial": [], "settle": []}


@pytest.fixture
def change(tmp_path, monkeypatch):
    monkeypatch.setattr(commit_confirmed, "disarm", lambda id_, by: None)
    (tmp_path / "state").mkdir()
    (tmp_path / "root/etc").mkdir(parents=True)
    return Change(str(tmp_path / "state"), str(tmp_path / "root"))


def staged(change, texts, **commands):
    own = {"uid": os.getuid(), "gid": os.getgid()}
    items = {path: text and {"content": text, "mode": 0o640, **own} for path, text in texts.items()}
    change.stage({"id": "a1", "topics": ["ssh"], "window": 60, "ports": [], **COMMANDS, **commands}, items)


def file(change, name):
    return os.path.join(change.prefix, "etc", name)


def text(change, name):
    with open(file(change, name), encoding="utf-8") as stream:
        return stream.read()


def write(change, name, content, mode=0o600):
    with open(file(change, name), "w", encoding="utf-8") as stream:
        stream.write(content)
    os.chmod(file(change, name), mode)


def test_a_confirmed_change_stays(change):
    write(change, "a", "old")
    staged(change, {"/etc/a": "new", "/etc/d/b": "more", "/etc/gone": None})
    assert text(change, "a") == "old", "nothing takes effect before it is applied"
    change.apply("a1")
    assert text(change, "a") == "new" and text(change, "d/b") == "more"
    assert stat.S_IMODE(os.stat(file(change, "a")).st_mode) == 0o640
    change.confirm("a1")
    assert text(change, "a") == "new" and change.read() is None
    assert change.outcome()["outcome"] == "confirmed"


@pytest.mark.parametrize("by", ["timer", "operator", "boot"])
def test_a_change_is_taken_back(change, by):
    write(change, "a", "old", 0o440)
    write(change, "gone", "was here")
    mark = file(change, "ran")
    staged(change, {"/etc/a": "new", "/etc/b": "more", "/etc/gone": None}, restore=[["touch", mark]])
    change.apply("a1")
    assert not os.path.exists(file(change, "gone"))
    change.restore("a1", by)
    assert text(change, "a") == "old" and text(change, "gone") == "was here" and not os.path.exists(file(change, "b"))
    assert stat.S_IMODE(os.stat(file(change, "a")).st_mode) == 0o440
    assert os.path.exists(mark) == (by != "boot"), "at boot nothing runs yet that would have to be told"
    assert change.outcome()["by"] == by and change.read() is None


def test_a_host_that_goes_down_while_it_settles_a_change_is_armed_as_long_as_that_is_pending(change, monkeypatch):
    pending = []
    monkeypatch.setattr(commit_confirmed, "disarm", lambda id_, by: pending.append(change.read()))
    staged(change, {"/etc/a": "new"})
    change.apply("a1")
    change.restore("a1", "operator")
    assert pending == [None]


def test_what_does_not_take_is_taken_back_at_once(change):
    write(change, "a", "old")
    staged(change, {"/etc/a": "new"}, activate=[["sh", "-c", "echo it is broken; exit 3"]])
    with pytest.raises(ChangeError, match="ended with 3: it is broken"):
        change.apply("a1")
    assert text(change, "a") == "old" and change.outcome()["by"] == "host" and change.read() is None


def test_what_cannot_be_restored_does_not_keep_the_rest_from_it(change):
    write(change, "a", "old")
    staged(change, {"/etc/a": "new"}, leave=[["false"]], restore=[["no-such-program"], ["touch", file(change, "ran")]])
    change.apply("a1")
    change.restore("a1", "timer")
    assert text(change, "a") == "old" and os.path.exists(file(change, "ran"))
    assert len(change.outcome()["problems"]) == 2


def test_a_change_that_was_not_made_can_not_be_confirmed(change):
    write(change, "a", "old")
    staged(change, {"/etc/a": "new"}, restore=[["touch", file(change, "ran")]])
    with pytest.raises(ChangeError, match="was not made"):
        change.confirm("a1")
    change.restore("a1", "timer")
    assert text(change, "a") == "old" and not os.path.exists(file(change, "ran")), "there was nothing to restore"


@pytest.mark.parametrize("late", ["confirm", "apply"])
def test_whoever_comes_late_is_told(change, late):
    staged(change, {"/etc/a": "new"})
    change.apply("a1")
    change.restore("a1", "timer")
    with pytest.raises(ChangeError, match="no longer pending"):
        getattr(change, late)("a1")


def test_a_trial_need_not_succeed(change):
    staged(change, {"/etc/a": "new"}, trial=[["false"]], settle=[["false"], ["touch", file(change, "ran")]])
    change.apply("a1")
    change.confirm("a1")
    assert text(change, "a") == "new" and os.path.exists(file(change, "ran"))


def test_a_command_that_hangs_ends(monkeypatch):
    monkeypatch.setattr(commit_confirmed, "COMMAND_TIMEOUT", 0.2)
    with pytest.raises(ChangeError, match="was not done within"):
        commit_confirmed.run(["sleep", "5"])
