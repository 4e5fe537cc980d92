# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transaction of nginx_tree against an nginx and a systemd of straw."""

from __future__ import annotations

import fcntl
import functools
import grp
import hashlib
import os
import shutil
import subprocess
import threading
import time

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree
from ansible_collections.daoman.fastapi.plugins.modules import nginx_tree as module


class Host:
    """Stands in for AnsibleModule, nginx and systemd. Words in the configuration make nginx misbehave."""

    check_mode = False
    _diff = True

    def __init__(self, folder):
        self.folder = folder
        self.root = folder / "nginx"
        self.log = folder / "log" / "error.log"
        self.pid_file = folder / "nginx.pid"
        self.state = "active"
        self.enabled = "enabled"
        self.commands, self.warnings = [], []
        self.pids = {1: time.time()}
        self.loaded = None
        self.killed_at = None
        self.output = ""
        self.log.parent.mkdir()
        self.log.write_text("[emerg] 7#7: of another day\n")
        self.pid_file.write_text("7")
        (self.root / "sites-enabled").mkdir(parents=True)
        (self.root / "mime.types").write_text("types")
        (self.root / "nginx.conf").write_text("the distribution's")
        (self.root / "sites-enabled" / "default").symlink_to("../mime.types")
        self.packaged = {name: hashlib.md5((self.root / name).read_bytes()).hexdigest()
                         for name in ("mime.types", "nginx.conf")}
        binary = folder / "sbin-nginx"
        binary.touch(0o755)
        self.params = {
            "files": [], "links": [], "absent": ["sites-enabled/default"], "included": [], "foreign": "keep",
            "kept": [], "packages": [],
            "group": "",
            "root": str(self.root),
            "manifest": str(folder / "state" / "manifest.json"), "binary": str(binary), "service": "nginx",
            "error_log": str(self.log), "timeout": 0.2,
        }

    def run(self, **texts):
        self.commands = []
        paths = {name.replace("__", "/") + ".conf": text for name, text in texts.items()}
        self.params["files"] = [
            {"path": path, "content": text, "origin": f"var_{path}", "mode": "0644"} for path, text in paths.items()]
        return module.Transaction(self).run()

    def files(self):
        """All files of the host but the module's own record."""
        return {
            str(path.relative_to(self.folder)): os.readlink(path) if path.is_symlink() else path.read_text()
            for path in sorted(self.folder.rglob("*"))
            if (path.is_symlink() or path.is_file()) and "state" not in path.parts}

    def warn(self, text):
        self.warnings.append(text)

    def run_command(self, words, **_options):
        assert isinstance(words, list)
        if words[0] == self.params["binary"]:
            return self.nginx(words[1:])
        if words[0] == "systemctl":
            return self.systemctl(words[1])
        if words[0] == "dpkg-query" and "Status" in words[2]:
            return 1, "".join(f"installed {name}\n" for name in words[4:] if name == "nginx"), "no packages found"
        if words[0] == "dpkg-query":
            return 0, "".join(f" {self.root}/{name} {checksum}\n" for name, checksum in self.packaged.items()), ""
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def nginx(self, words):
        if words == ["-v"]:
            return 0, "", "nginx version: nginx/1.26.3\n"
        self.commands.append("test")
        self.pid_file.open("a").close()
        stage = os.path.dirname(words[-1])
        for path in sorted(path for path, _text in self.texts(stage)):
            with open(path, encoding="utf-8") as stream:
                for number, line in enumerate(stream.read().split("\n"), 1):
                    if line == "BROKEN":
                        return 1, "", f'nginx: [emerg] unknown directive "BROKEN" in {path}:{number}\n'
        for _kind, path in tree.certificate_files(text for _path, text in self.texts(stage)):
            if not os.path.exists(os.path.join(stage, path)):
                return 1, "", f'nginx: [emerg] cannot load certificate "{stage}/{path}": BIO_new_file() failed\n'
        return 0, "", self.output + "nginx: the configuration file is ok\n"

    @staticmethod
    def texts(root):
        for folder, _folders, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                if not name.startswith(".") and os.path.isfile(path):
                    with open(path, encoding="utf-8") as stream:
                        yield path, stream.read()

    def systemctl(self, verb):
        if verb == "show":
            return 0, f"MainPID=7\nActiveState={self.state}\nUnitFileState={self.enabled}\n", ""
        self.commands.append(verb)
        if verb == self.killed_at:
            os._exit(9)
        if verb == "enable":
            self.enabled = "enabled"
            return 0, "", ""
        text = "".join(text for _path, text in self.texts(self.root))
        if "UNBINDABLE" in text:
            with self.log.open("a") as stream:
                stream.write("[emerg] 7#7: bind() to 0.0.0.0:81 failed (98: Address already in use)\n"
                             "[emerg] 7#7: still could not bind()\n")
            return (1 if verb == "start" else 0), "", "Job failed"
        self.state = "active"
        if "RETRIES" in text and self.loaded != text:
            self.loaded = text
            with self.log.open("a") as stream:
                stream.write("[emerg] 7#7: bind() to 0.0.0.0:81 failed (98: Address already in use)\n")
            threading.Timer(0.1, setattr, [self, "pids", {max(self.pids) + 1: time.time()}]).start()
        elif "SLOW" not in text:
            self.pids = {max(self.pids) + 1: time.time()}
            self.loaded = text
        return 0, "", ""


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = Host(tmp_path)
    monkeypatch.setattr(tree, "workers", lambda master: dict(host.pids))
    return host


@pytest.fixture(params=["exchange", "files"])
def either_way(request, monkeypatch):
    if request.param == "files":
        monkeypatch.setattr(tree, "exchange", lambda one, other: False)
    return request.param


@pytest.fixture
def debian(host, monkeypatch):
    """What dpkg knows on a host where nginx and a module are installed; whether a package can be had."""
    info, available = host.folder / "info", host.folder / "available"
    info.mkdir()
    available.mkdir()
    (available / "mod-x.conf").write_text("load_module x;")
    (info / "nginx-common.conffiles").write_text(
        "".join(f"{path}\n" for path in ("/etc/default/nginx", host.root / "mime.types", host.root / "nginx.conf")))
    (info / "nginx-common.list").write_text(
        "".join(f"{host.root}{path}\n" for path in ("", "/conf.d", "/mime.types", "/nginx.conf")))
    (info / "libnginx-mod-x.postinst").write_text("for confpair in mod-x.conf:50-mod-x.conf mod-y.conf:50-mod-y.conf ;")
    for function in ("module_links", "files", "directories"):
        known = getattr(module.packages, function)
        places = {"info": str(info), **({"available": str(available)} if function == "module_links" else {})}
        monkeypatch.setattr(module.packages, function, functools.partial(known, **places))
    had = {}
    monkeypatch.setattr(
        module.packages, "contents",
        lambda _run, package, paths: dict.fromkeys(paths, had[package]) if package in had else {})
    return had


def test_an_emptied_directory_is_filled_with_what_the_packages_had_there(host, debian, either_way):
    host.run(nginx="new")
    shutil.rmtree(host.root)
    debian["nginx-common"] = b"types"
    result = host.run(nginx="new")
    assert result["paths"] == [
        str(host.root / name) for name in ("mime.types", "modules-enabled/50-mod-x.conf", "nginx.conf")]
    assert (host.root / "mime.types").read_text() == "types" and (host.root / "nginx.conf").read_text() == "new"
    assert os.readlink(host.root / "modules-enabled/50-mod-x.conf") == str(host.folder / "available/mod-x.conf")
    assert (host.root / "conf.d").is_dir() and host.warnings == []
    assert manifest(host)["paths"] == ["nginx.conf"], "they are not the role's, and stay when it goes"
    assert host.run(nginx="new")["changed"] is False


def test_what_a_package_had_is_tested_before_it_is_put_in_place(host, debian):
    host.run(nginx="new")
    (host.root / "mime.types").unlink()
    debian["nginx-common"] = b"BROKEN"
    with pytest.raises(tree.TreeError, match="BROKEN"):
        host.run(nginx="new")
    assert not (host.root / "mime.types").exists()


def test_files_of_a_package_that_cannot_be_had_are_named_and_nginx_decides(host, debian):
    host.run(nginx="new")
    (host.root / "mime.types").unlink()
    assert host.run(nginx="new")["changed"] is False
    assert f"{host.root}/mime.types of the package nginx-common is missing" in host.warnings[-1]


def test_a_module_that_was_removed_with_its_package_stays_so(host, debian):
    debian["nginx-common"] = b"types"
    (host.root / "modules-enabled").mkdir()
    (host.root / "modules-enabled/50-mod-x.conf.removed").symlink_to("/x")
    host.run(nginx="new")
    assert not (host.root / "modules-enabled/50-mod-x.conf").is_symlink()


def manifest(host):
    return tree.load_manifest(host.params["manifest"])


def test_first_run_takes_over_and_keeps_what_it_does_not_own(host, either_way):
    result = host.run(nginx="new", sites__shop="shop")
    assert (result["changed"], result["actions"], result["swapped"]) == (True, ["swap", "reload"], either_way)
    assert host.commands == ["test", "reload"]
    assert "shop" in host.loaded
    assert {path: text for path, text in host.files().items() if path.startswith("nginx/")} == {
        "nginx/nginx.conf": "new", "nginx/sites/shop.conf": "shop", "nginx/mime.types": "types"}
    assert manifest(host) == {"paths": ["nginx.conf", "sites/shop.conf"], "pending": False}
    assert not list(host.folder.glob(".nginx-staging-*"))


def test_second_run_does_nothing_and_tests_nothing(host):
    host.run(nginx="new")
    before = host.files()
    result = host.run(nginx="new")
    assert (result["changed"], result["diff"], host.commands) == (False, [], [])
    assert host.files() == before


def test_files_of_a_site_that_is_gone_are_removed(host):
    host.run(nginx="new", sites__shop="shop")
    (host.root / "sites" / "mine.conf").write_text("mine")
    host.run(nginx="new")
    assert sorted(os.listdir(host.root / "sites")) == ["mine.conf"]


def test_files_of_a_site_that_is_kept_stay_and_go_later(host):
    host.run(nginx="new", sites__shop="shop")
    host.params["kept"] = ["sites/shop.conf", "sites/of-no-earlier-run.conf"]
    for _run in range(2):
        assert host.run(nginx="new")["changed"] is False
    assert (host.root / "sites/shop.conf").read_text() == "shop"
    host.params["kept"] = []
    assert host.run(nginx="new")["changed"] is True
    assert os.listdir(host.root / "sites") == []


def test_a_refused_tree_changes_nothing(host, either_way):
    host.run(nginx="new")
    before, record = host.files(), manifest(host)
    with pytest.raises(tree.TreeError) as caught:
        host.run(nginx="newer", sites__shop="fine\nBROKEN")
    assert host.files() == before
    assert host.commands == ["test"]
    assert manifest(host) == record
    assert caught.value.details == {
        "file": str(host.root / "sites/shop.conf"), "line": 2, "origin": "var_sites/shop.conf"}
    assert "Nothing was changed" in str(caught.value)
    assert not list(host.folder.glob(".nginx-staging-*"))


def test_a_refused_first_run_changes_nothing(host):
    before = host.files()
    with pytest.raises(tree.TreeError):
        host.run(nginx="BROKEN")
    assert host.files() == before
    assert not os.path.exists(host.params["manifest"])


def test_a_configuration_that_does_not_load_is_swapped_back(host, either_way):
    host.run(nginx="new")
    before, record = host.files(), manifest(host)
    with pytest.raises(tree.TreeError, match=r"still could not bind(.|\n)*is back"):
        host.run(nginx="UNBINDABLE", sites__shop="shop")
    after = host.files()
    after.pop("log/error.log"), before.pop("log/error.log")
    assert after == before
    assert host.commands == ["test", "reload"]
    assert manifest(host) == record


def test_a_port_that_becomes_free_while_nginx_retries_is_no_failure(host):
    host.run(nginx="new")
    assert host.run(nginx="RETRIES")["changed"]
    assert (host.root / "nginx.conf").read_text() == "RETRIES"


def test_a_reload_that_may_be_late_is_undone_and_not_trusted(host):
    host.run(nginx="new")
    with pytest.raises(tree.TreeError, match="did not load it within"):
        host.run(nginx="SLOW")
    assert (host.root / "nginx.conf").read_text() == "new"
    assert host.commands == ["test", "reload", "reload"]
    assert host.run(nginx="new")["actions"] == ["reload"]
    assert host.run(nginx="new")["actions"] == []


def test_an_old_worker_that_is_too_busy_to_notice_is_no_failure(host):
    host.run(nginx="new")
    systemctl = host.systemctl

    def with_busy_worker(verb):
        old = dict(host.pids)
        result = systemctl(verb)
        host.pids.update(old)
        return result

    host.systemctl = with_busy_worker
    assert host.run(nginx="newer")["changed"]


@pytest.mark.parametrize("killed_at", ["reload", "start"])
def test_a_run_that_was_killed_after_the_swap_is_finished_by_the_next(host, killed_at):
    host.run(nginx="new")
    host.state = "active" if killed_at == "reload" else "inactive"
    host.killed_at = killed_at
    child = os.fork()
    if not child:
        try:
            host.run(nginx="newer")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (host.root / "nginx.conf").read_text() == "newer"
    assert list(host.folder.glob(".nginx-staging-*"))
    host.killed_at = None
    result = host.run(nginx="newer")
    assert result["actions"] == [killed_at]
    assert "newer" in host.loaded
    assert not list(host.folder.glob(".nginx-staging-*"))
    assert not host.run(nginx="newer")["changed"]


def test_files_of_a_killed_run_are_owned_by_the_next(host):
    host.killed_at = "reload"
    child = os.fork()
    if not child:
        try:
            host.run(nginx="new", sites__shop="shop")
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    host.killed_at = None
    host.run(nginx="new")
    assert not (host.root / "sites" / "shop.conf").exists()


def test_a_stopped_nginx_is_started(host):
    host.run(nginx="new")
    host.state = "inactive"
    assert host.run(nginx="new")["actions"] == ["start"]
    assert host.commands == ["test", "start"]


def test_an_nginx_that_does_not_start_gets_the_old_tree_back(host):
    host.run(nginx="new")
    host.state = "failed"
    with pytest.raises(tree.TreeError, match=r"does not start(.|\n)*still could not bind(.|\n)*is back"):
        host.run(nginx="UNBINDABLE")
    assert (host.root / "nginx.conf").read_text() == "new"


def test_a_disabled_nginx_is_enabled(host):
    host.run(nginx="new")
    host.enabled = "disabled"
    assert host.run(nginx="new")["actions"] == ["enable"]
    assert not host.run(nginx="new")["changed"]


@pytest.mark.parametrize("spoil", [
    lambda root: (root / "nginx.conf").write_text("edited"),
    lambda root: (root / "nginx.conf").unlink(),
    lambda root: (root / "nginx.conf").chmod(0o666),
])
def test_what_was_changed_by_hand_is_put_right(host, spoil):
    host.run(nginx="new")
    spoil(host.root)
    assert host.run(nginx="new")["actions"] == ["swap", "reload"]
    assert (host.root / "nginx.conf").read_text() == "new"


def test_a_file_of_the_user_that_nginx_has_not_loaded_is_loaded(host):
    host.run(nginx="new")
    time.sleep(module.CLOCK_TICKS + 0.05)
    (host.root / "mime.types").write_text("more types")
    assert host.run(nginx="new")["actions"] == ["reload"]
    assert "more types" in host.loaded
    assert not host.run(nginx="new")["changed"]


def test_a_file_of_the_user_that_nginx_would_refuse_is_reported(host):
    host.run(nginx="new")
    time.sleep(module.CLOCK_TICKS + 0.05)
    (host.root / "mine.conf").write_text("BROKEN")
    with pytest.raises(tree.TreeError) as caught:
        host.run(nginx="new")
    assert caught.value.details["file"] == str(host.root / "mine.conf")


def test_check_mode_tests_and_changes_nothing(host):
    host.check_mode = True
    before = host.files()
    result = host.run(nginx=f"new\naccess_log {host.log.parent}/new.log json;", sites__shop="shop")
    assert result["actions"] == ["swap", "reload"]
    assert host.commands == ["test"]
    assert [entry["after_header"] for entry in result["diff"]] == [
        str(host.root / "nginx.conf"), "/dev/null", str(host.root / "sites/shop.conf")]
    assert host.files() == before
    assert not os.path.exists(host.params["manifest"])
    with pytest.raises(tree.TreeError):
        host.run(nginx="BROKEN")


def test_check_mode_does_not_fail_for_a_package_that_is_still_to_be_installed(host):
    host.check_mode = True
    host.params["packages"] = ["nginx", "libnginx-mod-x=1.0"]
    assert host.run(nginx="BROKEN")["changed"] is True
    [warning] = host.warnings
    assert "libnginx-mod-x will be installed first" in warning and 'unknown directive "BROKEN"' in warning
    for check, packages in ((True, ["nginx"]), (False, ["nginx", "libnginx-mod-x"])):
        host.check_mode, host.params["packages"] = check, packages
        with pytest.raises(tree.TreeError, match="BROKEN"):
            host.run(nginx="BROKEN")


def test_check_mode_predicts_what_the_run_does(host):
    host.check_mode = True
    predicted = host.run(nginx="new")
    host.check_mode = False
    done = host.run(nginx="new")
    predicted.pop("swapped"), done.pop("swapped")
    assert predicted == done


CERTIFICATE = "ssl_certificate tls/shop/fullchain.pem;\nssl_certificate_key tls/shop/privkey.pem;\n"


def test_a_certificate_that_is_to_come_is_stood_in_for_in_check_mode_only(host):
    (host.root / "tls").mkdir()
    (host.root / "tls" / "shop").symlink_to("/nonexistent/placeholder/shop")
    before = host.files()
    host.check_mode = True
    assert host.run(nginx=CERTIFICATE)["changed"]
    assert host.files() == before
    host.check_mode = False
    with pytest.raises(tree.TreeError, match=r"cannot load certificate(.|\n)*from var_nginx\.conf"):
        host.run(nginx=CERTIFICATE)


def test_check_mode_without_nginx_shows_the_diff_and_says_that_it_did_not_test(host):
    os.unlink(host.params["binary"])
    shutil.rmtree(host.root)
    host.check_mode = True
    result = host.run(nginx="listen 443; # only nginx >= 1.25.1")
    assert result["changed"]
    assert result["diff"][0]["after"] == "listen 443;"
    assert "not installed" in host.warnings[0]
    assert host.commands == []


def test_without_nginx_nothing_can_be_done(host):
    os.unlink(host.params["binary"])
    with pytest.raises(tree.TreeError, match="There is no nginx"):
        host.run(nginx="new")


def test_without_a_service_no_process_is_touched(host):
    host.params["service"] = ""
    assert host.run(nginx="new")["actions"] == ["swap"]
    assert host.commands == ["test"]
    assert not manifest(host)["pending"]


def test_new_logs_are_not_for_all_to_read_and_go_when_the_tree_is_refused(host):
    log = host.log.parent / "shop.log"
    with pytest.raises(tree.TreeError):
        host.run(nginx=f"access_log {log} json;\nBROKEN")
    assert not log.exists()
    host.run(nginx=f"access_log {log} json;")
    assert log.stat().st_mode & 0o777 == 0o640


def test_the_empty_pid_file_of_a_test_does_not_stay(host):
    host.pid_file.unlink()
    host.run(nginx=f"pid {host.pid_file};")
    assert not host.pid_file.exists()


def test_warnings_of_nginx_are_passed_on(host):
    host.output = "nginx: [warn] something is odd in /x:1\n"
    host.run(nginx="new")
    assert host.warnings == ["nginx: something is odd in /x:1"]


def test_a_server_name_that_nginx_would_ignore_is_refused(host):
    host.output = 'nginx: [warn] conflicting server name "a.example.com" on 0.0.0.0:80, ignored\n'
    before = host.files()
    with pytest.raises(tree.TreeError, match="would not serve a site"):
        host.run(nginx="server_name a.example.com;")
    assert host.files() == before


@pytest.mark.parametrize("kind", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_two_runs_at_once_do_not_mix(host, kind):
    host.run(nginx="old")
    with open(host.folder / "state/lock", encoding="utf-8") as stream:
        fcntl.flock(stream, kind)
        with pytest.raises(tree.TreeError, match="Another run"):
            host.run(nginx="new")
    assert host.run(nginx="new")["changed"]


def test_what_any_user_can_lock_keeps_no_run_out(host):
    """/etc is open to all, and so are locks on it."""
    for path in (host.folder, host.root):
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)
    assert host.run(nginx="new")["changed"]
    assert (host.folder / "state/lock").stat().st_mode & 0o777 == 0o600


def test_a_prediction_makes_no_lock(host):
    host.check_mode = True
    host.run(nginx="new")
    assert not (host.folder / "state").exists()


def test_a_path_given_twice_is_refused(host):
    host.params["links"] = [{"path": "nginx.conf", "target": "x"}]
    with pytest.raises(tree.TreeError, match="given twice"):
        host.run(nginx="new")


def test_a_root_that_is_a_link_is_followed(host):
    real = host.folder / "data"
    host.root.rename(real)
    host.root.symlink_to(real)
    host.run(nginx="new")
    assert host.root.is_symlink()
    assert (real / "nginx.conf").read_text() == "new"


# -- What was there before ---------------------------------------------------------------------------------------------


def test_what_somebody_else_has_where_a_file_is_to_be_is_refused_and_stays(host):
    (host.root / "sites").mkdir()
    (host.root / "sites" / "shop.conf").write_text("mine")
    (host.root / "nginx.conf").write_text("the distribution's, and mine")
    before = host.files()
    for host.check_mode in (True, False):
        with pytest.raises(tree.TreeError, match="Files of somebody else") as caught:
            host.run(nginx="new", sites__shop="shop")
        assert f"{host.root}/nginx.conf (file, owner " in str(caught.value) and "sites/shop.conf" in str(caught.value)
        assert "nginx_foreign_files: remove" in str(caught.value)
    assert host.files() == before and host.commands == []


def test_what_somebody_else_has_is_replaced_where_that_is_asked_for(host):
    (host.root / "nginx.conf").write_text("mine")
    host.params["foreign"] = "remove"
    assert host.run(nginx="new")["changed"]


@pytest.mark.parametrize("text", ["# Ansible managed\n# Role daoman.fastapi.nginx, nginx_sites[0].\nold", "new"])
def test_what_an_earlier_run_wrote_is_known_without_its_record(host, text):
    """Its header tells, or that it is what it should be."""
    host.run(nginx="new")
    os.unlink(host.params["manifest"])
    (host.root / "nginx.conf").write_text(text)
    host.run(nginx="new")
    assert (host.root / "nginx.conf").read_text() == "new"


def test_a_link_of_somebody_elses_is_refused(host):
    host.params["links"] = [{"path": "sites-enabled/shop.conf", "target": "../sites/shop.conf"}]
    (host.root / "sites-enabled" / "shop.conf").symlink_to("/home/me/shop.conf")
    with pytest.raises(tree.TreeError, match=r"link to /home/me/shop.conf"):
        host.run(nginx="new", sites__shop="shop")


@pytest.mark.parametrize("change, stays", [
    (None, False), ("# Role daoman.fastapi.nginx, edited\n", False), ("mine", True)])
def test_a_file_that_replaced_one_of_a_site_that_is_gone_stays(host, change, stays):
    host.run(nginx="new", sites__shop="shop")
    path = host.root / "sites" / "shop.conf"
    if change:
        path.write_text(change)
    host.params["included"] = ["sites/*.conf"]
    result = host.run(nginx="new")
    assert path.exists() is stays
    assert result["foreign"] == [str(path)] * stays


def test_the_default_site_stays_where_somebody_has_changed_it(host):
    (host.root / "mime.types").write_text("the default site, mine")
    host.params["included"] = ["sites-enabled/*"]
    assert host.run(nginx="new")["foreign"] == [str(host.root / "sites-enabled/default")]
    host.params["foreign"] = "remove"
    host.run(nginx="new")
    assert not (host.root / "sites-enabled" / "default").is_symlink()


# -- What nginx would only find out later ------------------------------------------------------------------------------


def test_a_file_of_passwords_must_be_there_and_readable(host):
    users = host.folder / "users"
    text = f'auth_basic_user_file "{users}";'
    said = f"{users}, named by var_nginx.conf as auth_basic_user_file, does not exist"
    with pytest.raises(tree.TreeError, match=said):
        host.run(nginx=text)
    host.check_mode = True
    host.run(nginx=text)
    assert "does not exist yet" in host.warnings[-1]
    host.check_mode = False
    users.write_text("alice:$apr1$x$y\n")
    users.chmod(0o644)
    host.run(nginx=text)
    assert len(host.warnings) == 1
    users.write_text("alice:$apr1$x$y\nbob:$2y$12$abc\n")
    host.run(nginx=text)
    assert "slow hash" in host.warnings[-1]


@pytest.mark.parametrize("line", ["access_log {} json;", "server {{ access_log {} json; }}", "error_log {} warn;"])
def test_a_log_where_others_can_make_links_is_refused(host, line):
    folder = host.folder / "theirs"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "x").mkdir()
    with pytest.raises(tree.TreeError, match=f"cannot be a log of nginx: others than root can write in {folder}"):
        host.run(nginx=line.format(folder / "x" / "a.log"))
    folder.chmod(0o755)
    host.run(nginx=line.format(folder / "x" / "a.log"))


# -- Secrets -----------------------------------------------------------------------------------------------------------


def raw(text):
    return f"# Role daoman.fastapi.nginx\n# from v\n{text}\n# end of v\nafter token abcdef;"


@pytest.mark.parametrize("line, secret, kept", [
    ('proxy_set_header Authorization "Bearer abc";', "Bearer abc", "proxy_set_header Authorization <hidden "),
    ("proxy_set_header X-Api-Key abc;", "abc", "X-Api-Key"),
    ("set $api_token abc;", "abc", "set $api_token "),
    ('if ($http_x_secret = "abc") {', "abc", "if ($http_x_secret = <hidden "),
    ('return 200 "token=abc";', "abc", "return 200 <hidden "),
    ('secure_link_md5 "$secure_link_expires$uri abc";', "abc", "secure_link_md5 "),
    ('map $http_x_api_key $who {\n"abc" alice;\ndefault "";\n}', "abc", 'default "";'),
    ('map $http_authorization $ok { "Basic abc" 1; }', "Basic abc", "1; }"),
    ("proxy_pass http://user:abc@host/;", "abc", "proxy_pass http://user:<hidden "),
    ("set $x k7h3kj4h5kj3h4kj5h3k;", "k7h3kj4h5kj3h4kj5h3k", "set $x "),
])
def test_what_looks_like_a_secret_is_not_shown(line, secret, kept):
    text = tree.hidden(raw(line))
    assert secret not in text.replace("after token abcdef;", "") and kept in text
    assert text != tree.hidden(raw(line.replace(secret, secret + "0"))), "a change is seen"
    assert text == tree.hidden(raw(line))


@pytest.mark.parametrize("line", [
    "server_tokens off;", "location = /login { return 302 /welcome; }", "proxy_set_header X-Forwarded-Proto $scheme;",
    "listen 127.0.0.1:8443 ssl;", "# token: abc", "proxy_set_header Authorization $http_authorization;",
    "ssl_certificate tls/shop/fullchain.pem;", "include snippets/proxy.conf;", "proxy_pass http://10.0.0.1:8080/x;"])
def test_what_is_none_is_shown(line):
    assert tree.hidden(raw(line)) == raw(line)


def test_a_diff_and_a_refusal_show_no_secret(host):
    host.run(nginx="old")
    text = raw('set $secret "hunter2";\nBROKEN')
    with pytest.raises(tree.TreeError) as caught:
        host.run(nginx=text)
    assert "set $secret" in str(caught.value) and "hunter2" not in str(caught.value)
    result = host.run(nginx=text.replace("BROKEN", ""))
    assert "hunter2" not in str(result) and "<hidden " in str(result["diff"])


def test_files_are_for_root_and_who_reads_logs(host):
    assert module.ARGUMENTS["files"]["options"]["mode"]["default"] == "0640"
    assert module.ARGUMENTS["group"]["default"] == "adm"
    host.params["group"] = "daemon"
    host.run(nginx="new")
    assert (host.root / "nginx.conf").stat().st_gid == grp.getgrnam("daemon").gr_gid
    host.params["group"] = "nobody-of-the-kind"
    with pytest.raises(tree.TreeError, match="no group 'nobody-of-the-kind'"):
        host.run(nginx="new")
