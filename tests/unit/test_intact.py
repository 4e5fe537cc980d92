# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether damage of a release is seen, and what is given back in its place, on files of this machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import intact
from ansible_collections.daoman.fastapi.plugins.module_utils._host.build import Build
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError, digest, sha256

ID = "20260101T000000Z-000000000001"
TEXTS = {"gunicorn.conf.py": "bind = ''\n", "start.sh": "#!/bin/sh\n", "env": "A=1\n", "systemd/service": "[Unit]\n"}
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def put(path, text, mode=0o640):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(path, mode)


def make_venv(layout, name, version=VERSION):
    venv = os.path.join(layout.venvs, name)
    put(os.path.join(venv, "pyvenv.cfg"), f"home = /usr/bin\nversion_info = {version}.1\n")
    put(os.path.join(venv, f"lib/python{version}/site-packages/gunicorn/__init__.py"), "x = 1\n")
    os.makedirs(os.path.join(venv, "bin"))
    os.symlink(os.path.realpath(sys.executable), os.path.join(venv, "bin/python"))
    intact.seal_venv(layout, venv)
    put(os.path.join(venv, ".complete"), "")
    return venv


def make_release(layout, id_, venv, listed=True):
    top = layout.release(id_)
    put(os.path.join(top, "src/app/main.py"), "app = 1\n")
    os.utime(os.path.join(top, "src/app/main.py"), (1, 1))
    put(os.path.join(top, "src/app/__pycache__/main.pyc"), "code")
    os.symlink("main.py", os.path.join(top, "src/app/link"))
    put(os.path.join(top, "lib/fastapi_worker.py"), "y = 1\n")
    for path, text in TEXTS.items():
        put(os.path.join(top, path), text, intact.file_mode(path))
    os.symlink(os.path.relpath(venv, top), os.path.join(top, "venv"))
    if listed:
        intact.seal(layout, id_)
    files = {path: sha256(text) for path, text in TEXTS.items()}
    inputs = {"source": {"revision": "1"}, "files": files}
    manifest = {"id": id_, "created": "", "by": "", "version": "", "inputs": inputs, "digest": digest(inputs)}
    put(os.path.join(top, "manifest.json"), json.dumps(manifest))
    return top


@pytest.fixture
def layout(tmp_path):
    return Layout("shop", root=str(tmp_path))


@pytest.fixture
def top(layout):
    return make_release(layout, ID, make_venv(layout, "0123456789abcdef"))


def rewrite(path, old, new):
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text.replace(old, new))


def relink(path, target):
    os.unlink(path)
    os.symlink(target, path)


DAMAGE = {
    "a source is missing": lambda top: os.unlink(f"{top}/src/app/main.py"),
    "a directory is missing": lambda top: shutil.rmtree(f"{top}/src/app"),
    "all sources are missing": lambda top: shutil.rmtree(f"{top}/src"),
    "a source was edited": lambda top: rewrite(f"{top}/src/app/main.py", "1", "100"),
    "a file became a link": lambda top: relink(f"{top}/src/app/main.py", "/etc/passwd"),
    "a link leads elsewhere": lambda top: relink(f"{top}/src/app/link", "other"),
    "a mode lets others write": lambda top: os.chmod(f"{top}/src/app/main.py", 0o666),
    "a source was edited to the same length": lambda top: rewrite(f"{top}/src/app/main.py", "1", "2"),
    "a file was cut and has its old time": lambda top: (
        rewrite(f"{top}/src/app/main.py", "1", ""),
        os.utime(f"{top}/src/app/main.py", (1, 1)),
    ),
    "the worker is missing": lambda top: shutil.rmtree(f"{top}/lib"),
    "the configuration was edited": lambda top: rewrite(f"{top}/gunicorn.conf.py", "''", "'x'"),
    "the environment is missing": lambda top: os.unlink(f"{top}/env"),
    "the environment was edited to the same length": lambda top: rewrite(f"{top}/env", "1", "2"),
    "the manifest is missing": lambda top: os.unlink(f"{top}/manifest.json"),
    "the manifest is cut": lambda top: rewrite(f"{top}/manifest.json", "}", ""),
    "the manifest was edited": lambda top: rewrite(f"{top}/manifest.json", '"files"', '"x": 1, "files"'),
    "the link to the environment is missing": lambda top: os.unlink(f"{top}/venv"),
    "the environment of packages is missing": lambda top: shutil.rmtree(os.path.realpath(f"{top}/venv")),
    "a package is missing": lambda top: shutil.rmtree(f"{top}/venv/lib/python{VERSION}/site-packages/gunicorn"),
    "the interpreter is gone": lambda top: relink(f"{top}/venv/bin/python", "/usr/bin/python3.9999"),
    "the interpreter cannot be executed": lambda top: relink(f"{top}/venv/bin/python", "/etc/passwd"),
    "it is of another Python": lambda top: rewrite(f"{top}/venv/pyvenv.cfg", f"= {VERSION}", "= 3.8"),
    "pyvenv.cfg is missing": lambda top: os.unlink(f"{top}/venv/pyvenv.cfg"),
    "the mark of a whole build is missing": lambda top: os.unlink(f"{top}/venv/.complete"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("deep", [False, True])
def test_damage_is_seen(layout, top, damage, deep):
    assert intact.check(layout, ID, deep) == []
    damage(top)
    assert intact.check(layout, ID, deep)


def test_a_file_that_was_written_to_is_read_and_others_by_the_deep_check_alone(layout, top):
    path = f"{top}/src/app/main.py"
    before = os.stat(path)
    os.utime(path, (1, 1))
    assert intact.check(layout, ID) == [], "the content is as it was"
    rewrite(path, "1", "2")
    assert [str(item) for item in intact.check(layout, ID)] == [f"{path} has another content"]
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert intact.check(layout, ID) == []
    assert [str(item) for item in intact.check(layout, ID, deep=True)] == [f"{top}/src/app/main.py has another content"]


def test_bytecode_and_what_became_of_a_release_are_no_damage(layout, top):
    shutil.rmtree(f"{top}/src/app/__pycache__")
    put(f"{top}/state.json", "{}")
    put(f"{top}/venv/lib/python{VERSION}/site-packages/gunicorn/__pycache__/x.pyc", "")
    assert intact.check(layout, ID, deep=True) == []


def test_a_list_that_is_none_is_as_no_list(layout, top):
    os.rename(f"{top}/lib", f"{top}/away")
    for text in ("", "[", "{}\n[1]\n", '{"format": 1}\n{"a": 1}\n', '{"format": 1}\n[1]\n', '{"format": 9}\n', "\xff"):
        put(f"{top}/files.jsonl", text, 0o600)
        assert [str(item) for item in intact.check(layout, ID)] == [f"{top}/lib is missing"], text


def test_a_release_of_0_2_0_gets_a_list_where_all_that_0_2_0_wrote_is_there(layout):
    top = make_release(layout, ID, make_venv(layout, "0123456789abcdef"), listed=False)
    os.unlink(f"{top}/venv/.files.jsonl")
    os.rename(f"{top}/lib", f"{top}/away")
    assert [str(item) for item in intact.check(layout, ID)] == [f"{top}/lib is missing"]
    intact.adopt(layout)
    assert not os.path.exists(f"{top}/files.jsonl")
    os.rename(f"{top}/away", f"{top}/lib")
    intact.adopt(layout)
    assert os.stat(f"{top}/files.jsonl").st_mode & 0o777 == os.stat(f"{top}/venv/.files.jsonl").st_mode & 0o777 == 0o600
    assert intact.check(layout, ID, deep=True) == []
    os.unlink(f"{top}/src/app/main.py")
    assert intact.check(layout, ID) != []


def test_known_files_and_modes_are_given_back_in_their_place(layout, top):
    os.unlink(f"{top}/env")
    rewrite(f"{top}/gunicorn.conf.py", "''", "'x'")
    shutil.rmtree(f"{top}/systemd")
    os.chmod(f"{top}/src/app", 0o700)
    assert len(intact.restore(layout, ID, TEXTS)) >= 4
    os.chmod(f"{top}/systemd", 0o755)
    assert intact.check(layout, ID, deep=True) == []
    assert os.stat(f"{top}/env").st_mode & 0o777 == 0o600


def test_a_file_with_another_text_than_the_release_had_is_not_written(layout, top):
    os.unlink(f"{top}/env")
    intact.restore(layout, ID, {**TEXTS, "env": "A=2\n"})
    assert not os.path.exists(f"{top}/env")


def test_what_others_could_have_changed_is_not_given_back_but_damaged(layout, top):
    os.chmod(f"{top}/src/app/main.py", 0o666)
    intact.restore(layout, ID, TEXTS)
    (left,) = intact.check(layout, ID)
    assert "with which others could change it" in str(left)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_what_another_user_had_is_not_given_back_but_damaged(layout, top):
    os.chown(f"{top}/src/app/main.py", 12345, -1)
    os.chown(f"{top}/lib", -1, 12345)
    intact.restore(layout, ID, TEXTS)
    assert [str(item) for item in intact.check(layout, ID)] == [f"{top}/src/app/main.py belongs to uid 12345"]
    os.chown(f"{top}/files.jsonl", 12345, -1)
    os.chown(f"{top}/manifest.json", 12345, -1)
    assert [str(item) for item in intact.check(layout, ID)] == [f"{top}/manifest.json belongs to uid 12345"]


def test_an_interpreter_that_was_upgraded_away_is_seen_before_the_next_start(layout, top, tmp_path):
    for version in (VERSION, "3.99"):
        put(f"{tmp_path}/usr/python{version}", "", 0o755)
    os.symlink(f"python{VERSION}", f"{tmp_path}/usr/python3")
    venv = make_venv(layout, "fedcba9876543210")
    relink(f"{venv}/bin/python", f"{tmp_path}/usr/python3")
    intact.seal_venv(layout, venv)
    assert intact.check_venv(layout, venv) == []
    relink(f"{tmp_path}/usr/python3", "python3.99")
    (damage,) = intact.check_venv(layout, venv)
    assert damage.what == f"leads to Python 3.99, and the environment was made for Python {VERSION}"


def test_nobody_is_sent_to_a_damaged_release(layout, top):
    intact.refuse(layout, ID)
    os.unlink(f"{top}/src/app/main.py")
    with pytest.raises(ReleaseError, match=r"is damaged: .*main\.py is missing.*daoman\.fastapi\.deploy"):
        intact.refuse(layout, ID)


def test_many_files_are_looked_at_within_a_fifth_of_a_second(layout, top):
    for number in range(intact.MOST):
        put(f"{top}/src/data/{number // 100}/{number}", "x")
    intact.seal(layout, ID)
    begun = time.process_time()
    assert intact.check(layout, ID) == []
    assert time.process_time() - begun < 0.2


# -- virtual environments ---------------------------------------------------------------------------------------------


@pytest.fixture
def build(layout, top, monkeypatch):
    """A build for the inputs of the environment that is there; `_install` makes it as the real one would look."""
    build = object.__new__(Build)
    build.layout, build.key, build.damage = layout, "0123456789abcdef", []
    monkeypatch.setattr(Build, "_install", lambda self: None, raising=True)
    return build


def test_an_environment_that_is_intact_is_shared(layout, build):
    assert build.ensure() == os.path.join(layout.venvs, build.key)


def test_a_damaged_environment_is_left_to_what_runs_from_it_and_made_at_another_path(layout, build, top):
    os.unlink(f"{top}/venv/lib/python{VERSION}/site-packages/gunicorn/__init__.py")
    assert build._made() and build._path() == os.path.join(layout.venvs, build.key + "-2")
    make_release(layout, ID[:-1] + "2", make_venv(layout, build.key + "-2"))
    assert build.ensure() == os.path.join(layout.venvs, build.key + "-2")
    assert build.damage == []
    shutil.rmtree(os.path.join(layout.venvs, build.key + "-2/bin"))
    assert build._path() == os.path.join(layout.venvs, build.key + "-3")


def test_the_path_of_an_environment_that_is_gone_is_not_used_while_a_release_names_it(layout, build, top):
    shutil.rmtree(layout.venvs)
    os.mkdir(layout.venvs)
    assert build._path() == os.path.join(layout.venvs, build.key + "-2")
    shutil.rmtree(top)
    assert build._path() == os.path.join(layout.venvs, build.key)
