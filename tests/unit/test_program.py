# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module program writes and removes, and the digest by which a service is restarted."""

from __future__ import annotations

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import program_files
from ansible_collections.daoman.fastapi.plugins.modules import program


def params(**given):
    return {"directories": [], "folders": [], "files": [], "secrets": [], "absent": [], **given}


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
    program.apply(options, changes, gone)
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


@pytest.mark.parametrize("exchange", [True, False])
def test_a_directory_is_replaced_as_a_whole(tmp_path, monkeypatch, exchange):
    """Who reads it all the time finds the files of one version, never of two."""
    top = tmp_path / "lib" / "package"
    seen, versions = [], []

    def install(version):
        files = [file(top / name, version) for name in ("a.py", f"only_{version}.py", "sub/b.py")]
        options = params(directories=[{"src": "x", "dest": str(top)}], files=files)
        program.apply(options, *program.plan(options))
        assert program.plan(options) == ({}, [])

    def look(*_arguments, **_options):
        if top.is_dir():
            seen.append({path.read_text() for path in top.rglob("*.py")})
        versions.append(1)

    real = program_files.tree.write
    monkeypatch.setattr(program_files.tree, "write", lambda *given: (look(), real(*given), look()))
    if not exchange:
        monkeypatch.setattr(program_files.tree, "exchange", lambda *_paths: False)
    for version in ("one", "two"):
        install(version)
    assert len(versions) == 12 and all(len(found) == 1 for found in seen), seen
    assert sorted(path.name for path in top.rglob("*")) == ["a.py", "b.py", "only_two.py", "sub"]
    assert [path.name for path in top.parent.iterdir()] == ["package"]
    assert top.stat().st_mode & 0o7777 == 0o755


def test_folders_get_their_permissions_and_keep_what_is_in_them(tmp_path):
    wide, narrow = tmp_path / "state", tmp_path / "state/deploy"
    wide.mkdir(mode=0o700)
    (wide / "kept").write_text("x")
    folders = [{"path": str(wide), "mode": "0755"}, {"path": str(narrow), "mode": "0700"}]
    program.make(program.unfit(folders))
    assert program.unfit(folders) == [] and (wide / "kept").exists()
    assert [path.stat().st_mode & 0o7777 for path in (wide, narrow)] == [0o755, 0o700]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(OSError, match="x is not a directory"):
        program.unfit([{"path": str(tmp_path / "x"), "mode": "0755"}])
