# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps for its deploy user."""

from __future__ import annotations

import json
import os
import stat
import zipfile

from ansible_collections.daoman.fastapi.plugins.module_utils._host import kit as release_kit

PREPARED = {"name": "shop", "version": "v1", "env": {"KEY": "s3cret"}, "who": "ann@laptop", "run": "1", "until": "done"}


def archive(path, year, text="print()"):
    with zipfile.ZipFile(path, "w") as target:
        target.writestr(zipfile.ZipInfo("ansible/basic.py", (year, 1, 1, 0, 0, 0)), text)
    return str(path)


def test_nothing_is_kept_where_there_is_no_deploy_user(tmp_path):
    assert not release_kit.save(json.dumps(PREPARED), kit=str(tmp_path / "none"), archive=archive(tmp_path / "a", 2020))
    assert not (tmp_path / "none").exists()


def test_it_is_kept_once(tmp_path):
    kit = str(tmp_path / "kit")
    os.mkdir(kit)

    def save(change=(), year=2020, **how):
        return release_kit.save(json.dumps({**PREPARED, **dict(change)}), kit=kit, **{
            "archive": archive(tmp_path / "a", year), **how})

    assert save(check=True) and not os.listdir(kit)
    assert save()
    assert sorted(os.listdir(kit)) == ["code.zip", "shop.json"]
    for name in os.listdir(kit):
        assert stat.S_IMODE(os.stat(os.path.join(kit, name)).st_mode) == 0o600
    with open(os.path.join(kit, "shop.json"), encoding="utf-8") as stream:
        assert json.load(stream) == {"name": "shop", "version": "v1", "env": {"KEY": "s3cret"}}
    with zipfile.ZipFile(os.path.join(kit, "code.zip")) as code:
        assert code.read("ansible/basic.py") == b"print()"

    assert not save({"who": "bob@laptop", "run": "2"}, year=2021), "a run, and the time of the same code, are no news"
    assert save({"version": "v2"})
    assert save({"version": "v2"}, archive=archive(tmp_path / "b", 2021, "print(1)"))
