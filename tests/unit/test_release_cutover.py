# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a failure does to the release that serves, when it could do harm. What is asked of units is only noted here."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import cutover as release_cutover
from ansible_collections.daoman.fastapi.plugins.module_utils._host.cutover import Cutover, failure_text
from ansible_collections.daoman.fastapi.plugins.module_utils._host.lock import Locked
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
            json.dump({"id": id_, "version": "v1", "created": "", "inputs": {"source": {"revision": "r"}}}, stream)
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


def test_a_failed_rollback_does_not_condemn_a_release_that_was_good(layout, cutover, calls):
    cutover.mark(OLD, "good")
    live(layout, NEW)
    cutover.fail(ReleaseError("readiness", "no"), OLD, NEW, SETTINGS, "rollback")
    assert layout.live_id() == NEW and layout.state(OLD)["state"] == "good"


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
    assert layout.state(OLD) == {"state": "rolled back", "deployed": "2026-01-01T00:00:00Z", "reason": "x"}


def test_a_refusal_is_not_called_a_failure(layout):
    refused = failure_text(layout, Locked("it is locked by me", {}), {})
    assert refused.startswith(f"shop: it is locked by me\nRelease {OLD} goes on serving.")
    assert failure_text(layout, ReleaseError("build", "x"), {}).startswith("shop: build failed: x\n")


def test_systemd_knows_the_units_after_each_run(layout, cutover, calls, monkeypatch):
    """Without it systemd calls every unit of the host outdated, at each call by hand."""
    commands = []
    monkeypatch.setattr(cutover.shell, "run", lambda argv, *_rest, **_options: (commands.append(argv), ("", 0))[1])
    monkeypatch.setattr(cutover, "ready", lambda *_arguments: None)
    cutover.go_to(NEW, OLD, SETTINGS)
    assert commands[-1] == ["systemctl", "daemon-reload"]
    commands.clear()
    cutover.fail(ReleaseError("ready", "x"), NEW, OLD, SETTINGS, "deploy")
    assert ["systemctl", "daemon-reload"] in commands
