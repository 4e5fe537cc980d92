# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unit that is given the key of a source never runs beside one that runs what is in the source."""

from __future__ import annotations

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import accounts, cage
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The cage of an app, whose units only note what they were to run, and the accounts that were ended."""
    monkeypatch.setattr(cage, "WORK", str(tmp_path / "fastapi/units"))
    ended = []
    monkeypatch.setattr(accounts, "end_builds", lambda layout, spared: ended.append((layout.name, spared)))
    found = cage.Cage(Layout("shop", root=str(tmp_path)), shell=None)
    found.ended = ended
    found.during = lambda: None
    monkeypatch.setattr(found, "_run", lambda _kind, _service, argv, *_, **__: (argv, found.during()))
    return found


def fetch(shop):
    return shop.build(["git"], "fetch", "", fetches=True)


def build(shop):
    return shop.build(["uv"], "build", "")


def test_the_source_is_not_asked_while_it_is_built(shop):
    shop.during = lambda: fetch(shop)
    with pytest.raises(ReleaseError, match="another run is building it just now") as caught:
        build(shop)
    assert caught.value.phase == "lock"
    shop.during = lambda: None
    assert fetch(shop)[0] == ["git"]


def test_several_runs_ask_the_source_at_a_time(shop):
    asked = []

    def ask_again():
        shop.during = lambda: None
        asked.append(fetch(shop))

    shop.during = ask_again
    assert fetch(shop)[0] == ["git"] and len(asked) == 1


def test_what_an_interrupted_build_left_ends_before_the_source_is_asked(shop):
    shop.during = lambda: shop.ended.append("asked")
    fetch(shop)
    assert shop.ended == [("shop", ["/fastapi-build-shop@resolve-", "/fastapi-build-shop@fetch-"]), "asked"]
