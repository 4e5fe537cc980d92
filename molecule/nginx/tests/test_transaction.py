"""A configuration that cannot break: what reaches the disk and the process, and what does not."""

from __future__ import annotations

import pytest

SHOP = "https://shop.example.com"
CHANGED = ("nginx_keepalive_timeout", "64s")


def change() -> dict:
    return dict([CHANGED])


@pytest.fixture
def intact(nginx):
    """Tree and workers are the same after the test, and the site is served."""
    before = nginx.tree(), nginx.master(), nginx.workers()
    assert "nginx.conf" in before[0] and before[2]
    yield nginx
    assert (nginx.tree(), nginx.master(), nginx.workers()) == before
    assert nginx.ask(SHOP).status == 200
    nginx.changed = False


def test_a_second_run_changes_nothing_and_reloads_nothing(intact):
    assert "changed=0" in intact.applied()


def test_raw_text_that_nginx_refuses_reaches_neither_disk_nor_process(intact, sites):
    sites[0]["extra"] = "location /new {\n    prox_pass http://shop;\n}\n"
    output = intact.refused(nginx_sites=sites)
    assert 'unknown directive "prox_pass"' in output
    assert "in /etc/nginx/sites-available/shop.conf, line " in output
    assert "from nginx_sites[0].extra" in output
    assert "|     prox_pass http://shop;" in output
    assert "staging" not in output


def test_an_option_that_nginx_refuses_reaches_neither_disk_nor_process(intact, sites):
    sites[1]["static"] = [{"url": "/static/", "directory": "/srv/files/static", "expires": "soon"}]
    output = intact.refused(nginx_sites=sites)
    assert '"expires" directive invalid value' in output
    assert "/etc/nginx/sites-available/dead.conf, line " in output
    assert ", from nginx_sites[1]\n" in output.replace("\\n", "\n")


def test_a_new_site_without_a_certificate_reaches_neither_disk_nor_process(intact, sites):
    output = intact.refused(nginx_sites=[*sites, {"name": "new", "domain": "new.example.com"}])
    assert 'cannot load certificate "/etc/nginx/tls/new/fullchain.pem"' in output
    assert f"from nginx_sites[{len(sites)}]" in output


def test_an_open_block_is_traced_to_its_variable(intact, sites):
    sites[1]["extra"] = "location /open {"
    assert "The braces in nginx_sites[1].extra are not in pairs." in intact.refused(nginx_sites=sites)


def test_a_misspelt_option_is_refused_before_anything_is_rendered(intact, sites):
    sites[0]["upstrem"] = sites[0].pop("upstream")
    output = intact.refused(nginx_sites=sites)
    assert "upstrem" in output and "upstream" in output


def test_check_mode_shows_the_diff_and_changes_nothing(intact, sites):
    """The certificate of the new site is not there yet either; its log would be made by nginx's test."""
    new = {"name": "new", "domain": "new.example.com"}
    output = intact.applied("--check", "--diff", nginx_sites=[*sites, new])
    assert "+    server_name new.example.com;" in output
    assert "+++ after: /etc/nginx/sites-available/new.conf" in output
    assert "changed=1" in output
    assert not intact.host.file("/var/log/nginx/new.access.log").exists


def test_check_mode_refuses_what_the_run_would(intact):
    assert "from nginx_http_extra" in intact.refused("--check", nginx_http_extra="no_such_directive on;")


def test_a_port_that_is_taken_is_noticed_and_undone(intact):
    """nginx's own test does not see it, and the reload reports success."""
    intact.host.check_output("systemd-run --unit=squatter --collect python3 -m http.server 8081 --bind 0.0.0.0")
    intact.host.check_output("timeout 10 sh -c 'until curl -s -o /dev/null localhost:8081; do sleep 0.1; done'")
    try:
        output = intact.refused(nginx_http_extra="server { listen 8081; return 204; }")
    finally:
        intact.host.check_output("systemctl stop squatter")
    assert "bind() to 0.0.0.0:8081 failed (98: " in output
    assert "The configuration that was there before is back." in output


def test_a_server_name_that_is_taken_is_refused(intact, sites):
    """nginx would only warn, and ignore the second."""
    extra = "server { listen 80; server_name shop.example.com; return 204; }"
    output = intact.refused(nginx_http_extra=extra)
    assert 'conflicting server name "shop.example.com"' in output


def test_a_change_is_swapped_in_in_one_step_and_loaded_by_a_reload(nginx):
    master, workers, inode = nginx.master(), nginx.workers(), nginx.host.check_output("stat -c %i /etc/nginx")
    nginx.applied(**change())
    assert nginx.host.check_output("stat -c %i /etc/nginx") != inode
    assert nginx.master() == master
    assert nginx.workers() and not nginx.workers() & workers
    assert "keepalive_timeout 64s;" in nginx.host.file("/etc/nginx/nginx.conf").content_string


def test_a_site_that_is_gone_is_gone(nginx, sites):
    nginx.applied(nginx_sites=sites[:1])
    assert sorted(nginx.host.file("/etc/nginx/sites-available").listdir()) == ["default", "shop.conf"]
    assert nginx.host.file("/etc/nginx/sites-enabled").listdir() == ["shop.conf"]
    assert nginx.host.file("/etc/nginx/snippets/shop.headers.conf").exists
    assert not nginx.host.file("/etc/nginx/snippets/dead.headers.conf").exists
    assert nginx.ask("https://dead.example.com/", "--insecure").error == 35


def test_files_of_the_users_are_kept_tested_and_loaded(nginx):
    host = nginx.host
    host.check_output("echo 'server { listen 8082; return 200 mine; }' > /etc/nginx/conf.d/mine.conf")
    try:
        nginx.applied()
        assert nginx.ask("http://localhost:8082/").text == "mine"
        host.check_output("echo 'no_such_directive on;' > /etc/nginx/conf.d/mine.conf")
        output = nginx.refused(**change())
        assert "/etc/nginx/conf.d/mine.conf, line 1" in output
        assert nginx.ask("http://localhost:8082/").text == "mine"
    finally:
        host.check_output("rm /etc/nginx/conf.d/mine.conf")
        nginx.changed = True


@pytest.fixture
def foreign(host):
    path = "/etc/nginx/conf.d/mine.conf"
    host.check_output(f"echo 'server {{ listen 8082; return 200 mine; }}' > {path} && echo > {path}.bak")
    yield path
    host.check_output(f"rm -f {path} {path}.bak")


def test_foreign_files_are_listed_and_can_be_refused_or_removed(nginx, foreign):
    output = nginx.applied("--check", "--diff", **change())
    assert "kept, and not of this configuration" in output and foreign in output
    before = nginx.tree()
    output = nginx.refused(nginx_foreign_files="fail", **change())
    assert foreign in output and f"{foreign}.bak" not in output
    assert nginx.tree() == before
    nginx.applied(nginx_foreign_files="remove")
    assert not nginx.host.file(foreign).exists
    assert nginx.host.file(f"{foreign}.bak").exists, "nginx does not include it"
    assert nginx.host.file("/etc/nginx/sites-enabled/shop.conf").exists


def test_what_was_edited_by_hand_is_put_right(nginx):
    before = nginx.tree()
    nginx.host.check_output("cd /etc/nginx && echo '#' >> nginx.conf && rm sites-enabled/shop.conf")
    nginx.host.check_output("systemctl reload nginx")
    nginx.applied()
    assert nginx.tree() == before
    assert nginx.ask(SHOP).status == 200


def test_a_certificate_that_was_replaced_is_loaded(nginx):
    def served() -> str:
        return nginx.host.check_output(
            "openssl s_client -connect 127.0.0.1:443 -servername shop.example.com </dev/null 2>/dev/null"
            " | openssl x509 -noout -serial")

    before = served()
    nginx.host.check_output(
        "cd /etc/nginx/tls/shop && openssl x509 -in fullchain.pem -signkey privkey.pem -copy_extensions copyall"
        " -days 90 -set_serial 4711 -out new.pem && mv new.pem fullchain.pem")
    assert served() == before
    assert "changed=1" in nginx.applied()
    assert served() == "serial=1267"
    assert "changed=0" in nginx.applied()


def test_a_stopped_and_disabled_nginx_comes_back(nginx):
    nginx.host.check_output("systemctl disable --now nginx")
    assert not nginx.host.service("nginx").is_running
    assert "changed=1" in nginx.applied()
    assert nginx.host.service("nginx").is_running and nginx.host.service("nginx").is_enabled
    assert nginx.ask(SHOP).status == 200


def test_a_mount_inside_the_tree_is_left_in_place(nginx):
    """The tree cannot be exchanged as a whole then, and is swapped file by file."""
    host = nginx.host
    host.check_output("mkdir -p /srv/own && echo 'map $host $own { default own; }' > /srv/own/own.conf"
                      " && mkdir /etc/nginx/own && mount --bind /srv/own /etc/nginx/own")
    try:
        inode = host.check_output("stat -c %i /etc/nginx")
        nginx.applied(**change())
        assert "keepalive_timeout 64s;" in host.file("/etc/nginx/nginx.conf").content_string
        assert host.check_output("stat -c %i /etc/nginx") == inode
        assert host.file("/srv/own/own.conf").exists
        before = nginx.tree(), nginx.workers()
        nginx.refused(nginx_http_extra="no_such_directive on;")
        assert (nginx.tree(), nginx.workers()) == before
    finally:
        host.check_output("umount /etc/nginx/own && rmdir /etc/nginx/own")
