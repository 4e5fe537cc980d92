# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a deploy begins: what it asks the source for, what it refuses, and where it stops for other hosts."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import accounts, source
from ansible_collections.daoman.fastapi.plugins.module_utils._host import deploy as host_deploy
from ansible_collections.daoman.fastapi.plugins.module_utils._host import lock as release_lock
from ansible_collections.daoman.fastapi.plugins.module_utils._host.lock import Lock
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError

COMMIT = "9c1d2f0a77be51aa0e61d3c4b2f1a0998877665a"
PARAMS = {
    "name": "shop",
    "source": "https://git.example.com/shop.git",
    "version": "main",
    "until": "done",
    "upload": "",
    "run": "run-1",
    "who": "me@here",
    "reason": "x",
    "break_lock": False,
}


@pytest.fixture
def deploy(tmp_path, monkeypatch):
    """A deploy on a host of straw: nothing of it is run, but what a test calls."""
    monkeypatch.setattr(release_lock, "RENEWAL", str(tmp_path / "renewal"))
    made = object.__new__(host_deploy.Deploy)
    made.params, made.check, made.diff, made.result = dict(PARAMS), False, False, {}
    made.layout = Layout("shop", root=str(tmp_path))
    os.makedirs(made.layout.base)
    made.lock = Lock(made.layout)
    made.source = SimpleNamespace(type="git", is_local=False, revision=lambda: COMMIT, location="")
    made.cutover = SimpleNamespace(warnings=[], facts={}, phases={}, outcome=dict, repair=lambda live: None)
    made.previous = made.data = made.id = made.on_wait = None
    made.version = "main"
    monkeypatch.setattr(made, "_directories", lambda: None)
    monkeypatch.setattr(accounts, "refuse_foreign", lambda layout: None)
    return made


def test_a_host_takes_the_revision_that_another_one_resolved(deploy):
    deploy._resolve()
    found = deploy.result["resolved"]
    assert found["revision"] == COMMIT and "git.example.com" not in json.dumps(found)
    deploy.source.revision = lambda: pytest.fail("the source is asked again")
    deploy.params["resolved"] = found
    assert deploy._revision() == COMMIT


@pytest.mark.parametrize("changes", [{"version": "v2"}, {"source": "https://git.example.com/other.git"}])
def test_a_host_with_another_source_or_version_asks_by_itself(deploy, changes):
    deploy._resolve()
    deploy.params.update(changes, resolved={**deploy.result["resolved"], "revision": "0" * 40})
    assert deploy._revision() == COMMIT


def test_a_deploy_of_an_app_that_was_never_set_up_says_so(deploy):
    deploy.params["set_up"] = False
    with pytest.raises(ReleaseError, match=r"never set up on this host.*run daoman\.fastapi\.site once"):
        deploy._prepare()


def test_a_host_that_holds_only_the_lock_goes_on_with_the_first_stage(deploy, monkeypatch):
    deploy.params["until"] = "lock"
    deploy.data = {"source": {"revision": COMMIT}}
    deploy.id = "20260131T101500Z-3f9a1c0b7d2e"
    with deploy._locked():
        deploy._through("fetch")
    pending = deploy.lock.pending("run-1")
    assert pending["stage"] == "lock"
    done = []
    for stage in host_deploy.STAGES:
        monkeypatch.setattr(deploy, f"_{stage}", lambda stage=stage: done.append(stage), raising=False)
    deploy.params["until"] = "seal"
    deploy._go_on(pending)
    assert done == ["fetch", "build", "seal"]


def test_an_upload_comes_with_the_call_that_needs_it(deploy):
    deploy.source.is_local = True
    assert deploy._needs_upload() and deploy.result["need_upload"]
    deploy.params["until"] = "lock"
    assert not deploy._needs_upload()


@pytest.mark.parametrize(
    ("url", "there", "needed"),
    [
        ("https://git.example.com/a.git", set(), "git"),
        ("git@git.example.com:a.git", {"git"}, "ssh"),
        ("ssh://git@git.example.com/a.git", {"git"}, "ssh"),
    ],
)
def test_a_program_that_is_missing_is_named_with_who_installs_it(url, there, needed, monkeypatch):
    monkeypatch.setattr(source.shutil, "which", lambda name: name if name in there else None)
    asked = SimpleNamespace(url=url, location=url)
    with pytest.raises(ReleaseError, match=rf"needs the program {needed}, .*daoman\.fastapi\.site installs it"):
        source.Source._refuse_missing(asked)
    there.add(needed)
    source.Source._refuse_missing(asked)
