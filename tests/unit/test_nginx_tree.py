# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import hashlib
import json
import os
import time

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree


def put(root, files):
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            target.symlink_to(text[3:])
        else:
            target.write_text(text)
            target.chmod(0o644)


def snapshot(root):
    """Every file and link below a directory, by content."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[str(path.relative_to(root))] = path.read_text()
    return found


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "nginx"
    put(folder, {"nginx.conf": "old", "mime.types": "types", "sites-available/gone.conf": "gone",
                 "sites-enabled/gone.conf": "-> ../sites-available/gone.conf"})
    return folder


WANTED = {
    "nginx.conf": "new",
    "sites-available/shop.conf": "shop",
    "sites-enabled/shop.conf": "-> ../sites-available/shop.conf",
}
AFTER = {**WANTED, "mime.types": "types"}
GONE = ["sites-available/gone.conf", "sites-enabled/gone.conf"]


def wanted_nodes():
    return {
        path: tree.link_node(text[3:]) if text.startswith("-> ") else tree.file_node(text)
        for path, text in WANTED.items()}


@pytest.fixture
def staged(root, tmp_path):
    """A staged tree, and the changes in it."""
    stage = tmp_path / ".nginx-staging-x"
    put(stage, snapshot(root))
    changes = tree.plan(str(root), wanted_nodes(), GONE)
    for path, (_before, after) in changes.items():
        tree.write(str(stage / path), after)
    return stage, changes


# -- plan --------------------------------------------------------------------------------------------------------------


def test_plan_names_what_differs_and_only_that(root):
    changes = tree.plan(str(root), {**wanted_nodes(), "mime.types": tree.file_node("types")}, GONE)
    assert sorted(changes) == sorted([*WANTED, *GONE])
    assert changes["sites-available/gone.conf"][1] is None
    assert changes["nginx.conf"][0].data == b"old"


def test_plan_sees_changed_permissions(root):
    (root / "nginx.conf").chmod(0o666)
    changes = tree.plan(str(root), {"nginx.conf": tree.file_node("old")}, [])
    assert "mode 0666" in tree.diff(str(root), changes)[0]["before"]


def test_plan_sees_a_file_in_place_of_a_link(root):
    assert tree.plan(str(root), {"mime.types": tree.link_node("elsewhere")}, [])


def test_nothing_differs_after_the_changes_were_written(root):
    for path, (_before, after) in tree.plan(str(root), wanted_nodes(), GONE).items():
        tree.write(str(root / path), after)
    assert tree.plan(str(root), wanted_nodes(), GONE) == {}
    assert snapshot(root) == AFTER


def test_a_missing_root_is_an_empty_one(tmp_path):
    changes = tree.plan(str(tmp_path / "none"), wanted_nodes(), GONE)
    assert sorted(changes) == sorted(WANTED)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../nginx.conf", "a/../../b", "a//b", "./a", ".", "..", "a/"])
def test_a_path_that_leads_out_is_refused(root, path):
    with pytest.raises(tree.TreeError, match="not a plain path"):
        tree.plan(str(root), {path: tree.file_node("x")}, [])


def test_a_directory_that_is_a_link_out_is_refused(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (root / "conf.d").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(tree.TreeError, match=r"conf\.d leads out of"):
        tree.plan(str(root), {"conf.d/a.conf": tree.file_node("x")}, [])


def test_a_directory_in_the_place_of_a_file_is_refused(root):
    (root / "sites-available" / "shop.conf").mkdir()
    with pytest.raises(tree.TreeError, match="neither a file nor a link"):
        tree.plan(str(root), wanted_nodes(), [])


def test_the_diff_shows_links_and_absent_files(root):
    shown = {entry["after_header"]: entry for entry in tree.diff(str(root), tree.plan(str(root), wanted_nodes(), GONE))}
    assert shown[str(root / "sites-enabled/shop.conf")]["after"] == "link to ../sites-available/shop.conf\n"
    assert shown[str(root / "sites-enabled/shop.conf")]["before_header"] == "/dev/null"
    assert shown["/dev/null"]["before"]
    assert (shown[str(root / "nginx.conf")]["before"], shown[str(root / "nginx.conf")]["after"]) == ("old", "new")


# -- write -------------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_no_litter(root, monkeypatch):
    def fail(*_args):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    before = snapshot(root)
    with pytest.raises(OSError, match="full"):
        tree.write(str(root / "nginx.conf"), tree.file_node("new"))
    assert snapshot(root) == before
    assert sorted(os.listdir(root)) == ["mime.types", "nginx.conf", "sites-available", "sites-enabled"]


def test_write_replaces_a_link_and_not_what_it_points_to(root):
    (root / "nginx.conf").unlink()
    (root / "nginx.conf").symlink_to("mime.types")
    tree.write(str(root / "nginx.conf"), tree.file_node("new", 0o600))
    assert snapshot(root)["mime.types"] == "types"
    assert (root / "nginx.conf").stat().st_mode & 0o777 == 0o600


# -- swap --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["exchange", "files"])
def way(request, monkeypatch):
    if request.param == "files":
        monkeypatch.setattr(tree, "exchange", lambda one, other: False)
    return request.param


def test_swap_and_swap_back(root, staged, way):
    stage, changes = staged
    before = snapshot(root)
    assert tree.swap(str(stage), str(root), changes) == way
    assert (snapshot(root), snapshot(stage)) == (AFTER, before)
    assert tree.swap(str(stage), str(root), changes) == way
    assert (snapshot(root), snapshot(stage)) == (before, AFTER)


def test_the_exchange_is_one_step(root, staged):
    stage, changes = staged
    inode = os.stat(root).st_ino
    tree.swap(str(stage), str(root), changes)
    assert os.stat(stage).st_ino == inode


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EBUSY])
def test_a_system_that_cannot_exchange_is_served_file_by_file(root, staged, monkeypatch, code):
    class Library:
        @staticmethod
        def renameat2(*_args):
            tree.ctypes.set_errno(code)
            return -1

    monkeypatch.setattr(tree.ctypes, "CDLL", lambda *_args, **_options: Library)
    stage, changes = staged
    assert tree.swap(str(stage), str(root), changes) == "files"
    assert snapshot(root) == AFTER


def test_other_errors_of_the_exchange_are_errors(root, staged, monkeypatch):
    class Library:
        @staticmethod
        def renameat2(*_args):
            tree.ctypes.set_errno(errno.EPERM)
            return -1

    monkeypatch.setattr(tree.ctypes, "CDLL", lambda *_args, **_options: Library)
    stage, changes = staged
    with pytest.raises(PermissionError):
        tree.swap(str(stage), str(root), changes)


def test_a_mount_in_the_tree_is_never_exchanged(root, staged, tmp_path, monkeypatch):
    stage, changes = staged
    monkeypatch.setattr(tree, "has_mounts", lambda path: path == str(root))
    assert tree.swap(str(stage), str(root), changes) == "files"


def test_mounts_are_found_at_and_below_the_root(root, tmp_path):
    table = tmp_path / "mountinfo"
    odd = tmp_path / "with space"
    odd.mkdir()
    line = "36 35 98:0 / {} rw,noatime - ext4 /dev/sda1 rw\n"
    for mount, path, expected in (
        (str(root), root, True), (f"{root}/certs", root, True), (f"{root}-other", root, False), ("/", root, False),
        (str(odd).replace(" ", "\\040"), odd, True),
    ):
        table.write_text(line.format("/proc") + line.format(mount))
        assert tree.has_mounts(str(path), str(table)) is expected, mount


@pytest.mark.parametrize("step", range(1, 11))
def test_a_swap_file_by_file_that_fails_half_way_is_undone(root, staged, monkeypatch, step):
    stage, changes = staged
    before = snapshot(root)
    monkeypatch.setattr(tree, "exchange", lambda one, other: False)
    write, calls = tree.write, []

    def sometimes(path, node):
        calls.append(path)
        if len(calls) == step:
            raise OSError(errno.ENOSPC, "full")
        write(path, node)

    monkeypatch.setattr(tree, "write", sometimes)
    with pytest.raises(OSError, match="full"):
        tree.swap(str(stage), str(root), changes)
    assert snapshot(root) == before


def test_the_order_of_a_swap_file_by_file(root, staged, monkeypatch):
    """A reload by somebody else half-way finds no link without its file, and the snippets that nginx.conf includes."""
    stage, changes = staged
    monkeypatch.setattr(tree, "exchange", lambda one, other: False)
    write, order = tree.write, []

    def watched(path, node):
        if path.startswith(f"{root}/"):
            order.append(os.path.relpath(path, root))
        write(path, node)

    monkeypatch.setattr(tree, "write", watched)
    tree.swap(str(stage), str(root), changes)
    assert order == ["sites-available/shop.conf", "sites-enabled/gone.conf", "nginx.conf", "sites-enabled/shop.conf",
                     "sites-available/gone.conf"]


# -- manifest ----------------------------------------------------------------------------------------------------------


def test_the_manifest_is_read_as_it_was_written(tmp_path):
    path = str(tmp_path / "state" / "manifest.json")
    assert tree.load_manifest(path) == {"paths": [], "pending": False}
    tree.save_manifest(path, {"paths": ["a", "b"], "pending": True})
    assert tree.load_manifest(path) == {"paths": ["a", "b"], "pending": True}


def test_digests_tell_what_the_tree_should_be(tmp_path):
    path = tmp_path / "digests.json"
    tree.save_digests(str(path), {"nginx.conf": tree.file_node("x"), "sites-enabled/shop": tree.link_node("../y")})
    first = json.loads(path.read_text())
    assert first["nginx.conf"] == hashlib.sha256(b"x").hexdigest()
    assert first["sites-enabled/shop"] == hashlib.sha256(b"link ../y").hexdigest()
    written = path.stat().st_mtime_ns
    tree.save_digests(str(path), {"nginx.conf": tree.file_node("x"), "sites-enabled/shop": tree.link_node("../y")})
    assert path.stat().st_mtime_ns == written
    tree.save_digests(str(path), {"nginx.conf": tree.file_node("z")})
    assert json.loads(path.read_text()).keys() == {"nginx.conf"} and json.loads(path.read_text()) != first


@pytest.mark.parametrize("text", ["", "{", "[]", '{"paths": []}', '{"paths": ["../x"], "pending": false}',
                                  '{"paths": [1], "pending": false}', '{"paths": null, "pending": false}'])
def test_a_damaged_manifest_is_reported(tmp_path, text):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(tree.TreeError, match="is damaged"):
        tree.load_manifest(str(path))


# -- versions ----------------------------------------------------------------------------------------------------------

HTTP2 = "listen 443 ssl http2; # only nginx < 1.25.1\nlisten 443 ssl; # only nginx >= 1.25.1\nend"


@pytest.mark.parametrize("version, expected", [
    ((1, 22, 1), "listen 443 ssl http2;\nend"),
    ((1, 25, 0), "listen 443 ssl http2;\nend"),
    ((1, 25, 1), "listen 443 ssl;\nend"),
    ((1, 26, 3), "listen 443 ssl;\nend"),
    ((999,), "listen 443 ssl;\nend"),
])
def test_lines_for_other_versions_are_left_out(version, expected):
    assert tree.for_version(HTTP2, version) == expected


# -- what nginx has loaded ---------------------------------------------------------------------------------------------


def test_the_newest_change_counts_links_to_certificates_and_no_hidden_directories(root, tmp_path):
    lineage = tmp_path / "lineage"
    put(lineage, {"fullchain.pem": "1"})
    (root / "tls").mkdir()
    (root / "tls" / "shop").symlink_to(lineage)
    before = tree.newest_change(str(root))
    time.sleep(0.02)
    put(root, {".git/index": "x"})
    assert tree.newest_change(str(root)) == before
    (lineage / "fullchain.pem").write_text("2")
    assert tree.newest_change(str(root)) > before


def test_a_file_that_is_a_link_counts_with_what_it_points_to(root, tmp_path):
    put(tmp_path, {"outside.conf": "1"})
    (root / "inside.conf").symlink_to(tmp_path / "outside.conf")
    before = tree.newest_change(str(root))
    time.sleep(0.02)
    (tmp_path / "outside.conf").write_text("2")
    assert tree.newest_change(str(root)) > before


def test_times_in_the_future_do_not_count(root):
    assert tree.newest_change(str(root), now=1000) == 0


def test_only_workers_that_take_connections_count(tmp_path):
    def process(pid, parent, title, state="S", start=5000):
        folder = tmp_path / str(pid)
        folder.mkdir()
        numbers = " ".join(["0"] * 17)
        (folder / "stat").write_text(f"{pid} (nginx) {state} {parent} {numbers} {start} 0 0\n")
        (folder / "cmdline").write_text(title + "\0")

    process(10, 1, "nginx: master process /usr/sbin/nginx")
    process(11, 10, "nginx: worker process")
    process(12, 10, "nginx: worker process is shutting down")
    process(13, 10, "nginx: cache manager process")
    process(14, 20, "nginx: worker process")
    process(15, 10, "nginx: worker process", state="Z")
    (tmp_path / "16").mkdir()
    (tmp_path / "self").mkdir()
    found = tree.workers("10", str(tmp_path))
    assert list(found) == [11]
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert found[11] == pytest.approx(boot + 5000 / os.sysconf("SC_CLK_TCK"), abs=1)


# -- complaints --------------------------------------------------------------------------------------------------------

SITE = """server {
    listen 80;
    # from nginx_sites[1].extra
    location /x {
        prox_pass http://x;
    }
    # end of nginx_sites[1].extra
    client_max_body_size lots;
    ssl_certificate tls/shop/fullchain.pem;
}
"""
ORIGINS = {"sites-available/shop.conf": "nginx_sites[1]"}


@pytest.fixture
def stage(tmp_path):
    folder = tmp_path / ".nginx-staging-x"
    put(folder, {"sites-available/shop.conf": SITE, "sites-enabled/shop.conf": "-> ../sites-available/shop.conf"})
    return str(folder)


@pytest.fixture(params=["nginx: [emerg] ", "2026/11/22 15:52:08 [emerg] 5073#5073: "])
def emerg(request):
    """As nginx says it to a terminal, and as into a log."""
    return request.param


@pytest.mark.parametrize("installed, wanted", [(False, "Add it to nginx_packages"), (True, "does not load it")])
def test_a_package_that_is_installed_is_not_to_be_added(tmp_path, monkeypatch, installed, wanted):
    monkeypatch.setattr(tree, "is_installed", lambda package: installed)
    message = explain(str(tmp_path), 'nginx: [emerg] unknown directive "brotli" in STAGE/nginx.conf:1')["message"]
    assert wanted in message and ("Add it to" in message) is not installed


def explain(stage, output):
    texts = {"sites-available/shop.conf": SITE}
    message, details = tree.explain(output.replace("STAGE", stage), stage, "/etc/nginx", texts, ORIGINS)
    return {"message": message, **details}


def test_a_complaint_names_the_real_file_the_line_and_the_variable(stage, emerg):
    found = explain(stage, "nginx: [warn] first\n"
                    f'{emerg}unknown directive "prox_pass" in STAGE/sites-enabled/shop.conf:5\n'
                    "nginx: configuration file STAGE/nginx.conf test failed\n")
    assert found["file"] == "/etc/nginx/sites-available/shop.conf"
    assert found["line"] == 5
    assert found["origin"] == "nginx_sites[1].extra"
    assert found["message"].startswith('unknown directive "prox_pass"\nin /etc/nginx/sites-available/shop.conf, line 5')
    assert ">    5 |         prox_pass http://x;" in found["message"]
    assert "staging" not in found["message"]


def test_a_line_of_the_template_comes_from_the_site(stage):
    found = explain(stage, 'nginx: [emerg] "client_max_body_size" directive invalid in STAGE/sites-enabled/shop.conf:8')
    assert found["origin"] == "nginx_sites[1]"


def test_a_complaint_without_a_place_is_found_by_what_it_quotes(stage, emerg):
    found = explain(stage, emerg + 'cannot load certificate "STAGE/tls/shop/fullchain.pem": failed')
    assert found["file"] == "/etc/nginx/sites-available/shop.conf"
    assert found["line"] == 9
    assert '"/etc/nginx/tls/shop/fullchain.pem"' in found["message"]


def test_a_complaint_about_a_file_outside_the_tree(stage):
    found = explain(stage, 'nginx: [emerg] unknown directive "x" in /usr/share/nginx/modules-available/mod.conf:1')
    assert found["file"] == "/usr/share/nginx/modules-available/mod.conf"
    assert found["origin"] is None


def test_a_complaint_about_a_file_of_the_user(stage):
    found = explain(stage, 'nginx: [emerg] unknown directive "x" in STAGE/conf.d/mine.conf:3')
    assert (found["file"], found["line"], found["origin"]) == ("/etc/nginx/conf.d/mine.conf", 3, None)


@pytest.mark.parametrize("output", ["", "Segmentation fault", "nginx: [emerg] "])
def test_a_complaint_that_says_nothing_is_passed_on(stage, output):
    found = explain(stage, output)
    assert found["file"] is None
    assert isinstance(found["message"], str)


@pytest.mark.parametrize("raw, expected", [
    ("location / {\n", True),
    ("}\n", True),
    ("location / {\n}\n", False),
    ('return 200 "{";\n', False),
    ("return 200 '{';\n", False),
    ("set $a ${b};\n", False),
    ("# {\n", False),
    ("return 301 /a#{;\n", True),
    ("location ~ a\\{ { }\n", False),
])
def test_raw_text_that_leaves_blocks_open_is_suspected(raw, expected):
    lines = f"# from v\n{raw}# end of v\nserver {{".split("\n")
    assert tree.unbalanced(lines) == (["v"] if expected else [])


def test_an_open_block_in_raw_text_is_named_where_nginx_complains_elsewhere(tmp_path):
    text = "server {\n# from nginx_sites[0].extra\nlocation / {\n# end of nginx_sites[0].extra\n}\n"
    output = 'nginx: [emerg] unexpected end of file, expecting "}" in /s/a.conf:5'
    message, _details = tree.explain(output, "/s", "/etc/nginx", {"a.conf": text}, {"a.conf": "nginx_sites[0]"})
    assert "The braces in nginx_sites[0].extra are not in pairs." in message


def test_only_files_that_nginx_includes_and_nobody_knows_are_foreign(tmp_path):
    put(tmp_path, {"conf.d/mine.conf": "", "conf.d/ours.conf": "", "conf.d/x.bak": "", "conf.d/.x.conf": "",
                   "sites-enabled/a": "-> ../nowhere", "mime.types": ""})
    (tmp_path / "sites-enabled/folder").mkdir()
    patterns = ["conf.d/*.conf", "sites-enabled/*"]
    assert tree.foreign(str(tmp_path), patterns, {"conf.d/ours.conf"}) == ["conf.d/mine.conf", "sites-enabled/a"]


@pytest.mark.parametrize("complaint, name", [
    ('unknown directive "health_check"', "health_check"), ('invalid parameter "slow_start=30s"', "slow_start"),
    ('invalid parameter "drain"', "drain"),
])
def test_what_only_the_commercial_nginx_has_is_said_to_be_so(stage, emerg, complaint, name):
    message = explain(stage, f"{emerg}{complaint} in STAGE/sites-enabled/shop.conf:5\n")["message"]
    assert f"'{name}' is not in this build of nginx" in message
    other = explain(stage, f'{emerg}unknown directive "healthcheck" in STAGE/sites-enabled/shop.conf:5\n')["message"]
    assert "commercial" not in other


CONFLICT = '2026/11/22 15:52:08 [warn] 5#5: conflicting server name "a.example.com" on 0.0.0.0:80, ignored\n'


def test_a_server_name_that_another_file_has_too_is_a_conflict(tmp_path):
    stage = tmp_path / "stage"
    ours = "server {\n    server_name b.example.com a.example.com;\n}\n"
    put(stage, {"sites-available/a.conf": ours, "conf.d/mine.conf": "server_name a.example.com;", "c": "server_name c"})
    found = tree.conflict(CONFLICT, str(stage), "/etc/nginx", {"sites-available/a.conf": ours})
    assert "/etc/nginx/conf.d/mine.conf and /etc/nginx/sites-available/a.conf" in found


def test_a_conflict_among_files_of_the_user_is_theirs(tmp_path):
    put(tmp_path, {"conf.d/mine.conf": "server_name a.example.com;"})
    assert tree.conflict(CONFLICT, str(tmp_path), "/etc/nginx", {"a.conf": "server_name xa.example.com;"}) is None


# -- what the files name -----------------------------------------------------------------------------------------------


def test_logs_pid_files_and_certificates_are_found():
    texts = ["pid /run/nginx.pid;\naccess_log /var/log/nginx/a.log json buffer=1k;\n  error_log /var/log/a.error.log;\n"
             "error_log /dev/stderr;\naccess_log off;\naccess_log syslog:server=x;\n"
             "ssl_certificate tls/a/fullchain.pem;\nssl_certificate_key tls/a/privkey.pem;\n"
             "ssl_certificate /etc/ssl/b.pem;\n# access_log /nowhere;\n"]
    assert tree.log_files(texts) == ["/var/log/a.error.log", "/var/log/nginx/a.log"]
    assert tree.pid_files(texts) == ["/run/nginx.pid"]
    assert tree.certificate_files(texts) == [
        ("certificate", "tls/a/fullchain.pem"), ("certificate_key", "tls/a/privkey.pem")]
