# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a rollback goes, what is held, and how a host of 0.1 or 0.2 is taken over."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host.order import Order
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError


class App:
    """Releases on a disk. v1 is of revision r1, and so on."""

    def __init__(self, top):
        self.layout = Layout("shop", root=str(top))
        os.makedirs(self.layout.releases)

    def id(self, number):
        # Its time tells nothing: the clock went backwards.
        return f"{20_300_000 - number}T000000Z-{number:012x}"

    def make(self, number, state="", **facts):
        id_ = self.id(number)
        os.makedirs(self.layout.release(id_))
        manifest = {"id": id_, "digest": f"d{number}", "created": "", "by": "me", "version": f"v{number}"}
        manifest["inputs"] = {"source": {"revision": f"r{number}"}}
        self.write(id_, "manifest.json", {**manifest, "created": facts.pop("created", "")})
        if state:
            self.write(id_, "state.json", {"state": state, **facts})

    def write(self, id_, name, data):
        with open(self.layout.release(id_, name), "w", encoding="utf-8") as stream:
            json.dump(data, stream)

    def mark(self, number, state, **facts):
        id_ = self.id(number)
        self.write(id_, "state.json", {**self.layout.state(id_), "state": state, **facts})

    def serve(self, number, link="live"):
        path = getattr(self.layout, link)
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(self.layout.socket(self.id(number)) if link == "live" else self.id(number), path)

    def deploy(self, number, settle=True):
        if not os.path.exists(self.layout.release(self.id(number))):
            self.make(number)
        order, live = Order(self.layout), self.layout.live_id()
        guard = {} if settle else {"seconds": 1}
        sequence = order.note(self.id(number), live, order.forward(self.id(number)), [], guard=guard)
        self.serve(number)
        if settle:
            order.settle()
            self.mark(number, "good", sequence=sequence)

    def back(self, number):
        order, live, id_ = Order(self.layout), self.layout.live_id(), self.id(number)
        left, target = self.layout.manifest(live), self.layout.manifest(id_)
        is_back = order.is_back(id_)
        holds = order.holds_after_rollback(target, left, "ann", "2026-01-01T00:00:00Z", "wrong prices")
        sequence = order.note(id_, live, order.back(id_) if is_back else order.forward(id_), holds)
        self.serve(number)
        order.settle()
        self.mark(number, "good", sequence=sequence)
        if is_back:
            self.mark(int(live[-12:], 16), "rolled back")

    def target(self, wanted=""):
        return f"v{int(Order(self.layout).target(self.layout.releases_by_age(), wanted)[-12:], 16)}"


@pytest.fixture
def app(tmp_path):
    return App(tmp_path)


def test_a_rollback_goes_to_what_served_before_and_not_to_what_came_before(app):
    for number in (1, 2, 3, 4):
        app.deploy(number)
    app.back(1)
    app.deploy(5)
    assert app.target() == "v1"
    app.back(1)
    with pytest.raises(ReleaseError, match=r"no earlier release .* v2 \(.*, v4 \(.*, v5 \(.*, v1 \("):
        app.target()


def test_rollbacks_lead_step_by_step_back(app):
    for number in (1, 2, 3):
        app.deploy(number)
    for number in (2, 1):
        assert app.target() == f"v{number}"
        app.back(number)


def test_a_version_that_is_deployed_again_comes_after_what_it_replaced(app):
    for number in (1, 2, 3, 1):
        app.deploy(number)
    assert app.target() == "v3"
    app.back(3)
    assert app.target() == "v2"


def test_what_was_rolled_back_and_is_named_again_leads_back_to_what_served_instead(app):
    app.deploy(1)
    app.deploy(2)
    app.back(1)
    app.back(2)
    assert app.target() == "v1"


@pytest.mark.parametrize("state", ["failed", "rolled back", "does not start"])
def test_what_cannot_serve_is_not_offered(app, state):
    for number in (1, 2, 3):
        app.deploy(number)
    app.mark(2, state)
    assert app.target() == "v1"


def test_what_is_not_offered_can_be_named_unless_it_failed(app):
    for number in (1, 2, 3):
        app.deploy(number)
    app.mark(1, "does not start")
    app.mark(2, "failed")
    assert app.target("v1") == "v1"
    with pytest.raises(ReleaseError, match=r"cannot go to release 'v2': it is failed\. There are: v1 \(20.*, v3 \("):
        app.target("v2")


def test_a_name_that_nothing_has_gets_the_list(app):
    app.deploy(1)
    app.deploy(2)
    with pytest.raises(ReleaseError) as refused:
        app.target("v9")
    assert refused.value.message == (
        "cannot go to release 'v9': there is none of that name. "
        f"There are: v1 ({app.id(1)}), v2 ({app.id(2)}, it serves)."
    )


def test_a_release_is_named_by_its_id_its_version_or_its_commit(app):
    app.deploy(1)
    app.deploy(2)
    for name in (app.id(1), app.id(1)[-12:], "v1"):
        assert app.target(name) == "v1"


def test_a_switch_that_did_not_happen_changes_nothing(app):
    app.deploy(1)
    app.deploy(2)
    app.make(3)
    order = Order(app.layout)
    order.note(app.id(3), app.id(2), order.forward(app.id(3)), [])
    assert Order(app.layout).served() == [app.id(1), app.id(2)] and not Order(app.layout).pending


def test_a_switch_counts_from_the_moment_at_which_it_happens(app):
    app.deploy(1)
    app.deploy(2, settle=False)
    order = Order(app.layout)
    assert order.served() == [app.id(1), app.id(2)] and order.unjudged["previous"] == app.id(1)
    assert app.target() == "v1"


def test_what_is_never_pruned(app):
    for number in (1, 2, 3):
        app.deploy(number)
    app.back(2)
    order, releases = Order(app.layout), app.layout.releases_by_age()
    assert order.kept(releases) == {app.id(2), app.id(3), app.id(1)}


# -- hosts of before --------------------------------------------------------------------------------------------------


def test_a_host_of_0_2_keeps_its_order(app):
    for number, state, deployed in ((1, "good", 4), (2, "good", 2), (3, "rolled back", 3), (4, "failed", 1)):
        app.make(number, state, deployed=f"2026-01-0{deployed}T00:00:00Z")
    app.serve(1)
    assert app.target() == "v2", "by the time at which it was deployed"
    app.deploy(5)
    assert app.target() == "v1"
    app.back(1)
    assert app.target() == "v2"


def test_what_0_2_had_rolled_back_past_is_not_offered(app):
    for number in (1, 2, 3):
        app.make(number, "good", deployed=f"2026-01-0{number}T00:00:00Z")
    app.serve(1)
    with pytest.raises(ReleaseError, match="no earlier release"):
        app.target()


def test_the_releases_that_0_1_served_count_although_it_noted_no_states(app):
    for number in (1, 2, 3):
        app.make(number, created=f"2026-01-0{number}T00:00:00Z")
    app.serve(3)
    app.serve(2, "previous")
    assert app.target() == "v2"
    app.deploy(4)
    assert app.target() == "v3"


@pytest.mark.parametrize("text", ["", "[", "null", '{"format": 1}', '{"format": 99}'])
def test_an_order_that_does_not_fit_is_told_by_the_releases(app, text):
    for number in (1, 2, 3):
        app.deploy(number)
    with open(app.layout.order, "w", encoding="utf-8") as stream:
        stream.write(text)
    assert Order(app.layout).damage and app.target() == "v2"


# -- what is held -----------------------------------------------------------------------------------------------------


def held(app, revision, digest="other", serving="r1"):
    hold = Order(app.layout).hold_on(revision, digest, serving)
    return hold.get("version", "")


def test_what_users_were_sent_back_from_is_held_with_who_and_why(app):
    app.deploy(1)
    app.deploy(2)
    assert not held(app, "r2")
    app.back(1)
    assert held(app, "r2") == "v2" and not held(app, "r3") and not held(app, "r1")
    hold = Order(app.layout).holds()[0]
    assert (hold["by"], hold["reason"], hold["release"]) == ("ann", "wrong prices", app.id(2))


def test_settings_are_held_where_the_revision_is_the_same(app):
    """Or a rollback of settings would hold the revision that serves."""
    app.deploy(1)
    app.make(2)
    manifest = app.layout.manifest(app.id(2))
    manifest["inputs"]["source"]["revision"] = "r1"
    app.write(app.id(2), "manifest.json", manifest)
    app.deploy(2)
    app.back(1)
    assert held(app, "r1", "d2") == "v2" and not held(app, "r1", "d3") and not held(app, "r1", "d1")


def test_a_rollback_to_what_is_held_ends_its_hold_and_holds_what_it_leaves(app):
    app.deploy(1)
    app.deploy(2)
    app.back(1)
    app.back(2)
    assert [hold["version"] for hold in Order(app.layout).holds()] == ["v1"]


def test_only_another_revision_ends_a_hold(app):
    app.deploy(1)
    app.deploy(2)
    app.back(1)
    order = Order(app.layout)
    assert [hold["version"] for hold in order.holds_after_deploy("r1", "r1")] == ["v2"]
    assert order.holds_after_deploy("r3", "r1") == []
