# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps for its deploy user."""

from __future__ import annotations

import json
import os
import stat

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import kit as release_kit

KEPT = {"name": "shop", "source_type": "git", "source": "git@host:x", "version": "v1", "env": {"KEY": "s3cret"}}
PREPARED = {**KEPT, "who": "ann@laptop", "run": "1", "until": "done"}


def test_nothing_is_kept_where_there_is_no_deploy_user(tmp_path):
    assert not release_kit.save(json.dumps(PREPARED), kit=str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_it_is_kept_once_and_without_the_code_of_an_older_version(tmp_path):
    kit = tmp_path / "kit"
    kit.mkdir()
    (kit / "code.zip").write_bytes(b"PK")

    def save(change=(), package=str(tmp_path), **how):
        return release_kit.save(json.dumps({**PREPARED, **dict(change)}), kit=str(kit), package=package, **how)

    assert save(check=True) and os.listdir(kit) == ["code.zip"]
    assert save(package=str(tmp_path / "none"))
    assert sorted(os.listdir(kit)) == ["code.zip", "shop.json"], "its fastapi-deploy still needs it"
    (kit / "shop.json").unlink()
    assert save()
    assert os.listdir(kit) == ["shop.json"]
    assert stat.S_IMODE((kit / "shop.json").stat().st_mode) == 0o600
    kept = {**KEPT, "kit": release_kit.VERSION}
    assert release_kit.load("shop", str(kit)) == (kept, "")
    assert release_kit.load("blog", str(kit)) == (None, "")
    assert not save({"who": "bob@laptop", "run": "2"}), "a run is no news"
    assert save({"version": "v2"})


@pytest.mark.parametrize("text", ["", "[", "[]", "{}", "null"])
def test_settings_that_do_not_fit_are_set_aside_and_kept_anew(tmp_path, text):
    (tmp_path / "shop.json").write_text(text)
    assert release_kit.load("shop", str(tmp_path))[1]
    assert release_kit.save(json.dumps(PREPARED), kit=str(tmp_path), package=str(tmp_path / "none"))
    assert (tmp_path / "shop.json.damaged-1").read_text() == text
    assert release_kit.load("shop", str(tmp_path))[0]["version"] == "v1"
