"""Where the client's address comes from, which TLS is spoken, what pages may load."""

from __future__ import annotations

import time

import pytest

SHOP = "https://shop.example.com"
PARTS = "https://parts.example.com"


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


def test_the_proxy_protocol_says_who_the_client_is(nginx):
    nginx.applied(nginx_real_ip_from=["127.0.9.0/24"], nginx_proxy_protocol=True)
    spoken, _, silent = nginx.python(PROXY).rpartition("\n")
    assert '["x-real-ip", "6.6.6.6"]' in spoken and "7.7.7.7" not in spoken
    assert silent in ("ConnectionResetError", "SSLEOFError", "SSLError", "SSLZeroReturnError")


def test_the_proxy_protocol_without_a_trusted_proxy_is_refused(nginx):
    assert "nginx_proxy_protocol: needs nginx_real_ip_from" in nginx.refused(nginx_proxy_protocol=True)
    nginx.changed = False


def test_pages_may_load_nothing_from_elsewhere_unless_the_site_says_so(nginx):
    response = nginx.ask("https://dead.example.com/", trust="dead")
    assert response["Content-Security-Policy"] == (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_the_documentation_may_load_what_it_needs_where_that_is_allowed(nginx, path):
    allowed = nginx.ask(f"https://cached.example.com{path}", trust="spread")
    assert "script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net;" in allowed["Content-Security-Policy"]
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
