"""The site as users and the operator see it."""

from __future__ import annotations

import re

import pytest

APPS = ["shop", "blog"]


def unit(host, app: str, kind: str = "service") -> str:
    names = host.check_output("systemctl list-units --plain --no-legend --state=active %s", f"{app}@*.{kind}")
    return names.split()[0]


def test_only_http_and_https_listen_on_tcp_for_others(host):
    addresses = {line.split()[3] for line in host.check_output("ss -H -t -l -n").splitlines()}
    listening = {address for address in addresses if not address.startswith("127.0.0.1:")}
    assert listening == {"0.0.0.0:80", "0.0.0.0:443", "[::]:80", "[::]:443"}


@pytest.mark.parametrize("app", APPS)
def test_app_runs_as_its_own_user_and_starts_at_boot(host, app):
    service = unit(host, app)
    pid = host.check_output("systemctl show --property MainPID --value %s", service)
    assert host.check_output("ps -o user= -p %s", pid).strip() == app
    assert host.service(service).is_enabled
    assert host.service(unit(host, app, "socket")).is_enabled
    assert host.service("nginx").is_running
    assert host.service("nginx").is_enabled


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --plain --no-legend") == ""


@pytest.mark.parametrize("app", APPS)
def test_exposure_is_low(host, app):
    report = host.check_output("systemd-analyze security --no-pager %s", unit(host, app))
    assert float(re.search(r"exposure level for \S+: ([\d.]+)", report)[1]) <= 1.5, report


@pytest.mark.parametrize("app", APPS)
def test_files_have_the_right_owners_and_modes(host, app):
    release = host.file(f"/srv/{app}/current").linked_to
    expected = {
        f"/srv/{app}": ("root", "root", 0o755),
        f"/srv/{app}/shared": (app, app, 0o750),
        f"{release}/env": ("root", "root", 0o600),
        host.file(f"/srv/{app}/live.sock").linked_to: (app, "www-data", 0o660),
        f"/var/log/nginx/{app}.access.log": ("www-data", "adm", 0o640),
    }
    found = {path: (host.file(path).user, host.file(path).group, host.file(path).mode) for path in expected}
    assert found == expected


def test_app_cannot_read_or_write_what_is_not_its_own(host):
    release = host.file("/srv/shop/current").linked_to
    forbidden = [
        f"cat {release}/env",
        f"touch {release}/src/app/main.py",
        f"touch {release}/venv/pyvenv.cfg",
        "ls /srv/blog/shared",
        f"cat {host.file('/srv/blog/current').linked_to}/src/app/main.py",
        "curl --silent --max-time 2 --unix-socket /srv/blog/live.sock http://blog.example.com/",
        "cat /var/lib/fastapi/placeholder/shop/privkey.pem",
    ]
    allowed = [command for command in forbidden if host.run("runuser -u shop -- sh -c %s", command).succeeded]
    assert not allowed


@pytest.mark.parametrize("app", APPS)
def test_app_sees_the_real_client_and_https(web, app):
    seen = web.get(f"https://{app}.example.com/whoami", cert=app).json()
    assert (seen["client"], seen["scheme"], seen["host"]) == (web.address, "https", f"{app}.example.com")
    assert seen["version"] == app


def test_forged_forwarding_headers_are_not_believed(web):
    forged = ["X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6", "X-Forwarded-Proto: http", "Forwarded: for=6.6.6.6"]
    options = [part for header in forged for part in ("--header", header)]
    seen = web.get("https://shop.example.com/whoami", *options).json()
    assert (seen["client"], seen["scheme"]) == (web.address, "https")


def test_request_id_is_the_same_for_client_app_and_log(host, web):
    response = web.get("https://shop.example.com/whoami", "--header", "X-Request-ID: test-0123456789")
    assert response.headers["x-request-id"] == response.json()["request_id"] == "test-0123456789"
    # The log is written once a second.
    host.check_output("timeout 5 sh -c 'until grep test-0123456789 /var/log/nginx/shop.access.log; do sleep .2; done'")


@pytest.mark.parametrize("name", ["shop.example.com", "www.shop.example.com"])
def test_http_is_redirected_to_the_canonical_https(web, name):
    response = web.get(f"http://{name}/a/b?c=d")
    assert (response.status, response.headers.get("location")) == (301, "https://shop.example.com/a/b?c=d"), response


def test_alias_is_redirected_to_the_canonical_name(web):
    response = web.get("https://www.shop.example.com/a?b=c")
    assert (response.status, response.headers.get("location")) == (301, "https://shop.example.com/a?b=c"), response


def test_unknown_host_is_refused(web):
    plain = web.get("http://unknown.example.com/")
    assert plain.status == 0
    assert "Empty reply" in plain.error or "reset by peer" in plain.error, plain
    secure = web.get("https://unknown.example.com/", "--insecure")
    assert secure.status == 0
    assert "unrecognized name" in secure.error or "alert" in secure.error, secure


def test_forged_host_over_a_known_name_is_refused(web):
    # Over HTTP/2 it is the site of the TLS name that answers, so it must look at the Host, too.
    for protocol in ("--http1.1", "--http2"):
        response = web.get("https://shop.example.com/whoami", protocol, "--header", "Host: unknown.example.com")
        assert response.status in (0, 400, 421), response


@pytest.mark.parametrize("path", ["/whoami", "/no-such-page", "/static/style.css"])
def test_security_headers_are_on_every_answer(web, path):
    response = web.get(f"https://shop.example.com{path}")
    assert response.headers.get("x-content-type-options") == "nosniff", response
    assert response.headers.get("x-frame-options") == "DENY", response
    assert int(response.headers["strict-transport-security"].removeprefix("max-age=").split(";")[0]) >= 31536000
    assert {"referrer-policy", "permissions-policy"} <= response.headers.keys(), response
    assert response.headers["server"] == "nginx"


def test_static_files_come_from_disk_and_are_kept_for_30_days(web):
    response = web.get("https://shop.example.com/static/style.css")
    assert (response.status, response.headers.get("cache-control")) == (200, "max-age=2592000"), response
    # `etag` of nginx: time and size in hexadecimal. Starlette's is a digest.
    assert re.fullmatch(r'"[0-9a-f]{8}-[0-9a-f]+"', response.headers["etag"]), response


@pytest.mark.parametrize(
    "path",
    [
        "/static/../main.py",
        "/static/%2e%2e/main.py",
        "/static/..%2fmain.py",
        "/static../main.py",
        "/static../static/style.css",
        "/.env",
        "/.git/HEAD",
    ],
)
def test_nothing_else_of_the_release_is_served(web, path):
    response = web.get(f"https://shop.example.com{path}")
    assert response.status in (400, 404), response
