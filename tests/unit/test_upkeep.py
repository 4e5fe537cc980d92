# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links, sockets, directories and their owners, on files of this machine. systemd is stood in for."""

from __future__ import annotations

import json
import os
import pwd
import socket
from types import SimpleNamespace

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import upkeep
from ansible_collections.daoman.fastapi.plugins.module_utils._host.order import Order
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError

OLD, LIVE = "20260101T000000Z-000000000001", "20260102T000000Z-000000000002"
ME = pwd.getpwuid(os.geteuid())


@pytest.fixture
def layout(tmp_path, monkeypatch):
    layout = Layout("shop", root=str(tmp_path))
    me = SimpleNamespace(pw_uid=ME.pw_uid, pw_gid=ME.pw_gid)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: me)
    monkeypatch.setattr(upkeep.grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=ME.pw_gid))
    for path in (layout.units, layout.run):
        os.makedirs(path)
    for id_ in (OLD, LIVE):
        os.makedirs(layout.release(id_, "systemd"))
        manifest = {
            "inputs": {"source": {"revision": "1"}, "socket_group": "web"},
            "serve": {"domain": "a", "health": {"readiness": "/"}},
            "id": id_, "digest": "", "created": "", "by": "", "version": "",
        }
        for path, text in (("manifest.json", json.dumps(manifest)), ("systemd/socket", "[Socket]\nSocketMode=0660\n")):
            with open(layout.release(id_, path), "w", encoding="utf-8") as stream:
                stream.write(text)
    return layout


class Units:
    """Stands for systemd: which releases run, and what was asked of it."""

    def __init__(self, *up):
        self.up, self.restarted = up, []

    def __call__(self, _layout, id_, _shell):
        return SimpleNamespace(serves=lambda: id_ in self.up, restart=lambda: self.restarted.append(id_))


def install(layout, *ids):
    for id_ in ids:
        for path in layout.unit_paths(id_):
            with open(path, "w", encoding="utf-8"):
                pass


# -- directories ------------------------------------------------------------------------------------------------------


def test_directories_are_made_and_nothing_was_wrong(layout):
    before = os.umask(0o077)
    try:
        assert upkeep.keep_directories(layout, passable=False) == []
    finally:
        os.umask(before)
    assert os.stat(layout.venvs).st_mode & 0o777 == 0o751
    assert upkeep.keep_directories(layout, passable=False) == []


@pytest.mark.parametrize("mode", [0o700, 0o777])
@pytest.mark.parametrize("name", ["base", "releases", "venvs", "shared", "cache", "build"])
def test_a_mode_that_was_changed_is_named_and_put_right(layout, name, mode):
    upkeep.keep_directories(layout, passable=False)
    path = getattr(layout, name)
    before = os.stat(path).st_mode
    if before & 0o777 == mode:
        return
    os.chmod(path, mode)
    (said,) = upkeep.keep_directories(layout, passable=False)
    assert said.startswith(f"{path} was {ME.pw_name}:") and f" {mode:04o}, and is " in said
    assert os.stat(path).st_mode == before


def test_nginx_may_pass_through_shared_where_it_serves_something_there(layout):
    upkeep.keep_directories(layout, passable=False)
    os.chmod(layout.shared, 0o751)
    assert upkeep.keep_directories(layout, passable=False) == []
    os.chmod(layout.shared, 0o750)
    assert len(upkeep.keep_directories(layout, passable=True)) == 1
    assert os.stat(layout.shared).st_mode & 0o777 == 0o751


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_shared_files_that_root_has_taken_are_the_apps_again(layout, monkeypatch):
    upkeep.keep_directories(layout, passable=False)
    shop = SimpleNamespace(pw_uid=12345, pw_gid=12346)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: shop)
    os.makedirs(f"{layout.shared}/media/a")
    for name in ("media/a/x", "db"):
        with open(f"{layout.shared}/{name}", "w", encoding="utf-8") as stream:
            stream.write("kept")
    other, second = f"{layout.base}/other", f"{layout.shared}/second"
    with open(other, "w", encoding="utf-8"):
        pass
    os.link(other, second)
    os.symlink(other, f"{layout.shared}/link")
    upkeep.keep_directories(layout, passable=False)
    owners = {name: os.lstat(f"{layout.shared}/{name}").st_uid for name in ("", "media/a", "media/a/x", "db", "link")}
    assert set(owners.values()) == {12345}
    assert os.stat(other).st_uid == 0, "a file with a second name may be another's"
    # Where only the top's mode is wrong, what lies below is left as it is.
    os.chown(f"{layout.shared}/db", 0, 0)
    os.chmod(layout.shared, 0o700)
    upkeep.keep_directories(layout, passable=False)
    assert os.stat(f"{layout.shared}/db").st_uid == 0


def test_a_link_of_root_in_the_place_of_a_directory_is_left_alone(layout, tmp_path):
    upkeep.keep_directories(layout, passable=False)
    os.rename(layout.shared, tmp_path / "disk")
    os.symlink(tmp_path / "disk", layout.shared)
    os.chmod(tmp_path / "disk", 0o770)
    assert upkeep.keep_directories(layout, passable=False) == []
    assert os.stat(tmp_path / "disk").st_mode & 0o777 == 0o770


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_a_link_that_an_app_has_laid_in_the_place_of_a_directory_is_refused(layout, tmp_path):
    upkeep.keep_directories(layout, passable=False)
    (tmp_path / "victim").mkdir(mode=0o700)
    os.rmdir(layout.venvs)
    os.symlink(tmp_path / "victim", layout.venvs)
    os.chown(layout.venvs, 12345, 12345, follow_symlinks=False)
    with pytest.raises(ReleaseError, match="venvs is a link of another user than root"):
        upkeep.keep_directories(layout, passable=False)
    assert (tmp_path / "victim").stat().st_mode & 0o777 == 0o700


# -- links and sockets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "installed, up, ready, current, wanted",
    [
        ([LIVE], [LIVE], [LIVE], LIVE, LIVE),
        ([LIVE], [LIVE], [LIVE], None, LIVE),
        ([OLD, LIVE], [OLD, LIVE], [OLD, LIVE], OLD, OLD),
        ([OLD, LIVE], [OLD, LIVE], [LIVE], OLD, LIVE),
        ([LIVE], [LIVE], [], LIVE, LIVE),
        ([LIVE], [LIVE], [], None, None),
        ([LIVE], [], [], LIVE, None),
        ([], [LIVE], [LIVE], LIVE, None),
    ],
)
def test_what_runs_is_found_without_live_sock(layout, monkeypatch, installed, up, ready, current, wanted):
    install(layout, *installed)
    monkeypatch.setattr(upkeep, "Instance", Units(*up))
    monkeypatch.setattr(upkeep, "answer", lambda _layout, id_: (200 if id_ in ready else 503, ""))
    if current:
        os.symlink(f"releases/{current}", layout.current)
    assert upkeep.running(layout, None) == wanted


def listen(layout, id_):
    server = socket.socket(socket.AF_UNIX)
    server.bind(layout.socket(id_))
    server.listen()
    os.chmod(layout.socket(id_), 0o660)
    return server


def test_a_healthy_release_has_no_problems(layout, monkeypatch):
    monkeypatch.setattr(upkeep, "Instance", Units(LIVE))
    os.symlink(f"releases/{LIVE}", layout.current)
    with listen(layout, LIVE):
        assert upkeep.problems(layout, LIVE, None) == []


@pytest.mark.parametrize("there", [None, OLD])
def test_current_leads_to_what_serves(layout, monkeypatch, there):
    monkeypatch.setattr(upkeep, "Instance", Units(LIVE))
    if there:
        os.symlink(f"releases/{there}", layout.current)
    with listen(layout, LIVE):
        ((words, do),) = upkeep.problems(layout, LIVE, None)
        do()
        assert upkeep.problems(layout, LIVE, None) == []
    assert f"led to {'releases/' + there if there else 'nothing'}, and leads to {LIVE}" in words


def test_previous_leads_to_what_served_before(layout, monkeypatch):
    monkeypatch.setattr(upkeep, "Instance", Units(LIVE))
    for link, target in ((layout.current, LIVE), (layout.previous, OLD)):
        os.symlink(f"releases/{target}", link)
    os.symlink(layout.socket(LIVE), layout.live)
    order = Order(layout)
    order.note(LIVE, OLD, [OLD, LIVE], [])
    order.settle()
    os.unlink(layout.previous)
    with listen(layout, LIVE):
        ((words, do),) = upkeep.problems(layout, LIVE, None)
        do()
        assert upkeep.problems(layout, LIVE, None) == []
    assert f"led to nothing, and leads to {OLD}" in words and os.readlink(layout.previous) == f"releases/{OLD}"


def test_a_socket_of_which_the_file_is_gone_or_at_which_nobody_listens_is_made_anew(layout, monkeypatch):
    units = Units(LIVE)
    monkeypatch.setattr(upkeep, "Instance", units)
    os.symlink(f"releases/{LIVE}", layout.current)
    listen(layout, LIVE).close()
    for _ in range(2):
        ((words, do),) = upkeep.problems(layout, LIVE, None)
        do()
        assert "nothing listened at" in words
        if os.path.exists(layout.socket(LIVE)):
            os.unlink(layout.socket(LIVE))
    assert units.restarted == [LIVE, LIVE]


def test_a_socket_that_nginx_may_not_use_is_put_right_unless_its_unit_says_another_mode(layout, monkeypatch):
    monkeypatch.setattr(upkeep, "Instance", Units(LIVE))
    os.symlink(f"releases/{LIVE}", layout.current)
    with listen(layout, LIVE):
        os.chmod(layout.socket(LIVE), 0o600)
        ((words, do),) = upkeep.problems(layout, LIVE, None)
        do()
        assert "0600, and is" in words and upkeep.problems(layout, LIVE, None) == []
        with open(layout.release(LIVE, "systemd/socket"), "w", encoding="utf-8") as stream:
            stream.write("[Socket]\nSocketMode=0666\n")
        os.chmod(layout.socket(LIVE), 0o666)
        assert upkeep.problems(layout, LIVE, None) == []


def test_a_release_that_does_not_run_is_not_restarted_here_but_started_by_the_run(layout, monkeypatch):
    units = Units()
    monkeypatch.setattr(upkeep, "Instance", units)
    os.symlink(f"releases/{LIVE}", layout.current)
    assert upkeep.problems(layout, LIVE, None) == []


def test_the_mount_point_that_is_mounted_noexec_is_named(monkeypatch):
    flags = SimpleNamespace(f_flag=os.ST_NOEXEC)
    monkeypatch.setattr(upkeep, "mounts", lambda: ["/", "/srv", "/srv/shop-b", "/sr"])
    monkeypatch.setattr(upkeep.os, "statvfs", lambda path: flags)
    assert upkeep.mounted_noexec("/srv/shop") == "/srv"
    flags.f_flag = 0
    assert upkeep.mounted_noexec("/srv/shop") == ""
