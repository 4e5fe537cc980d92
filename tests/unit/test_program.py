# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module program writes and removes, and the digest by which a service is restarted."""

from __future__ import annotations

import pytest
from ansible_collections.daoman.fastapi.plugins.modules import program


def params(**given):
    return {"directories": [], "files": [], "secrets": [], "absent": [], **given}


def file(path, content="x", mode="0644"):
    return {"dest": str(path), "content": content, "mode": mode, "src": None}


def test_a_bare_host_gets_all(tmp_path):
    changes, gone = program.plan(params(files=[file(tmp_path / "a"), file(tmp_path / "d/b", mode="0755")]))
    assert sorted(changes) == [str(tmp_path / "a"), str(tmp_path / "d/b")] and gone == []
    assert changes[str(tmp_path / "d/b")][1].mode == 0o755


def test_a_file_as_it_should_be_is_left_alone(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0o644)
    assert program.plan(params(files=[file(tmp_path / "a")])) == ({}, [])


@pytest.mark.parametrize("change", [{"content": "y"}, {"mode": "0600"}])
def test_content_and_mode_count(tmp_path, change):
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0o644)
    assert program.plan(params(files=[{**file(tmp_path / "a"), **change}]))[0]


def test_what_an_older_version_left_is_removed(tmp_path):
    for name in ("lib/new.py", "lib/old.py", "lib/gone/x.py", "lib/__pycache__/new.pyc", "beside.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "lib/new.py").chmod(0o644)
    options = params(directories=[{"src": "lib", "dest": str(tmp_path / "lib")}], files=[file(tmp_path / "lib/new.py")])
    changes, gone = program.plan(options)
    assert changes == {}
    for path in gone:
        program.remove(path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["beside.py", "lib", "lib/new.py"]
    assert program.plan(options) == ({}, [])


def test_a_secret_is_for_root_only_and_not_shown(tmp_path):
    path = str(tmp_path / "token")
    changes, gone = program.plan(params(secrets=[{"dest": path, "content": "s33d"}]))
    assert changes[path][1].mode == 0o600
    assert "s33d" not in str(program.diff(changes, gone, {path}))


def test_an_empty_secret_is_removed(tmp_path):
    (tmp_path / "token").write_text("s33d")
    changes, gone = program.plan(params(secrets=[{"dest": str(tmp_path / "token"), "content": ""}]))
    assert (changes, gone) == ({}, [str(tmp_path / "token")])


def test_what_is_absent_already_is_no_change(tmp_path):
    assert program.plan(params(absent=[str(tmp_path / "nothing")])) == ({}, [])


FILES, SECRETS = [("/a", "0644", "x"), ("/b", "0644", "y")], [("/s", "s33d")]


def test_the_digest_is_the_same_in_any_order():
    assert program.digest(FILES, SECRETS) == program.digest(FILES[::-1], SECRETS)


@pytest.mark.parametrize(
    "files, secrets",
    [
        ([("/a", "0644", "z"), FILES[1]], SECRETS),
        ([("/a", "0755", "x"), FILES[1]], SECRETS),
        (FILES[:1], SECRETS),
        (FILES, [("/s", "another")]),
        (FILES, []),
    ],
)
def test_the_digest_tells_of_every_change(files, secrets):
    assert program.digest(files, secrets) != program.digest(FILES, SECRETS)
