# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a failure does to the release that serves, when it could do harm. What is asked of units is only noted here."""

from __future__ import annotations

import json
import os
import time

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import cutover as release_cutover
from ansible_collections.daoman.fastapi.plugins.module_utils._host.cutover import Cutover, failure_text
from ansible_collections.daoman.fastapi.plugins.module_utils._host.lock import Locked
from ansible_collections.daoman.fastapi.plugins.module_utils._host.order import Order
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError
from ansible_collections.daoman.fastapi.plugins.module_utils._host.switch import Instance as RealInstance
from ansible_collections.daoman.fastapi.plugins.module_utils._host.switch import strangers

OLD, NEW = "20260101T000000Z-000000000001", "20260102T000000Z-000000000002"
POINTS = ("before_build", "after_build", "migrate", "before_switch", "after_switch", "after_failure")
SETTINGS = {"env": {"TOKEN": "very-secret"}, "subdirectory": "", "hook_timeout": 5,
            "hooks": {point: [] for point in POINTS}}


class Units:
    """Stands for systemd: notes what is asked of it, and moves the link as the real one does."""

    def __init__(self, layout, calls):
        self.layout, self.calls = layout, calls

    def __call__(self, _layout, id_, _shell):
        return Instance(self, id_)


class Instance:
    def __init__(self, units, id_):
        self.units, self.id, self.service = units, id_, f"shop@{id_}.service"

    def journal(self):
        return f"journal of {self.id}"

    def switch(self, _previous):
        os.unlink(self.units.layout.live)
        os.symlink(self.units.layout.socket(self.id), self.units.layout.live)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments: self.units.calls.append((name, self.id))


class NoSystemd:
    def run(self, *_arguments, **_options):
        return "", 0


@pytest.fixture
def layout(tmp_path):
    layout = Layout("shop", root=str(tmp_path))
    os.makedirs(layout.units)
    for id_ in (OLD, NEW):
        os.makedirs(layout.release(id_))
        with open(layout.release(id_, "manifest.json"), "w", encoding="utf-8") as stream:
            text = {"id": id_, "digest": id_[-12:], "version": "v1", "created": "", "by": "me@here"}
            json.dump({**text, "inputs": {"source": {"revision": "r"}}}, stream)
        for path in layout.unit_paths(id_):
            with open(path, "w", encoding="utf-8"):
                pass
    os.symlink(layout.socket(OLD), layout.live)
    return layout


@pytest.fixture
def calls(layout, monkeypatch):
    calls = []
    monkeypatch.setattr(release_cutover, "Instance", Units(layout, calls))
    return calls


@pytest.fixture
def cutover(layout, calls):
    cutover = Cutover(layout, NoSystemd(), "me@here", "v1")
    cutover.secrets = SETTINGS["env"]
    with cutover.lock.taken("run", "me@here", "v1"):
        yield cutover


def history(layout):
    with open(layout.history, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def live(layout, id_):
    os.unlink(layout.live)
    os.symlink(layout.socket(id_), layout.live)


def test_before_the_switch_the_new_release_is_discarded_and_marked(layout, cutover, calls):
    error = ReleaseError("readiness", "it said very-secret")
    cutover.fail(error, NEW, OLD, SETTINGS, "deploy")
    assert calls == [("discard", NEW)]
    assert layout.live_id() == OLD
    assert layout.state(NEW)["state"] == "failed" and layout.state(OLD)["state"] == "built"
    assert "journal of " + NEW in error.output
    assert history(layout)[-1]["message"] == "it said <TOKEN>"


def test_after_the_switch_users_are_sent_back_and_the_new_release_is_drained(layout, cutover, calls):
    live(layout, NEW)
    error = ReleaseError("guard", "too many errors.")
    cutover.fail(error, NEW, OLD, SETTINGS, "deploy")
    assert layout.live_id() == OLD
    assert calls == [("enable", OLD), ("disable", NEW), ("stop", NEW)]
    assert error.message == "too many errors. Users were sent back."
    assert layout.state(NEW)["state"] == "failed"


def test_once_the_old_release_was_told_to_stop_there_is_no_way_back(layout, cutover, calls):
    live(layout, NEW)
    cutover.drained = True
    cutover.fail(ReleaseError("drain", "the disk is full"), NEW, OLD, SETTINGS, "deploy")
    assert layout.live_id() == NEW
    assert calls == [] and layout.state(NEW)["state"] != "failed"


def test_a_first_release_that_fails_after_the_switch_goes_on(layout, cutover, calls):
    live(layout, NEW)
    cutover.fail(ReleaseError("after_switch", "the hook failed"), NEW, None, SETTINGS, "deploy")
    assert layout.live_id() == NEW and calls == []


def test_an_incomplete_release_is_removed(layout, cutover, calls):
    os.unlink(layout.release(NEW, "manifest.json"))
    for path in layout.unit_paths(NEW):
        os.unlink(path)
    cutover.fail(ReleaseError("build", "no"), NEW, OLD, SETTINGS, "deploy")
    assert layout.ids() == [OLD] and calls == []


def test_a_release_that_does_not_start_in_a_rollback_is_marked(layout, cutover, calls):
    cutover.mark(OLD, "good")
    live(layout, NEW)
    cutover.fail(ReleaseError("readiness", "no"), OLD, NEW, SETTINGS, "rollback")
    assert layout.live_id() == NEW and layout.state(OLD)["state"] == "does not start"
    cutover.mark(OLD, "good")
    cutover.fail(ReleaseError("drain", "no"), OLD, NEW, SETTINGS, "rollback")
    assert layout.state(OLD)["state"] == "good", "what is not its fault is not held against it"


def test_what_fails_after_a_failure_does_not_hide_it(layout, cutover, calls):
    os.mkdir(layout.history)  # nothing can be written there
    error = ReleaseError("start", "the first failure")
    cutover.fail(error, NEW, OLD, SETTINGS, "deploy")
    assert error.message == "the first failure"
    assert "Is a directory" in cutover.warnings[0]


def test_a_run_that_waited_while_another_released_does_not_touch_what_serves_now(layout, cutover, calls):
    live(layout, NEW)
    with pytest.raises(ReleaseError, match="another run has just changed it"):
        cutover.repair(OLD)
    assert calls == []


def test_a_repair_stops_what_is_not_live_but_what_is_to_be_kept(layout, cutover, calls):
    cutover.repair(OLD, keep=(NEW,))
    assert calls == []
    cutover.repair(OLD)
    assert calls == [("stop", NEW)]


@pytest.mark.parametrize("ending", [".socket", ".service", ".socket.new", ".service.new"])
def test_a_run_that_died_while_it_wrote_a_unit_left_a_stranger(layout, ending):
    for path in layout.unit_paths(NEW):
        os.unlink(path)
    assert strangers(layout, OLD) == []
    with open(os.path.join(layout.units, f"shop@{NEW}{ending}"), "w", encoding="utf-8"):
        pass
    assert strangers(layout, OLD) == [NEW]
    RealInstance(layout, NEW, NoSystemd()).stop()
    assert strangers(layout, OLD) == []


def test_a_state_remembers_when_a_release_was_deployed(layout, cutover):
    cutover.mark(OLD, "good", deployed="2026-01-01T00:00:00Z")
    cutover.mark(OLD, "rolled back", reason="x")
    expected = {"format": 1, "state": "rolled back", "deployed": "2026-01-01T00:00:00Z", "reason": "x"}
    assert layout.state(OLD) == expected


# -- state files that do not fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "[", "null", '{"id": "x"}', '{"digest": 1}'])
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "order.json"])
def test_a_state_file_that_does_not_fit_is_named_set_aside_and_in_nobody_s_way(layout, cutover, calls, name, text):
    path = layout.order if name == "order.json" else layout.release(NEW, name)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    cutover.repair(OLD)
    (said,) = cutover.warnings
    assert said.startswith(f"{path} does not fit: ") and f"set aside as {path}.damaged-1" in said
    with open(path + ".damaged-1", encoding="utf-8") as stream:
        assert stream.read() == text
    assert layout.live_id() == OLD and NEW in layout.ids(), "a release whose manifest is damaged is not removed"
    cutover.warnings.clear()
    Cutover(layout, None, "me@here", "v1").repair(OLD)
    assert cutover.warnings == []


# -- what a dead run left unjudged ------------------------------------------------------------------------------------

GUARD = {"seconds": 10, "baseline": 60, "requests": 20, "error_rate": 0.02, "latency": 3, "latency_floor": 0.5}


def switched(layout, before, after, guard=GUARD):
    """A run switched from OLD to NEW and died; nginx logged so many requests before, and as many failed ones after."""
    order = Order(layout)
    order.note(NEW, OLD, order.forward(NEW), [], guard={**guard, "access_log": ""})
    live(layout, NEW)
    begun = time.time() - 3600
    os.utime(layout.live, (begun, begun), follow_symlinks=False)
    os.makedirs(layout.logs)
    with open(layout.log("access"), "w", encoding="utf-8") as stream:
        for count, offset, status in ((before, -30, 200), (after, 3, 500), (before, 3, 200)):
            for number in range(count):
                entry = {"msec": begun + offset + number / 1000, "request_time": 0.01, "status": status}
                entry |= {"method": "GET", "uri": "/x", "upstream_addr": f"unix:/run/shop/{number}.sock"}
                stream.write(json.dumps(entry) + "\n")


@pytest.fixture
def complete(layout):
    path = layout.release(OLD, "manifest.json")
    with open(path, encoding="utf-8") as stream:
        found = json.load(stream)
    found["inputs"]["source"]["subdirectory"] = ""
    found["serve"] = {**SETTINGS, "domain": "x", "health": {}, "timeout_start": 1, "timeout_stop": 1}
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(found, stream)


def test_the_next_run_sends_users_back_from_what_a_dead_one_left(layout, cutover, calls, complete):
    switched(layout, 100, 50)
    wrong = cutover.judge_left(NEW)
    assert "50 of 150 requests after the switch failed" in wrong and "Users were sent back" in wrong
    assert layout.live_id() == OLD and layout.state(NEW)["state"] == "failed"
    assert [call for call in calls if call[0] in {"start", "stop"}] == [("start", OLD), ("stop", NEW)]
    assert history(layout)[-1]["phase"] == "guard"
    assert cutover.judge_left(OLD) == "" and Order(layout).served() == [OLD]


def test_the_next_run_finds_nothing_wrong_with_what_a_dead_one_left(layout, cutover, calls, complete):
    switched(layout, 100, 0)
    assert cutover.judge_left(NEW) == "" and cutover.warnings == []
    cutover.repair(NEW)
    assert layout.live_id() == NEW and layout.state(NEW)["state"] == "good" and not Order(layout).pending


def test_where_the_log_says_nothing_any_more_the_next_run_says_so(layout, cutover, calls, complete):
    switched(layout, 0, 50)
    assert cutover.judge_left(NEW) == ""
    assert "cannot be judged any more" in cutover.warnings[0] and layout.log("access") in cutover.warnings[0]
    assert layout.live_id() == NEW


def test_where_the_release_before_cannot_take_its_place_what_serves_stays(layout, cutover, calls):
    switched(layout, 100, 50)
    assert cutover.judge_left(NEW) == ""
    assert f"Release {OLD} cannot take its place" in cutover.warnings[0]
    assert layout.live_id() == NEW and layout.state(NEW)["state"] == "failed"


def test_a_refusal_is_not_called_a_failure(layout):
    refused = failure_text(layout, Locked("it is locked by me", {}), {})
    assert refused.startswith(f"shop: it is locked by me\nRelease {OLD} ")
    assert failure_text(layout, ReleaseError("build", "x"), {}).startswith("shop: build failed: x\n")


def test_where_a_dead_run_of_before_has_noted_nothing_the_next_says_so(layout, cutover, calls):
    live(layout, NEW)
    cutover.lock.found = {"phase": "guard", "owner": "ann"}
    assert cutover.judge_left(NEW) == "" and "has noted nothing to judge it by" in cutover.warnings[0]


@pytest.mark.parametrize(
    "status, said", [(200, "goes on serving."), (503, "is live and does not serve: 503."), (0, "is live and does not")]
)
def test_that_a_release_goes_on_serving_is_said_after_asking_it(layout, monkeypatch, status, said):
    asked = []
    monkeypatch.setattr(release_cutover, "answer", lambda _layout, id_: asked.append(id_) or (status, str(status)))
    assert f"Release {OLD} {said}" in failure_text(layout, ReleaseError("build", "x"), {})
    assert asked == [OLD]


def test_a_file_system_mounted_noexec_is_named_with_the_failure(layout, cutover, calls, monkeypatch):
    monkeypatch.setattr(release_cutover, "mounted_noexec", lambda path: "/srv")
    error = ReleaseError("check", "ImportError: failed to map segment.")
    cutover.fail(error, NEW, OLD, SETTINGS, "deploy")
    assert "/srv is mounted noexec" in error.message and "noexec" in history(layout)[-1]["message"]
