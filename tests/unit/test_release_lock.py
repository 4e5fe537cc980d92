# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of an app: who holds it is said, what a killed run left is known for that, and breaking ends its holder."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import lock as release_lock
from ansible_collections.daoman.fastapi.plugins.module_utils._host.lock import Lock, describe, is_stale, now
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError

ME = ("run-1", "me@here", "deploy of v1")


@pytest.fixture
def layout(tmp_path):
    layout = Layout("shop", root=str(tmp_path))
    os.makedirs(layout.base)
    return layout


def test_a_lock_says_whose_it_is_while_it_is_held_and_nothing_after(layout):
    with Lock(layout).taken(*ME) as lock:
        lock.note(phase="build")
        said = describe(Lock(layout).read())
        assert said.startswith("me@here since 20") and said.endswith("for: deploy of v1, in phase build")
    assert Lock(layout).read() == {}


def test_a_lock_is_free_unless_a_process_holds_it(layout):
    assert Lock(layout).is_free()
    with Lock(layout).taken(*ME):
        assert not Lock(layout).is_free()
    assert Lock(layout).is_free()


def test_a_failure_lets_go(layout):
    with pytest.raises(ReleaseError, match="x"), Lock(layout).taken(*ME):
        raise ReleaseError("build", "x")
    assert Lock(layout).read() == {}


def test_the_second_is_told_who_has_it(layout):
    with (
        Lock(layout).taken(*ME),
        pytest.raises(ReleaseError, match=r"another run is changing it: me@here .*for: deploy of v1.*break_lock=true"),
        Lock(layout).taken("run-2", "you@there", "other"),
    ):
        pytest.fail("both have it")


def test_what_a_killed_run_left_is_found_and_overcome(layout):
    left = {"run": "run-0", "owner": "you@there", "since": now(), "reason": "x", "pid": 1, "boot": "b", "away": ""}
    with open(layout.lock, "w", encoding="utf-8") as stream:
        json.dump(left, stream)
    with Lock(layout).taken(*ME) as lock:
        assert lock.found == left


def test_a_run_that_is_between_two_steps_keeps_others_out_and_goes_on_itself(layout):
    with Lock(layout).taken(*ME) as lock:
        since = lock.content["since"]
        lock.note(away=now(), stage="build")
    with pytest.raises(ReleaseError, match="locked by me@here"), Lock(layout).taken("run-2", "you", "other"):
        pytest.fail("both have it")
    assert Lock(layout).pending("run-2") == {}
    assert Lock(layout).pending("run-1")["stage"] == "build"
    with Lock(layout).taken(*ME) as lock:
        assert (lock.content["since"], lock.content["stage"], lock.found) == (since, "build", {})
    assert Lock(layout).read() == {}


@pytest.mark.parametrize(
    "change, stale",
    [
        ({}, False),
        ({"away": "2020-01-01T00:00:00Z"}, True),
        ({"boot": "before"}, True),
        ({"away": ""}, True),
        ({"away": "", "held": True}, False),
        ({"away": "", "held": True, "boot": "before"}, False),
        ({"held": True, "until": "2020-01-01T00:00:00Z"}, True),
        ({"held": True, "until": now(time.time() + 60)}, False),
    ],
)
def test_a_lock_without_a_process_is_stale_unless_its_owner_is_away_for_a_while(change, stale):
    assert is_stale({"away": now(), "boot": "this", **change}, boot="this") is stale


HOLDER = """
import fcntl, json, subprocess, sys, os
stream = open(sys.argv[1], "w")
fcntl.flock(stream, fcntl.LOCK_EX)
child = subprocess.Popen(["sleep", "60"])
json.dump({"pid": os.getpid(), "owner": "x", "since": "y", "reason": "z", "child": child.pid}, stream)
stream.flush()
print("held", flush=True)
child.wait()
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_breaking_a_lock_kills_its_holder_with_what_it_started(layout):
    command = [sys.executable, "-c", HOLDER, layout.lock]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        child = Lock(layout).read()["child"]
        with Lock(layout).taken(*ME, break_lock=True) as lock:
            assert lock.found["owner"] == "x"
            assert holder.wait(5) == -9
            assert not is_running(child)


def test_breaking_gives_up_when_the_holder_cannot_be_ended(layout, monkeypatch):
    clock = iter(range(0, 100, 3))
    monkeypatch.setattr(release_lock.time, "monotonic", lambda: next(clock))
    with open(layout.lock, "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ReleaseError, match="a run that has not said yet"), Lock(layout).taken(*ME, break_lock=True):
            pytest.fail("both have it")
