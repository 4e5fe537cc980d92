# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""State files: what fits, what is said of the rest, and that none of it is lost."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import records, tidy
from ansible_collections.daoman.fastapi.plugins.module_utils._host.info import damaged_of, set_aside_of
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout

SHAPE = {"id": str, "sequence?": int, "served": [str], "inputs?": {"source": {"revision": str}}, "size?": (int, float)}


@pytest.mark.parametrize(
    "value, wrong",
    [
        ({"id": "x", "served": []}, ""),
        ({"id": "x", "served": ["a"], "sequence": 1, "size": 1.5, "more": None}, ""),
        ({"served": []}, "id is missing"),
        ({"id": 1, "served": []}, "id is not of type str"),
        ({"id": "x", "served": ["a", None]}, "served[1] is not of type str"),
        ({"id": "x", "served": {}}, "served is not a list"),
        ({"id": "x", "served": [], "sequence": True}, "sequence is not of type int"),
        ({"id": "x", "served": [], "inputs": {"source": {}}}, "inputs.source.revision is missing"),
        ({"id": "x", "served": [], "size": "big"}, "size is not of type int or float"),
        ([], "it is not an object"),
    ],
)
def test_what_does_not_fit_is_named(value, wrong):
    assert records.misfit(value, SHAPE) == wrong


def test_a_format_of_a_later_version_does_not_fit():
    text = json.dumps({"id": "x", "served": [], "format": 2})
    assert records.parse(text, SHAPE, 2)[0] and "newer than 1" in records.parse(text, SHAPE, 1)[1]


def test_no_file_is_no_damage_and_nothing_makes_a_reader_wait(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    assert records.read(str(tmp_path / "none"), SHAPE, 1) == (None, "")
    for name in ("fifo", "link", "."):
        assert records.read(str(tmp_path / name), SHAPE, 1)[1]


def test_what_was_set_aside_before_is_not_overwritten(tmp_path):
    for number in (1, 2):
        (tmp_path / "x.json").write_text(str(number))
        assert f"x.json.damaged-{number}" in records.set_aside(str(tmp_path / "x.json"), "odd")
    assert (tmp_path / "x.json.damaged-1").read_text() == "1"


def test_tidy_sets_aside_what_readers_name_and_then_they_name_it_no_more(tmp_path, monkeypatch):
    layout = Layout("shop", root=str(tmp_path))
    id_ = "20260101T000000Z-000000000001"
    os.makedirs(layout.release(id_))
    os.makedirs(layout.units)
    os.symlink(layout.socket(id_), layout.live)
    paths = [layout.order, layout.lock, layout.history]
    paths += [layout.release(id_, f"{name}.json") for name in ("manifest", "state")]
    for path in paths:
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="utf-8") as stream:
            stream.write("{")
    for module in ("release", "info"):
        target = f"ansible_collections.daoman.fastapi.plugins.module_utils._host.{module}.Layout"
        monkeypatch.setattr(target, lambda *_name: layout)
    monkeypatch.setattr(tidy, "Layout", lambda *_name: layout)
    assert sorted(path for path, _why in damaged_of("shop")) == sorted(paths)
    work = tidy.Tidy({"name": "shop", "who": "root@here", "reason": "", "break_lock": False}, None)
    work.run()
    assert work.result["changed"] and len(work.cutover.warnings) == len(paths)
    assert damaged_of("shop") == [] and sorted(set_aside_of("shop")) == sorted(f"{path}.damaged-1" for path in paths)
    assert layout.live_id() == id_
