"""A configuration that cannot break: what reaches the disk and the process, and what does not."""

from __future__ import annotations

import json

import pytest

SHOP = "https://shop.example.com"


def change() -> dict:
    return {"nginx_keepalive_timeout": "64s"}


@pytest.fixture
def intact(operated):
    """Tree and workers are the same after the test, and the site is served."""
    before = operated.tree(), operated.master(), operated.workers()
    assert "nginx.conf" in before[0] and before[2]
    yield operated
    assert (operated.tree(), operated.master(), operated.workers()) == before
    assert operated.ask(SHOP).status == 200


@pytest.fixture
def others(sites):
    """A copy of the sites with some options changed, site by site."""
    def changed(**by_name) -> dict:
        copy = json.loads(json.dumps(sites))
        for site in copy:
            site.update(by_name.get(site["name"], {}))
        return {"nginx_sites": copy}
    return changed


def test_a_second_run_changes_nothing_and_reloads_nothing(nginx, intact):
    assert "changed=0" in intact.applied()


def test_what_nginx_refuses_reaches_neither_disk_nor_process(intact, others, sites):
    """And the failure names the site and the option that the line is from."""
    said = intact.refusals({
        "raw text": others(shop={"extra": "location /new {\n    prox_pass http://shop;\n}\n"}),
        "option": others(dead={"static": [{"url": "/static/", "directory": "/srv/files/static", "expires": "soon"}]}),
        "certificate": {"nginx_sites": [*sites, {"name": "new", "domain": "new.example.com"}]},
        "open block": others(dead={"extra": "location /open {"}),
        # nginx would only warn, and ignore the second
        "name": {"nginx_http_extra": "server { listen 80; server_name shop.example.com; return 204; }"},
        "module": others(shop={"extra": "more_set_headers x;"}),
        "commercial": others(shop={"location_extra": "health_check interval=5s;"}),
    })
    assert 'unknown directive "prox_pass"' in said["raw text"]
    assert "in /etc/nginx/sites-available/shop.conf, line " in said["raw text"]
    assert "from nginx_sites[0].extra" in said["raw text"]
    assert "|     prox_pass http://shop;" in said["raw text"]
    assert '"expires" directive invalid value' in said["option"]
    assert "/etc/nginx/sites-available/dead.conf, line " in said["option"]
    assert ", from nginx_sites[1]\n" in said["option"]
    assert 'cannot load certificate "/etc/nginx/tls/new/fullchain.pem"' in said["certificate"]
    assert f"from nginx_sites[{len(sites)}]" in said["certificate"]
    assert "The braces in nginx_sites[1].extra are not in pairs." in said["open block"]
    assert 'conflicting server name "shop.example.com"' in said["name"]
    assert "'more_set_headers' is in the package libnginx-mod-http-headers-more-filter." in said["module"]
    assert "'health_check' is not in this build of nginx, but in the commercial one." in said["commercial"]
    assert "max_fails" in said["commercial"]
    assert not [case for case, text in said.items() if "staging" in text]


def test_what_cannot_work_is_refused_before_anything_is_rendered(intact, others, sites):
    misspelt = others()
    misspelt["nginx_sites"][0]["upstrem"] = misspelt["nginx_sites"][0].pop("upstream")
    servers = [{"address": "unix:/run/a.sock"}, {"address": "unix:/run/b.sock", "backup": True}]
    said = intact.refusals({
        "misspelt": misspelt,
        "combination": others(iphash={"upstream": {"method": "ip_hash", "servers": servers}}),
        "proxy protocol": {"nginx_proxy_protocol": True},
    })
    assert "upstrem" in said["misspelt"] and "upstream" in said["misspelt"]
    assert "upstream.servers[1].backup: is not supported by the method 'ip_hash'" in said["combination"]
    assert "nginx_proxy_protocol: needs nginx_real_ip_from" in said["proxy protocol"]
    assert not [case for case, text in said.items() if "Configure |" in text]


@pytest.fixture
def first_run(operated):
    """A host as Debian's package leaves it, with the certificates that another role put there."""
    host = operated.host
    host.check_output(
        "mkdir /tmp/package && dpkg -x /var/cache/apt/archives/nginx-common_*.deb /tmp/package"
        " && mv /etc/nginx /etc/nginx.mine && mv /var/lib/fastapi/nginx/manifest.json /tmp"
        " && cp -a /tmp/package/etc/nginx /etc/nginx && cp -a /etc/nginx.mine/tls /etc/nginx.mine/modules-enabled /etc/nginx"
        " && ln -s ../sites-available/default /etc/nginx/sites-enabled/default && systemctl restart nginx")
    yield operated
    host.check_output(
        "rm -rf /etc/nginx /tmp/package && mv /etc/nginx.mine /etc/nginx"
        " && mv /tmp/manifest.json /var/lib/fastapi/nginx && systemctl restart nginx")


def test_a_first_run_that_is_refused_leaves_debians_nginx_as_it_was(first_run, others):
    before = first_run.tree(), first_run.master(), first_run.workers()
    assert "sites-enabled/default" in before[0]
    said = first_run.refused(**others(shop={"extra": "no_such_directive on;"}))
    assert "from nginx_sites[0].extra" in said
    assert (first_run.tree(), first_run.master(), first_run.workers()) == before
    assert not first_run.host.file("/var/lib/fastapi/nginx/manifest.json").exists
    assert "Welcome to nginx!" in first_run.ask("http://shop.example.com/").text


def test_check_mode_shows_the_diff_and_changes_nothing(intact, sites):
    """The certificate of the new site is not there yet either; its log would be made by nginx's test."""
    new = {"name": "new", "domain": "new.example.com", "upstream": {"servers": [{"address": "unix:/run/a.sock"}]},
           "locations": [{"path": "/x/", "cache": {"enabled": True}}]}
    output = intact.applied("--check", "--diff", nginx_sites=[*sites, new])
    assert "+    server_name new.example.com;" in output
    assert "+++ after: /etc/nginx/sites-available/new.conf" in output
    assert "changed=1" in output
    assert not intact.host.file("/var/log/nginx/new.access.log").exists
    assert not intact.host.file("/var/lib/nginx/cache-new").exists


def test_check_mode_refuses_what_the_run_would(intact):
    said = intact.refusals({"directive": {"nginx_http_extra": "no_such_directive on;"}}, check=True)
    assert "from nginx_http_extra" in said["directive"]


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


def test_a_change_is_swapped_in_in_one_step_and_loaded_by_a_reload(nginx):
    master, workers, inode = nginx.master(), nginx.workers(), nginx.host.check_output("stat -c %i /etc/nginx")
    nginx.applied(**change())
    assert nginx.host.check_output("stat -c %i /etc/nginx") != inode
    assert nginx.master() == master
    assert nginx.workers() and not nginx.workers() & workers
    assert "keepalive_timeout 64s;" in nginx.host.file("/etc/nginx/nginx.conf").content_string


def test_a_site_that_is_gone_is_gone(operated, sites):
    operated.applied(nginx_sites=sites[:1])
    host = operated.host
    assert sorted(host.file("/etc/nginx/sites-available").listdir()) == ["default", "shop.conf"]
    assert host.file("/etc/nginx/sites-enabled").listdir() == ["shop.conf"]
    assert host.file("/etc/nginx/snippets/shop.headers.conf").exists
    assert not host.file("/etc/nginx/snippets/dead.headers.conf").exists
    assert operated.ask("https://dead.example.com/", "--insecure").error == 35


@pytest.fixture(scope="module")
def foreign(host):
    """A file that nginx includes and the role did not write, and one that nginx passes over."""
    path = "/etc/nginx/conf.d/mine.conf"
    host.check_output(f"echo 'server {{ listen 8082; return 200 mine; }}' > {path} && echo > {path}.bak")
    yield path
    host.check_output(f"rm -f {path} {path}.bak")


def test_files_of_the_users_are_listed_kept_and_loaded(operated, foreign):
    output = operated.applied("--check", "--diff", **change())
    assert "kept, and not of this configuration" in output and foreign in output
    operated.applied()
    assert operated.ask("http://localhost:8082/").text == "mine"


def test_files_of_the_users_are_tested_or_can_be_refused(operated, foreign):
    host = operated.host
    host.check_output(f"cp {foreign} /tmp/mine.conf && echo 'no_such_directive on;' > {foreign}")
    before = operated.tree(), operated.workers()
    said = operated.refusals({"tested": change(), "refused": {"nginx_foreign_files": "fail", **change()}})
    assert (operated.tree(), operated.workers()) == before
    host.check_output(f"cp /tmp/mine.conf {foreign}")
    assert f"{foreign}, line 1" in said["tested"]
    assert foreign in said["refused"] and f"{foreign}.bak" not in said["refused"]
    assert "no_such_directive" not in said["refused"]
    assert operated.ask("http://localhost:8082/").text == "mine"


def test_files_of_the_users_can_be_removed(operated, foreign):
    operated.applied(nginx_foreign_files="remove")
    assert not operated.host.file(foreign).exists
    assert operated.host.file(f"{foreign}.bak").exists, "nginx does not include it"
    assert operated.host.file("/etc/nginx/sites-enabled/shop.conf").exists
    assert operated.ask("http://localhost:8082/").status == 0


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


def test_a_mount_inside_the_tree_is_left_in_place(operated):
    """The tree cannot be exchanged as a whole then, and is swapped file by file."""
    nginx, host = operated, operated.host
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
