"""A configuration that cannot break: what reaches the disk and the process, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

SITES = yaml.safe_load((Path(__file__).resolve().parent.parent / "vars.yml").read_text(encoding="utf-8"))["nginx_sites"]
SHOP = "https://shop.example.com"


def change() -> dict:
    return {"nginx_keepalive_timeout": "64s"}


def others(**by_name) -> dict:
    """The scenario's sites with some options changed, site by site."""
    return {"nginx_sites": [{**site, **by_name.get(site["name"], {})} for site in SITES]}


@pytest.fixture
def intact(operated):
    """Tree and workers are the same after the test, and the site is served."""
    before = operated.tree(), operated.master(), operated.workers()
    assert "nginx.conf" in before[0] and before[2]
    yield operated
    assert (operated.tree(), operated.master(), operated.workers()) == before
    assert operated.ask(SHOP).status == 200


# -- Refused -----------------------------------------------------------------------------------------------------------

NEW = {"name": "new", "domain": "new.example.com"}
MISSPELT = [{"upstrem" if name == "upstream" else name: value for name, value in site.items()}
            for site in SITES]
SERVERS = [{"address": "unix:/run/a.sock"}, {"address": "unix:/run/b.sock", "backup": True}]
REFUSED = {
    "raw text": others(shop={"extra": "location /new {\n    prox_pass http://shop;\n}\n"}),
    "option": others(dead={"static": [{"url": "/static/", "directory": "/srv/files/static", "expires": "1s1h"}]}),
    "certificate": {"nginx_sites": [*SITES, NEW]},
    "open block": others(dead={"extra": "location /open {"}),
    "name": {"nginx_http_extra": "server { listen 80; server_name shop.example.com; return 204; }"},
    "module": others(shop={"extra": "more_set_headers x;"}),
    "commercial": others(shop={"location_extra": "health_check interval=5s;"}),
    "misspelt": {"nginx_sites": MISSPELT},
    "combination": others(iphash={"upstream": {"method": "ip_hash", "servers": SERVERS}}),
    "proxy protocol": {"nginx_proxy_protocol": True},
}
PREDICTED = {"check mode": {"nginx_http_extra": "no_such_directive on;"}}


@pytest.fixture(scope="module")
def refused(operated) -> dict[str, str]:
    """What the role says to each of these, and that all of them together changed nothing."""
    before = operated.tree(), operated.master(), operated.workers()
    said = operated.refusals(REFUSED, predicted=PREDICTED)
    assert (operated.tree(), operated.master(), operated.workers()) == before
    assert operated.ask(SHOP).status == 200
    return said


@pytest.mark.parametrize("case, words", [
    ("raw text", [
        'unknown directive "prox_pass"', "in /etc/nginx/sites-available/shop.conf, line ", "from nginx_sites[0].extra",
        "|     prox_pass http://shop;"]),
    ("option", ['"expires" directive invalid value', "/etc/nginx/sites-available/dead.conf, line ",
                ", from nginx_sites[1]\n"]),
    ("certificate", ['cannot load certificate "/etc/nginx/tls/new/fullchain.pem"',
                     f"from nginx_sites[{len(SITES)}]"]),
    ("open block", ["The braces in nginx_sites[1].extra are not in pairs."]),
    # nginx would only warn, and ignore the second
    ("name", ['conflicting server name "shop.example.com"']),
    ("module", ["'more_set_headers' is in the package libnginx-mod-http-headers-more-filter."]),
    ("commercial", ["'health_check' is not in this build of nginx, but in the commercial one.", "max_fails"]),
    ("check mode", ["from nginx_http_extra"]),
])
def test_what_nginx_refuses_reaches_neither_disk_nor_process(refused, case, words):
    """And the failure names the site and the option that the line is from."""
    assert [word for word in words if word not in refused[case]] == []
    assert "Configure | Nginx serves the sites" in refused[case]
    assert "staging" not in refused[case]


@pytest.mark.parametrize("case, words", [
    ("misspelt", ["upstrem", "upstream"]),
    ("combination", ["upstream.servers[1].backup: is not supported by the method 'ip_hash'"]),
    ("proxy protocol", ["nginx_proxy_protocol: needs nginx_real_ip_from"]),
])
def test_what_cannot_work_is_refused_before_anything_is_rendered(refused, case, words):
    assert [word for word in words if word not in refused[case]] == []
    assert "Configure |" not in refused[case]


@pytest.fixture
def first_run(operated):
    """A host as Debian's package leaves it, with the certificates that another role put there."""
    host = operated.host
    host.check_output(
        "mkdir /tmp/package && dpkg -x /var/cache/apt/archives/nginx-common_*.deb /tmp/package"
        " && mv /etc/nginx /etc/nginx.mine && mv /var/lib/fastapi/nginx/manifest.json /tmp"
        " && cp -a /tmp/package/etc/nginx /etc && cp -a /etc/nginx.mine/tls /etc/nginx.mine/modules-enabled /etc/nginx"
        " && ln -s ../sites-available/default /etc/nginx/sites-enabled/default && systemctl restart nginx")
    yield operated
    host.check_output(
        "rm -rf /etc/nginx /tmp/package && mv /etc/nginx.mine /etc/nginx"
        " && mv /tmp/manifest.json /var/lib/fastapi/nginx && systemctl restart nginx")


@pytest.mark.either_host
def test_a_first_run_that_is_refused_leaves_debians_nginx_as_it_was(first_run):
    before = first_run.tree(), first_run.master(), first_run.workers()
    assert "sites-enabled/default" in before[0]
    said = first_run.refused(**others(shop={"extra": "no_such_directive on;"}))
    assert "from nginx_sites[0].extra" in said
    assert (first_run.tree(), first_run.master(), first_run.workers()) == before
    assert not first_run.host.file("/var/lib/fastapi/nginx/manifest.json").exists
    assert "Welcome to nginx!" in first_run.ask("http://shop.example.com/").text


def test_check_mode_shows_the_diff_and_changes_nothing(intact):
    """The certificate of the new site is not there yet either; its log would be made by nginx's test."""
    new = {**NEW, "upstream": {"servers": [{"address": "unix:/run/a.sock"}]},
           "locations": [{"path": "/x/", "cache": {"enabled": True}}]}
    output = intact.applied("--check", "--diff", nginx_sites=[*SITES, new])
    assert "+    server_name new.example.com;" in output
    assert "+++ after: /etc/nginx/sites-available/new.conf" in output
    assert "changed=1" in output
    assert not intact.host.file("/var/log/nginx/new.access.log").exists
    assert not intact.host.file("/var/lib/nginx/cache-new").exists


@pytest.mark.either_host
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


# -- Applied -----------------------------------------------------------------------------------------------------------


def test_a_change_is_swapped_in_in_one_step_and_loaded_by_a_reload(nginx):
    master, workers, inode = nginx.master(), nginx.workers(), nginx.host.check_output("stat -c %i /etc/nginx")
    nginx.applied(**change())
    assert nginx.host.check_output("stat -c %i /etc/nginx") != inode
    assert nginx.master() == master
    assert nginx.workers() and not nginx.workers() & workers
    assert "keepalive_timeout 64s;" in nginx.host.file("/etc/nginx/nginx.conf").content_string


@pytest.mark.either_host
def test_a_site_that_is_gone_is_gone(operated):
    operated.applied(nginx_sites=SITES[:1])
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


def test_what_the_configuration_says_is_for_root_only(nginx):
    """Raw text may have secrets in it: neither other users nor the journal nor the output of -vvv have it."""
    secret = f"s3cret{nginx.host.check_output('hostname')}"
    output = nginx.applied("--diff", "-vvv", nginx_http_extra=f'map $host $own_token {{ default "{secret}"; }}')
    assert "own_token" in output and "<hidden " in output and secret not in output
    assert nginx.host.run(f"journalctl --no-pager | grep -c {secret}").stdout.strip() == "0"
    files = "nginx.conf sites-available/shop.conf snippets/shop.headers.conf snippets/proxy.conf"
    modes = nginx.host.check_output(f"cd /etc/nginx && stat -c '%a %U %G' {files}")
    assert set(modes.splitlines()) == {"640 root adm"}
    assert nginx.host.run("runuser -u nobody -- cat /etc/nginx/nginx.conf").failed
    assert nginx.host.run(f"nginx -T | grep -c {secret}").stdout.strip() == "1", "root's own test works as before"


@pytest.mark.either_host
def test_what_somebody_put_where_a_site_is_to_be_stays(operated):
    path = "/etc/nginx/sites-available/new.conf"
    operated.host.check_output(f"echo 'server {{ listen 8083; }}' > {path}")
    try:
        before = operated.tree(), operated.workers()
        said = operated.refused(nginx_sites=[*SITES, {**NEW, "certificate": "shop"}])
        assert f"{path} (file, owner root, changed " in said and "nginx_foreign_files: remove" in said
        assert (operated.tree(), operated.workers()) == before
        operated.applied(nginx_sites=SITES)
        assert "listen 8083" in operated.host.file(path).content_string
    finally:
        operated.host.check_output(f"rm {path}")


@pytest.mark.either_host
def test_what_was_changed_by_hand_is_put_right(nginx):
    before = nginx.tree()
    nginx.host.check_output("cd /etc/nginx && echo '#' >> nginx.conf && rm sites-enabled/shop.conf")
    nginx.host.check_output("systemctl disable --now nginx")
    assert not nginx.host.service("nginx").is_running
    assert "changed=1" in nginx.applied()
    assert nginx.tree() == before
    assert nginx.host.service("nginx").is_running and nginx.host.service("nginx").is_enabled
    assert nginx.ask(SHOP).status == 200


def test_a_certificate_that_was_replaced_is_loaded_and_a_second_run_reloads_nothing(nginx):
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
    loaded = nginx.tree(), nginx.master(), nginx.workers()
    assert "changed=0" in nginx.applied()
    assert (nginx.tree(), nginx.master(), nginx.workers()) == loaded


@pytest.mark.either_host
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
