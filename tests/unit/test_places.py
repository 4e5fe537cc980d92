# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No mode that is meant for one directory reaches another, whoever makes it first, with whatever umask."""

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree
from ansible_collections.daoman.fastapi.plugins.module_utils._host import places, shell


@pytest.fixture(params=[0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_directories_above_are_open(tmp_path, umask):
    places.make("/var/lib/fastapi/deploy", str(tmp_path))
    for path in ("var", "var/lib", "var/lib/fastapi", "var/lib/fastapi/deploy"):
        assert mode(tmp_path / path) == 0o755, path


def test_what_is_there_stays(tmp_path, umask):
    (tmp_path / "var").mkdir(mode=0o700)
    places.make("/var/lib/x", str(tmp_path))
    assert mode(tmp_path / "var") == 0o700


@pytest.mark.parametrize("write", [
    lambda path: shell.write_file(path, "x", 0o600),
    lambda path: shell.make_directory(os.path.dirname(path), os.getuid(), os.getgid(), 0o755),
    lambda path: tree.write(path, tree.file_node("x", 0o600)._replace(uid=os.getuid(), gid=os.getgid())),
])
def test_whoever_writes_below_leaves_them_open(tmp_path, umask, write):
    write(str(tmp_path / "lib/fastapi/nginx/file"))
    for path in ("lib", "lib/fastapi", "lib/fastapi/nginx"):
        assert mode(tmp_path / path) == 0o755, path


@pytest.mark.skipif(os.getuid() != 0, reason="gives directories to root")
def test_shared_directories_with_other_modes_are_corrected(tmp_path):
    (tmp_path / "var/lib/fastapi/deploy").mkdir(parents=True, mode=0o700)
    (tmp_path / "var/lib/fastapi").chmod(0o700)
    os.chown(tmp_path / "var/lib/fastapi", 1, 1)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fastapi").symlink_to(tmp_path)
    assert places.correct(str(tmp_path)) == ["/var/lib/fastapi"]
    assert mode(tmp_path / "var/lib/fastapi") == 0o755 and os.stat(tmp_path / "var/lib/fastapi").st_uid == 0
    assert mode(tmp_path / "var/lib/fastapi/deploy") == 0o700
    assert places.correct(str(tmp_path)) == []
