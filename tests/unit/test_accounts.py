# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was on a host before is never adopted or removed, and a removed app leaves nothing to its next namesake."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import accounts
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError
from ansible_collections.daoman.fastapi.plugins.modules import app_absent

ID = "20260101T000000Z-000000000001"


class Host:
    """A root directory and account databases of its own; commands are noted, or run where a test wants them to."""

    def __init__(self, root):
        self.root = root
        self.users, self.groups, self.commands = {}, {}, []

    def user(self, name, uid=998, comment="FastAPI app", home="/nonexistent", shell="/usr/sbin/nologin"):
        self.users[name] = pwd.struct_passwd((name, "x", uid, uid, comment, home, shell))
        self.groups.setdefault(name, grp.struct_group((name, "x", uid, [])))

    def group(self, name, gid=998, members=()):
        self.groups[name] = grp.struct_group((name, "x", gid, list(members)))

    def make(self, path, text=None):
        path = self.root / path
        if text is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return path

    def app(self, name="shop"):
        """What a release of 0.2.0 leaves."""
        self.user(name)
        self.make(f"srv/{name}/releases/{ID}/manifest.json", "{}")
        for entry in ("venvs", "shared", "repository.git"):
            self.make(f"srv/{name}/{entry}")
        self.make(f"srv/{name}/history.jsonl", "{}\n")
        self.make(f"srv/{name}/.lock", "")
        for link in ("current", "previous", "live.sock"):
            (self.root / f"srv/{name}/{link}").symlink_to("x")
        os.chown(self.make(f"var/cache/{name}"), self.users[name].pw_uid, -1)
        self.make(f"run/{name}/{ID}")
        self.make(f"etc/systemd/system/{name}@{ID}.service", "")

    def layout(self, name="shop"):
        return Layout(name, root=str(self.root))

    def run(self, command, **_options):
        self.commands.append(command)
        return 0, "", ""


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = Host(tmp_path)
    found = types.SimpleNamespace
    monkeypatch.setattr(
        accounts, "pwd", found(getpwnam=host.users.__getitem__, getpwuid=pwd.getpwuid, struct_passwd=pwd.struct_passwd)
    )
    # The uids are made up: on this host they may be somebody's.
    monkeypatch.setattr(accounts, "_processes", lambda _uids: {})
    monkeypatch.setattr(accounts, "grp", found(getgrnam=host.groups.__getitem__, getgrgid=grp.getgrgid))
    return host


def state(root):
    return sorted((str(path), os.lstat(path).st_mode, os.lstat(path).st_uid) for path in root.rglob("*"))


FOREIGN = {
    "a person": (
        lambda host: host.user("shop", 1000, "Alice,,,", "/home/alice", "/bin/bash"),
        r"the account shop \(uid 1000, comment 'Alice,,,', home /home/alice, shell /bin/bash",
    ),
    "a person who says that they are an app": (lambda host: host.user("shop", 1000), "uid 1000"),
    "an account with a shell": (lambda host: host.user("shop", shell="/bin/sh"), "shell /bin/sh"),
    "an account of all Debian hosts": (lambda host: host.user("shop", 33), "uid 33"),
    "nobody": (lambda host: host.user("shop", 65534), "uid 65534"),
    "an account that was made for something else": (lambda host: host.user("shop", comment="Shop"), "comment 'Shop'"),
    "the name of the build account": (lambda host: host.user("_shop", 101, "x"), "the account _shop"),
    "a group with members": (
        lambda host: host.group("shop", 1001, ["bob"]),
        r"the group shop \(gid 1001, members: bob",
    ),
    "a group of the build account's name": (lambda host: host.group("_shop", 1001), "the group _shop"),
    "a cache of another": (lambda host: host.make("var/cache/shop"), r"the directory \S+/var/cache/shop \(owner root:"),
    "a cache that is a link": (
        lambda host: (host.make("var/cache"), os.symlink("/etc", host.root / "var/cache/shop")),
        "the link .*var/cache/shop",
    ),
    "files of another": (lambda host: host.make("srv/shop/pub/file", "x"), r"the directory \S+/srv/shop \(owner"),
    "a link": (lambda host: (host.make("srv"), os.symlink("/etc", host.root / "srv/shop")), "the link .*/srv/shop"),
    "a directory of another user": (
        lambda host: os.chown(host.make("srv/shop"), 1234, -1),
        "the directory .*/srv/shop .owner (uid 1234|.*):",
    ),
    "a directory that others may write": (lambda host: host.make("srv/shop").chmod(0o777), "mode 0777"),
}
ONLY_NEW = {
    "a runtime directory": (lambda host: host.make("run/shop"), "the directory .*/run/shop"),
    "a service": (lambda host: host.make("usr/lib/systemd/system/shop.service", ""), "the unit .*/shop.service"),
    "a template": (lambda host: host.make("usr/lib/systemd/system/shop@.service", ""), "the unit .*/shop@.service"),
    "an instance": (lambda host: host.make("etc/systemd/system/shop@tty1.service", ""), "the unit .*/shop@tty1"),
}


@pytest.mark.parametrize("make, said", [*FOREIGN.values(), *ONLY_NEW.values()], ids=[*FOREIGN, *ONLY_NEW])
def test_what_was_there_before_is_not_adopted(host, make, said):
    make(host)
    before = state(host.root)
    with pytest.raises(ReleaseError, match=said) as error:
        accounts.refuse_foreign(host.layout())
    assert "'shop' is not free" in error.value.message and "another name" in error.value.message
    assert (state(host.root), host.commands) == (before, [])


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_a_directory_that_the_app_has_taken_is_refused_with_the_way_back(host):
    host.app()
    os.chown(host.root / "srv/shop", 998, -1)
    with pytest.raises(ReleaseError, match=r"If only its owner was changed: chown root:root \S+/srv/shop, and run"):
        accounts.refuse_foreign(host.layout())
    os.chown(host.root / "srv/shop", 0, -1)
    accounts.refuse_foreign(host.layout())


@pytest.mark.parametrize("make, said", FOREIGN.values(), ids=FOREIGN)
def test_what_never_was_an_app_is_not_removed(host, make, said):
    make(host)
    with pytest.raises(ReleaseError, match=said):
        accounts.refuse_removal(host.layout())
    assert not accounts.uids(host.layout()) or accounts.is_app(host.layout())


@pytest.mark.parametrize("name", ["root", "private", "debconf", "ssh", "prometheus", "getty", "man"])
def test_reserved_names_are_refused_where_they_do_not_exist_yet_too(host, name):
    with pytest.raises(ReleaseError, match="the name is reserved"):
        accounts.refuse_foreign(host.layout(name))


def test_a_free_name_is_free(host):
    host.make("srv/shop-other/x", "")
    host.make("var/cache/shop-other")
    host.make("run/shop-other")
    for unit in ("shop-other.service", "shop-other@.service", "myshop.service", "shop@.service.d", "shop.conf"):
        host.make(f"usr/lib/systemd/system/{unit}", "")
    host.user("shop-other", 1000, "x")
    accounts.refuse_foreign(host.layout())
    accounts.refuse_removal(host.layout())
    assert not accounts.is_app(host.layout())


@pytest.mark.parametrize("name", ["shop", "git", "prometheus"])
def test_what_0_2_0_made_is_taken_over(host, name):
    host.app(name)
    accounts.refuse_foreign(host.layout(name))
    accounts.refuse_removal(host.layout(name))
    assert accounts.is_app(host.layout(name))


@pytest.mark.parametrize("lost", ["account", "releases", "base", "cache", "all files"])
def test_an_app_is_known_by_what_is_left_of_it(host, lost):
    host.app()
    if lost == "account":
        host.users.clear(), host.groups.clear()
        os.chown(host.root / "var/cache/shop", os.geteuid(), -1)
    for path, cases in {
        "srv/shop/releases": ("releases",),
        "srv/shop": ("base", "all files"),
        "var/cache": ("cache", "all files"),
    }.items():
        if lost in cases:
            subprocess.run(["rm", "-r", host.root / path], check=True)
    accounts.refuse_foreign(host.layout())
    accounts.refuse_removal(host.layout())
    assert accounts.is_app(host.layout())


def test_a_manifest_that_root_did_not_write_makes_no_app(host):
    for path in (f"srv/shop/releases/{ID}/manifest.json", "srv/shop/releases", "srv/shop"):
        host.app()
        host.users.clear(), host.groups.clear()
        os.chown(host.root / path, 1234, -1)
        assert not accounts.is_app(host.layout())
        subprocess.run(["rm", "-r", *host.root.iterdir()], check=True)


def test_files_of_others_in_the_directory_of_an_app_are_named_before_it_is_removed(host):
    host.app()
    host.make("srv/shop/dump\x1b[31m.sql", "")
    accounts.refuse_foreign(host.layout())
    with pytest.raises(ReleaseError, match=r"1 entries in .*/srv/shop/dump\?\[31m.sql\. Move them"):
        accounts.refuse_removal(host.layout())


def test_mounted_file_systems_are_named_before_anything_is_removed(host, monkeypatch):
    host.app()
    monkeypatch.setattr(accounts, "mounts_at", lambda top: [f"{top}/shared/nfs"] if top.endswith("srv/shop") else [])
    with pytest.raises(ReleaseError, match=r"mounted in it: .*/srv/shop/shared/nfs\. Unmount"):
        accounts.refuse_removal(host.layout())


def test_mounts_are_those_of_the_kernel():
    assert accounts.mounts_at("/proc")[0] == "/proc"
    assert accounts.mounts_at("/pro") == []


def test_the_accounts_are_made_once(host):
    assert accounts.ensure(host.layout(), host.run, check=True)
    assert host.commands == []
    assert accounts.ensure(host.layout(), host.run)
    made = [(command[0], command[-3:]) for command in host.commands]
    assert made == [("useradd", ["FastAPI app", "--", "shop"]), ("useradd", ["FastAPI build", "--", "_shop"])]
    host.user("shop", 998), host.user("_shop", 997, "FastAPI build")
    host.commands.clear()
    assert not accounts.ensure(host.layout(), host.run)
    assert host.commands == []


@pytest.mark.parametrize("member, name", [("shop", "_shop"), ("_shop", "shop")])
def test_neither_account_is_in_the_group_of_the_other(host, member, name):
    host.user("shop", 998), host.user("_shop", 997, "FastAPI build")
    host.group(name, host.users[name].pw_uid, [member])
    assert accounts.ensure(host.layout(), host.run)
    assert host.commands == [["gpasswd", "--delete", member, name]]


def test_only_accounts_of_the_app_are_removed(host):
    host.user("shop", 998), host.user("_shop", 1000, "Alice")
    accounts.remove(host.layout(), host.run)
    assert [command for command in host.commands if command[0] == "userdel"] == [["userdel", "--", "shop"]]
    assert "1000" not in host.commands[0] and "998" in host.commands[0]
    host.users["shop"] = host.users["_shop"]
    host.commands.clear()
    accounts.remove(host.layout(), host.run)
    assert host.commands == []


def test_paths_that_a_unit_let_an_app_write_are_named(host, tmp_path):
    (tmp_path / "data").mkdir(), (tmp_path / "other").mkdir()
    os.chown(tmp_path / "data", 998, -1)
    unit = f"[Service]\nReadWritePaths=/srv/shop/shared {tmp_path}/data -{tmp_path}/other {tmp_path}/none\n"
    assert accounts.written_elsewhere(unit, [998]) == [f"{tmp_path}/data"]


@pytest.fixture
def app(host, monkeypatch):
    """What the module finds of an app on this host."""
    monkeypatch.setattr(app_absent, "Layout", lambda name: Layout(name, root=str(host.root)))
    host.make("etc/systemd/system")
    return lambda name="shop": app_absent.App(name, host.run).found()


def test_names_that_begin_alike_are_another_apps(host, app):
    host.app()
    mine = [
        "shop.access.log",
        "shop.access.log.1",
        "shop.access.log-20260101.gz",
        "shop.error.log.2.gz",
        "shop.error.log-1.zst",
    ]
    others = [
        "shop-b.access.log",
        "shop.access.log-of-other",
        "shop.access.logs",
        "shop.access.log.1.gz.access.log",
        "shop.log",
    ]
    for name in mine + others:
        host.make(f"var/log/nginx/{name}", "")
    for name in (f"{ID}.sock", "other.sock", f"{ID}.sock.d"):
        host.make(f"run/shop/{name}", "")
    host.make("etc/systemd/system/shop@tty1.service", ""), host.make(f"etc/systemd/system/shop-b@{ID}.service", "")
    root = host.root
    assert app() == [
        f"shop@{ID}.service",
        *(f"{root}/{path}" for path in ("srv/shop", "var/cache/shop", f"run/shop/{ID}", f"run/shop/{ID}.sock")),
        *sorted(f"{root}/var/log/nginx/{name}" for name in mine),
        "user shop",
    ]


def test_nothing_is_found_of_what_never_was_an_app(host, app):
    host.make("var/log/nginx/shop.access.log", "")
    host.make("run/shop")
    host.make("srv/shop")
    assert app() == []


def test_a_removal_that_was_interrupted_is_finished(host, app):
    host.make("srv/shop/.lock", "")
    assert app() == [f"{host.root}/srv/shop"]


@pytest.fixture
def removed(host, monkeypatch):
    """An app with shared files, removed by a real rm; what systemd would do is noted."""
    monkeypatch.setattr(app_absent, "Layout", lambda name: Layout(name, root=str(host.root)))
    host.app()
    host.make("srv/shop/shared/media/cat.png", "x")

    def commands(command, **options):
        return run(command) if command[0] == "rm" else host.run(command)

    def remove(remove_data=False):
        app = app_absent.App("shop", commands, remove_data)
        app.remove()
        app_absent.remove_base(app)
        return app.kept

    return remove


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_shared_files_are_kept_beside_for_root_alone(host, removed):
    os.chown(host.root / "srv/shop/shared", 998, 998)
    kept = removed()
    assert Path(kept).parent == host.root / "srv" and Path(kept).name.startswith("shop.removed-")
    assert (Path(kept) / "media/cat.png").read_text() == "x"
    status = os.stat(kept)
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o700)
    assert os.listdir(host.root / "srv") == [Path(kept).name]


def test_shared_files_go_where_that_is_asked_for(host, removed):
    assert removed(remove_data=True) == ""
    assert os.listdir(host.root / "srv") == []


def test_nothing_is_kept_of_an_app_without_shared_files(host, removed):
    (host.root / "srv/shop/shared/media/cat.png").unlink()
    (host.root / "srv/shop/shared/media").rmdir()
    assert removed() == ""


UNITS = {
    "/system.slice/backup.service": ("backup.service", "User=shop\nTriggeredBy=backup.timer\n"),
    "/system.slice/by-number.service": ("by-number.service", "User=998\nTriggeredBy=\n"),
    "/system.slice/cron.service": ("cron.service", "User=\nTriggeredBy=\n"),
    f"/system.slice/system-shop.slice/shop@{ID}.service": (f"shop@{ID}.service", "User=shop\n"),
    "/user.slice/user-0.slice/session-1.scope": ("session-1.scope", ""),
}


def test_units_of_others_that_run_as_the_app_are_named_and_stopped(host, app, monkeypatch):
    host.app()
    groups = dict(enumerate(UNITS))
    monkeypatch.setattr(accounts, "_processes", lambda uids: dict.fromkeys(groups, "x") if uids else {})
    monkeypatch.setattr(accounts, "_group_of", lambda pid: f"0::{groups[pid]}\n")
    shown = dict(UNITS.values())

    def systemctl(command, **options):
        return (0, shown[command[-1]], "") if "show" in command else host.run(command)

    found = accounts.units_of_others(host.layout(), systemctl)
    assert found == ["backup.service", "backup.timer", "by-number.service"]


# -- on this host -----------------------------------------------------------------------------------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
# Nothing on this host may run as this one, or it is left alone.
UID = 987
PROCESSES = accounts._processes
ESCAPED = """
import os, signal, sys
os.setgroups([]), os.setresgid(*[int(sys.argv[1])] * 3), os.setresuid(*[int(sys.argv[1])] * 3)
if os.fork():
    os._exit(0)
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
os.close(1), os.close(2)
signal.pause()
"""


def run(command, **_options):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@as_root
def test_what_still_runs_as_the_app_is_ended(host, monkeypatch):
    if PROCESSES([UID]):
        pytest.skip("the uid is in use")
    monkeypatch.setattr(accounts, "_processes", PROCESSES)
    host.user("shop", UID)
    started = subprocess.run([sys.executable, "-c", ESCAPED, str(UID)], capture_output=True, text=True, check=True)
    assert list(PROCESSES([UID])) == [int(started.stdout)]
    accounts.end_processes(host.layout(), host.run)
    assert PROCESSES([UID]) == {}


@as_root
def test_what_runs_as_the_app_is_found_where_root_may_not_look_at_its_namespaces(monkeypatch):
    """As in a container itself, which has no CAP_SYS_PTRACE."""

    def denied(path):
        raise PermissionError(path)

    monkeypatch.setattr(accounts.os, "readlink", denied)
    assert os.getpid() in PROCESSES([os.geteuid()])


@as_root
def test_processes_of_a_container_of_root_are_left_alone():
    """Its accounts have the host's uids by chance."""
    command = ["unshare", "--pid", "--fork", "setpriv", f"--reuid={UID}", "--clear-groups", "sleep", "60"]
    with subprocess.Popen(command) as container:
        children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
        deadline = time.monotonic() + 5
        while not (found := [pid for pid in children.read_text().split() if UID in accounts._uids(pid)]):
            assert time.monotonic() < deadline
        skipped = accounts._is_containers(found[0]) and int(found[0]) not in PROCESSES([UID])
        os.kill(int(found[0]), 9)
    assert skipped


@as_root
def test_what_the_app_left_in_shared_directories_is_removed_and_no_link_is_followed(host, tmp_path):
    host.user("shop", UID)
    victim = host.make("victim/file", "x")
    os.chown(victim, UID, -1)
    for top in ("tmp", "var/spool/cron/crontabs", "var/mail", "dev/shm"):
        host.make(f"{top}/deep/er/file", "x")
        host.make(f"{top}/others", "x")
        os.symlink(victim.parent, host.root / top / "link")
        for path in ("deep", "deep/er", "deep/er/file", "link"):
            os.chown(host.root / top / path, UID, -1, follow_symlinks=False)

    def commands(command, **options):
        return run(command) if command[0] == "find" else host.run(command)

    accounts.remove(host.layout(), commands)
    for top in ("tmp", "var/spool/cron/crontabs", "var/mail", "dev/shm"):
        assert os.listdir(host.root / top) == ["others"]
    assert victim.exists()


@as_root
def test_somebody_elses_files_in_a_directory_of_the_app_stop_the_removal(host):
    host.user("shop", UID)
    host.make("tmp/mine/yours", "x")
    os.chown(host.root / "tmp/mine", UID, -1)
    with pytest.raises(ReleaseError, match=r"find .* ended with 1") as error:
        accounts.remove(host.layout(), run)
    assert "tmp/mine" in error.value.output
    assert (host.root / "tmp/mine/yours").exists()


def test_a_tree_is_removed_however_deep_and_nothing_that_a_link_names(host, tmp_path):
    victim = host.make("victim/file", "x")
    top = tmp_path / "tree"
    top.mkdir()
    os.symlink(victim.parent, top / "link")
    os.symlink(victim, top / "-rf")
    here = os.open(top, os.O_RDONLY)
    for _level in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    accounts.remove_tree(str(top), run)
    assert not top.exists() and victim.exists()


def test_every_file_of_the_layout_is_known_as_an_apps():
    layout = Layout("shop")
    assert {
        "releases",
        "venvs",
        "shared",
        "repository.git",
        ".lock",
        "history.jsonl",
        "current.new",
    } <= layout.entries()
    assert Path(layout.cache).name not in layout.entries()


def test_what_was_set_aside_is_an_apps_too_and_stops_no_removal():
    names = ["order.json", "order.json.damaged-1", ".lock.damaged-12", "notes", "x.damaged-1"]
    assert Layout("shop").foreign(names) == ["notes", "x.damaged-1"]
