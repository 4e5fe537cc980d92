# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host remembers, and the apps on it that the inventory does not name."""

from __future__ import annotations

import json

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import accounts, host_state
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import ReleaseError
from ansible_collections.daoman.fastapi.plugins.plugin_utils.collection_version import collection_version
from fastapi_doctor import judge_orphans

ID = "20260131T101500Z-3f9a1c0b7d2e"


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "state" / "host.json")


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with the apps shop, whose release serves, and blog, and with things of others."""
    monkeypatch.setattr(accounts, "uids", lambda layout: [])
    for name in ("shop", "blog"):
        release = tmp_path / "srv" / name / "releases" / ID
        release.mkdir(parents=True)
        manifest = {
            "id": ID, "digest": "", "created": "", "by": "", "version": "v1",
            "inputs": {"source": {"revision": "1"}}, "serve": {"domain": f"{name}.example.com"},
        }
        (release / "manifest.json").write_text(json.dumps(manifest))
        (release / "manifest.json").chmod(0o600)
    (tmp_path / "srv/shop/live.sock").symlink_to(f"/run/shop/{ID}.sock")
    (tmp_path / "srv/ftp").mkdir()
    (tmp_path / "srv/shop.removed-20260131T101500Z").mkdir()
    return str(tmp_path)


def test_an_app_that_the_inventory_does_not_name_is_an_orphan(host):
    assert host_state.orphans(["shop", "other"], host) == ["blog"]
    assert host_state.orphans(["shop", "blog"], host) == []


def test_the_refusal_names_the_app_and_the_ways_out(host):
    text = host_state.refusal(["shop", "blog"], host)
    assert text.startswith(
        "2 apps of this host are not in fastapi_apps: shop (shop.example.com, v1), blog. Nothing was changed."
    )
    assert "{name: shop, state: absent}" in text
    assert "-e keep_orphans=true" in text


def test_units_of_releases_without_an_app_are_found(host, tmp_path):
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for name in (f"shop@{ID}.service", f"gone@{ID}.service", "getty@tty1.service", "gone.service"):
        (units / name).touch()
    assert host_state.orphaned_units(["shop"], host) == [f"gone@{ID}.service"]


@pytest.mark.parametrize(
    ("there", "this", "refused"),
    [
        ("0.3.0", "0.2.0", True),
        ("0.10.0", "0.9.1", True),
        ("0.3.0", "0.3.0-dev1", True),
        ("0.3.0", "0.3.0", False),
        ("0.3.0-dev1", "0.3.0", False),
        ("0.3.0", "1.0.0", False),
    ],
)
def test_an_older_collection_stops_and_names_both(path, there, this, refused):
    host_state.refuse_downgrade(this, path=path)  # a host that remembers nothing
    host_state.record(there, ["shop"], path)
    host_state.refuse_downgrade(this, allow=True, path=path)
    if not refused:
        host_state.refuse_downgrade(this, path=path)
        return
    with pytest.raises(ReleaseError, match=rf"(?s){there} .*{this}.*allow_downgrade=true"):
        host_state.refuse_downgrade(this, path=path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "1"}', '{"format": 1, "collection": 2, "apps": []}'])
def test_a_state_of_another_shape_is_none(path, text, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state/host.json").write_text(text)
    assert host_state.recorded(path) == {}
    host_state.record("0.3.0", ["b", "a"], path)
    assert host_state.recorded(path)["apps"] == ["a", "b"]


def test_the_collection_knows_its_version_in_a_clone_and_installed(tmp_path):
    assert collection_version().count(".") == 2
    (tmp_path / "MANIFEST.json").write_text('{"collection_info": {"version": "9.8.7"}}')
    assert collection_version.__wrapped__(str(tmp_path)) == "9.8.7"


FACTS = {
    "recorded": ["shop"],
    "apps": ["shop", "blog"],
    "units": [f"gone@{ID}.service"],
    "accounts": ["gone", "_gone"],
    "maintenance": [{"site": "shop", "seconds": 7200}],
}


def test_the_doctor_names_what_is_left():
    found = [(item.id, item.subject) for item in judge_orphans.judge({"orphans": FACTS}, {})]
    assert found == [
        ("orphaned-app", "blog"),
        ("orphaned-unit", f"gone@{ID}.service"),
        ("orphaned-account", "gone"),
        ("orphaned-account", "_gone"),
        ("maintenance-on", "shop"),
    ]


def test_the_doctor_knows_no_orphans_on_a_host_that_remembers_none():
    facts = {**FACTS, "recorded": None, "units": [], "accounts": [], "maintenance": []}
    assert list(judge_orphans.judge({"orphans": facts}, {})) == []
