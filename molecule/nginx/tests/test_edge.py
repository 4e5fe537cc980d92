"""Where the client's address comes from, which TLS is spoken, what pages may load: settings of the whole nginx."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

INTERNAL = yaml.safe_load(
    (Path(__file__).resolve().parents[3] / "roles/nginx/vars/main.yml").read_text(encoding="utf-8"))
AT_ONCE = ["--parallel", "--parallel-immediate", "--http1.1"]
CACHED = "https://cached.example.com"
SHOP = "https://shop.example.com"
PARTS = "https://parts.example.com"


@pytest.fixture
def edge(operated, sites):
    """nginx with other settings, all that go together at once."""
    by_name = {site["name"]: site for site in sites}
    by_name["parts"]["locations"][6]["limit_req"][0]["key"] = "$arg_account"
    by_name["cached"].update(
        limit_dry_run=True, limit_conn=[{"connections": 1}],
        limit_req=[{"rate": "1r/m", "burst": 2, "key": "$arg_user"}])
    by_name["shop"]["locations"] = [{"path": "= /counted", "limit_req": [{"rate": "1r/m", "burst": 0}]}]
    by_name["shop"]["location_extra"] = 'if ($arg_mine) { return 418 "$mine"; }'
    return operated.having(
        nginx_sites=sites, nginx_real_ip_from=["127.0.9.0/24"], nginx_tls_policy="modern", nginx_http3=True,
        nginx_main_extra="worker_rlimit_core 4m;", nginx_http_extra='map $host $mine { default "from http"; }',
        nginx_limit_conn=2, nginx_error_html='<p class="x">$status {C:\\}</p>')


PROXY = """
import socket, ssl
context = ssl._create_unverified_context()
for first in (b'PROXY TCP4 6.6.6.6 127.0.0.1 1 443\\r\\n', b''):
    plain = socket.create_connection(('127.0.0.1', 443), 5, ('127.0.9.9', 0))
    plain.sendall(first)
    try:
        with context.wrap_socket(plain, server_hostname='shop.example.com') as stream:
            stream.sendall(b'GET / HTTP/1.1\\r\\nHost: shop.example.com\\r\\nConnection: close\\r\\n'
                           b'X-Forwarded-For: 7.7.7.7\\r\\n\\r\\n')
            print(b''.join(iter(lambda: stream.recv(4096), b'')).decode())
    except OSError as error:
        print(type(error).__name__)
"""


def test_the_proxy_protocol_says_who_the_client_is(operated):
    operated.applied(nginx_real_ip_from=["127.0.9.0/24"], nginx_proxy_protocol=True)
    spoken, _, silent = operated.python(PROXY).rpartition("\n")
    assert '["x-real-ip", "6.6.6.6"]' in spoken and "7.7.7.7" not in spoken
    assert silent in ("ConnectionResetError", "SSLEOFError", "SSLError", "SSLZeroReturnError")


def test_pages_may_load_nothing_from_elsewhere_unless_the_site_says_so(nginx):
    response = nginx.ask("https://dead.example.com/", trust="dead")
    assert response["Content-Security-Policy"] == (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_the_documentation_may_load_what_it_needs_where_that_is_allowed(nginx, path):
    allowed = nginx.ask(f"https://cached.example.com{path}", trust="spread")
    assert allowed["Content-Security-Policy"] == INTERNAL["__nginx_docs_policy"]
    assert (allowed["X-Frame-Options"], allowed["X-Backend"]) == ("DENY", "a")
    assert "unsafe" not in nginx.ask(f"{PARTS}{path}", trust="spread")["Content-Security-Policy"]
    assert "unsafe" not in nginx.ask("https://cached.example.com/docs/x", trust="spread")["Content-Security-Policy"]


def test_only_proxies_that_are_trusted_are_believed_about_the_client(edge):
    def seen(address: str, header: str) -> tuple:
        headers = edge.seen_by_app(SHOP, "--interface", address, "--header", header)
        assert headers["x-real-ip"] == headers["x-forwarded-for"]
        return headers["x-real-ip"][0]

    assert seen("127.0.9.9", "X-Forwarded-For: 6.6.6.6") == "6.6.6.6"
    assert seen("127.0.8.8", "X-Forwarded-For: 6.6.6.6") == "127.0.8.8"
    # what the client claimed to the first proxy stands before what that one added
    assert seen("127.0.9.9", "X-Forwarded-For: 1.1.1.1, 6.6.6.6, 127.0.9.5") == "6.6.6.6"
    assert seen("127.0.9.9", "X-Real-IP: 6.6.6.6") == "127.0.9.9"
    # lists of addresses and limits count by it
    arguments = ("--interface", "127.0.9.9", "--header")
    assert edge.ask(f"{PARTS}/office/", *arguments, "X-Forwarded-For: 6.6.6.6", trust="spread").status == 403
    assert edge.ask(f"{PARTS}/office/", *arguments, "X-Forwarded-For: 2001:db8::1", trust="spread").status == 200


def test_the_modern_policy_is_tls_1_3_only(edge):
    command = "openssl s_client -connect 127.0.0.1:443 -servername shop.example.com"
    assert "alert protocol version" in edge.host.run(f"{command} -tls1_2 </dev/null 2>&1").stdout
    assert "New, TLSv1.3" in edge.host.run(f"{command} -tls1_3 </dev/null 2>&1").stdout


def test_a_page_of_ones_own_is_shown(edge):
    """Under the site's own policy, which is the user's too."""
    response = edge.ask(f"{PARTS}/.env", "--header", "Accept: text/html", trust="spread")
    assert response.text == '<p class="x">404 {C:\\}</p>'
    assert response["Content-Security-Policy"] == "default-src 'none'"


def test_raw_text_of_the_users_is_in_its_place(edge):
    worker = edge.workers().pop()
    assert "4194304" in edge.host.check_output(f"grep 'Max core file size' /proc/{worker}/limits")
    response = edge.ask(f"{SHOP}/?mine=yes")
    assert (response.status, response.text) == (418, "from http")
    assert edge.ask(f"{SHOP}/static/css/site.css?mine=yes").status == 200, "no location for the application"


def test_limits_can_be_tried_out(edge):
    """Of all kinds, and the one of the whole nginx is no exception."""
    user = time.time_ns()
    assert edge.statuses(f"{CACHED}/slow?seconds=0.3&user={user}&[1-5]", *AT_ONCE) == {"200": 5}
    time.sleep(1.2)
    log = edge.host.check_output(f"grep 'user={user}' /var/log/nginx/cached.access.log")
    assert log.count('"limit":"req REJECTED_DRY_RUN"') == 2
    assert log.count('"limit":"conn REJECTED_DRY_RUN"') == 2


def test_the_key_of_a_limit_can_change(edge):
    """nginx would not load a zone that counts by another key, and its test does not tell."""
    account = time.time_ns()
    assert edge.statuses(f"{PARTS}/login?account={account}&[1-5]") == {"200": 3, "429": 2}


def test_a_client_has_a_limit_to_its_requests_in_flight_beside_the_places_own(edge):
    """Two of one address, whatever it asks for, and two of another; a place's own limit is three."""
    for site in (SHOP, PARTS):
        assert edge.statuses(f"{site}/slow?seconds=1&[1-5]", *AT_ONCE) == {"200": 2, "429": 3}
    curl = f"curl -s --insecure --connect-to ::127.0.0.1: -o /dev/null -w '%{{http_code}}\\n' {' '.join(AT_ONCE)}"
    code = f"for n in 1 2; do {curl} --interface 127.0.$n.1 '{SHOP}/slow?seconds=1&[1-2]' & done; wait"
    assert edge.host.check_output("bash -c %s", code).split() == ["200"] * 4


def test_a_client_that_has_a_network_of_addresses_is_one_client(edge):
    def asked(address: str) -> int:
        header = f"X-Forwarded-For: {address}"
        return edge.ask(f"{SHOP}/counted", "--interface", "127.0.9.9", "--header", header).status

    some = time.time_ns() % 0xFFFF
    network, another = f"2001:db8:a:{some:x}", f"2001:db8:b:{some:x}"
    assert [asked(f"{network}::1"), asked(f"{network}::1"), asked(f"{network}:1:2:3:4")] == [200, 429, 429]
    assert asked(f"{another}::1") == 200
    ipv4 = f"10.9.{some >> 8}"
    assert [asked(f"{ipv4}.1"), asked(f"{ipv4}.1"), asked(f"{ipv4}.2")] == [200, 429, 200]
    assert [asked(f"::ffff:{ipv4}.3"), asked(f"::ffff:{ipv4}.4")] == [200, 200]


def test_http3_is_spoken_where_nginx_has_it_and_after_reloads(edge, host, measured):
    if host.check_output(". /etc/os-release; echo $VERSION_ID") == "12":
        assert not edge.ask(SHOP).all("Alt-Svc")
        assert "quic" not in host.check_output("cat /etc/nginx/nginx.conf /etc/nginx/sites-available/shop.conf")
        return
    assert edge.ask(SHOP)["Alt-Svc"] == 'h3=":443"; ma=86400'
    assert edge.ask(SHOP, "--http3-only", "--write-out", "version=%{http_version}").text.endswith("version=3")
    assert edge.ask("https://evil.example.com", "--http3-only", "--insecure").status == 0
    answers = []
    for _ in range(3):
        before = edge.workers()
        host.check_output("systemctl reload nginx")
        deadline = time.monotonic() + 20
        while edge.workers() & before and time.monotonic() < deadline:
            time.sleep(0.05)
        answers += [edge.ask(SHOP, "--http3-only", "--max-time", "3").status for _ in range(6)]
    measured(f"new HTTP/3 connections after reloads: {answers.count(200)} of {len(answers)} answered")
    assert answers == [200] * len(answers)
