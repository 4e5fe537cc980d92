# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of an app: it names its holder, only root can hold it, and breaking it ends its holder alone."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import lock as release_lock
from ansible_collections.daoman.fastapi.plugins.module_utils._host.lock import Lock, describe, is_stale, now
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError

ME = ("run-1", "me@here", "deploy of v1")


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.setattr(release_lock, "RENEWAL", str(tmp_path / "renewal"))
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
        ({"held": True, "until": now(time.time() + 3600)}, False),
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
        with (
            pytest.raises(ReleaseError, match="a run that has not yet written its name"),
            Lock(layout).taken(*ME, break_lock=True),
        ):
            pytest.fail("both have it")


# -- other users of the host ------------------------------------------------------------------------------------------

FLOCK = """
import fcntl, os, sys
if int(sys.argv[2]):
    os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
stream = open(sys.argv[1])
fcntl.flock(stream, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")


@contextmanager
def flocked(path, other_user):
    """Another process that holds the file, as nobody or as this user."""
    command = [sys.executable, "-c", FLOCK, path, str(int(other_user))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as it:
        yield it, it.stdout.readline()
        it.stdin.close()


@pytest.fixture
def open_to_all(layout, tmp_path):
    """A lock file as releases before 0.3 made it, in directories that everybody may enter."""
    for path in (tmp_path, *tmp_path.parents[:3]):
        if path.owner() == pwd.getpwuid(os.geteuid()).pw_name and path != Path("/tmp"):
            path.chmod(0o755)
    Path(layout.lock).touch(0o644)
    Path(layout.lock).chmod(0o644)
    return layout


def test_only_root_can_open_the_lock(layout):
    before = os.umask(0)
    try:
        with Lock(layout).taken(*ME):
            assert os.stat(layout.lock).st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    assert os.stat(layout.lock).st_mode & 0o777 == 0o600


@as_root
def test_another_user_cannot_hold_the_lock(layout, open_to_all):
    with Lock(layout).taken(*ME):
        pass
    with flocked(layout.lock, other_user=True) as (other, said):
        assert said == "" and "PermissionError" in other.stderr.read()


@as_root
def test_what_another_user_holds_since_before_does_not_count(open_to_all):
    with flocked(open_to_all.lock, other_user=True) as (_other, said):
        assert said == "held\n"
        assert Lock(open_to_all).is_free()
        with Lock(open_to_all).taken(*ME):
            assert not Lock(open_to_all).is_free()
            assert os.stat(open_to_all.lock).st_mode & 0o777 == 0o600


def test_a_run_of_an_earlier_version_that_goes_on_still_counts(open_to_all):
    with flocked(open_to_all.lock, other_user=False):
        assert not Lock(open_to_all).is_free()
        with pytest.raises(ReleaseError, match="another run is changing it"), Lock(open_to_all).taken(*ME):
            pytest.fail("both have it")


def test_what_an_operator_holds_is_still_held_in_the_new_file(open_to_all):
    held = {"owner": "ops", "since": now(), "reason": "move", "held": True, "until": "", "away": ""}
    Path(open_to_all.lock).write_text(json.dumps(held), encoding="utf-8")
    with pytest.raises(ReleaseError, match="locked by ops"), Lock(open_to_all).taken(*ME):
        pytest.fail("both have it")
    assert os.stat(open_to_all.lock).st_mode & 0o777 == 0o600
    assert Lock(open_to_all).read() == held


@pytest.mark.parametrize("pid", [1, "1", None, [], "bystander"])
def test_breaking_kills_nobody_who_does_not_have_the_lock_open(layout, monkeypatch, pid):
    clock = iter(range(0, 100, 3))
    monkeypatch.setattr(release_lock.time, "monotonic", lambda: next(clock))
    # Never the real one: all processes are children of 1.
    killed = []
    monkeypatch.setattr(release_lock, "kill_tree", killed.append)
    content = {"pid": os.getppid() if pid == "bystander" else pid, "owner": "x", "since": "y", "reason": "z"}
    with Lock(layout).taken(*ME):
        Path(layout.lock).write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ReleaseError, match="is changing it: x since y"), Lock(layout).taken(*ME, break_lock=True):
            pytest.fail("both have it")
    assert killed == []


def test_a_lock_that_was_removed_with_its_app_is_made_anew(layout, monkeypatch):
    real, files = release_lock.fcntl.flock, []

    def removed_once(stream, kind):
        real(stream, kind)
        files.append(stream)
        if len(files) == 1:
            os.unlink(layout.lock)

    monkeypatch.setattr(release_lock.fcntl, "flock", removed_once)
    with Lock(layout).taken(*ME):
        assert len(files) == 2
        assert Lock(layout).read()["owner"] == "me@here"


# -- content that does not fit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["[", "null", "[]", '{"owner": 1}', '{"held": "yes"}', '{"until": "soon"}', '{"format": 99, "held": true}']
)
def test_content_that_does_not_fit_is_set_aside_and_blocks_nobody(layout, text):
    Path(layout.lock).write_text(text, encoding="utf-8")
    os.chmod(layout.lock, 0o600)
    lock = Lock(layout)
    with lock.taken(*ME):
        pass
    assert Path(layout.lock + ".damaged-1").read_text(encoding="utf-8") == text
    assert layout.lock + " does not fit" in lock.notes[0] and Path(layout.lock).read_text(encoding="utf-8") == ""


def test_others_read_whole_content_while_it_is_written(layout, monkeypatch):
    seen, truncate = [], os.ftruncate

    def looked_at(descriptor, size):
        seen.append(json.loads(Path(layout.lock).read_text(encoding="utf-8")))
        truncate(descriptor, size)

    with Lock(layout).taken(*ME) as lock:
        lock.note(phase="x" * 1000)
        monkeypatch.setattr(os, "ftruncate", looked_at)
        lock.note(phase="drain")
        monkeypatch.undo()
    assert [found["phase"] for found in seen] == ["drain"]


def test_a_run_is_away_for_as_long_as_it_is_whatever_the_clock_says(layout, monkeypatch):
    with Lock(layout).taken(*ME) as lock:
        lock.note(away=now())
    found = Lock(layout).read()
    monkeypatch.setattr(release_lock.time, "time", lambda: 0)
    assert not is_stale(found)
    started = release_lock.uptime() + release_lock.AWAY + 1
    monkeypatch.setattr(release_lock, "uptime", lambda: started)
    assert is_stale(found)


# -- waiting ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(release_lock, "LOOK", 0.01)


def taken(layout, run="run-2"):
    with Lock(layout).taken(run, "you@there", "other"):
        return "done"


def test_a_second_run_waits_for_the_first_and_says_for_whom(layout, quick):
    said = []
    with Lock(layout).taken(*ME) as lock:
        lock.note(away=now())  # goes on in another process, as a run in steps does
    ending = threading.Timer(0.2, lambda: os.truncate(layout.lock, 0))
    ending.start()
    begun = time.monotonic()
    assert release_lock.patiently(Lock(layout), 30, lambda: taken(layout), said.append) == "done"
    assert 0.1 < time.monotonic() - begun < 5
    assert len(said) == 1 and said[0].startswith("me@here since 20") and "for: deploy of v1" in said[0]


def test_the_waiting_has_an_end_and_says_its_option(layout, quick):
    with Lock(layout).taken(*ME) as lock:
        lock.note(away=now())
    with pytest.raises(ReleaseError, match="locked by me@here") as error:
        release_lock.patiently(Lock(layout), 0.1, lambda: taken(layout), lambda holder: None)
    assert error.value.message.endswith("It was waited for 0.1 s (lock_wait).")


def test_nobody_waits_unless_asked_to_and_for_other_failures(layout):
    def fail():
        raise ReleaseError("build", "x")

    for seconds, work in ((0, lambda: taken(layout)), (30, fail)):
        with (
            Lock(layout).taken(*ME),
            pytest.raises(ReleaseError),
        ):
            release_lock.patiently(Lock(layout), seconds, work, lambda holder: pytest.fail("it waits"))


def test_two_that_wait_come_one_after_the_other(layout, quick):
    order = []

    def work(name):
        with Lock(layout).taken(name, name, "x"):
            order.append(f"{name} begins")
            time.sleep(0.05)
            order.append(f"{name} ends")

    def wait(name):
        release_lock.patiently(Lock(layout), 30, lambda: work(name), lambda holder: None)

    threads = [threading.Thread(target=wait, args=[name]) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line.split()[1] for line in order] == ["begins", "ends"] * 3
