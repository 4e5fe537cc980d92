"""Each attack is refused by the role's configuration, and succeeds against a naive one or the bare application."""

from __future__ import annotations

import base64
import json
import time

import pytest

SHOP = "https://shop.example.com"
NAIVE = "http://shop.example.com:8099"
NAIVE_TLS = "https://shop.example.com:8443"


@pytest.fixture(scope="module", autouse=True)
def naive(host):
    host.check_output("nginx -c /usr/local/bin/naive.conf -q")
    yield
    host.check_output("kill $(cat /run/naive.pid); while [ -e /run/naive.pid ]; do sleep 0.1; done")


# -- Smuggling: what follows a request is taken for one of its own -----------------------------------------------------


def smuggled(nginx, where: str, head: str, body: str = "") -> tuple[bool, dict]:
    """Whether the application saw a request that was hidden behind another one."""
    path = f"/smuggled-{time.time_ns()}"
    text = f"POST / HTTP/1.1\r\nHost: shop.example.com\r\n{head}\r\n\r\n{body}"
    text += f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = base64.b64encode(text.encode("latin-1")).decode()
    answer = json.loads(nginx.host.check_output(f"python3 /usr/local/bin/raw.py {where} {sent}"))
    return nginx.host.run(f"grep -q 'GET {path}' /run/backend.sock.seen").rc == 0, answer


@pytest.mark.parametrize("head, body", [
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
    ("Content-Length: 5\r\nTransfer-Encoding: xchunked", "12345"),
    ("Content-Length: 5\r\nTransfer-Encoding: chunked, identity", "12345"),
    ("Content-Length: 0\r\nContent-Length: 60", ""),
    ("Content-Length: 0\r\nContent-Length: 0", ""),
    ("Content-Length:\r\n 0", ""),
    ("Content-Length: +0", ""),
    ("Content-Length: -0", ""),
], ids=["CL.TE", "TE.CL", "xchunked", "identity", "two lengths", "one length twice", "obs-fold", "plus", "minus"])
def test_no_request_is_smuggled_behind_another(nginx, head, body):
    assert smuggled(nginx, "socket", head, body)[0], "the attack is none"
    found, answer = smuggled(nginx, "tls", head, body)
    assert not found
    assert answer["answer"].startswith(("HTTP/1.1 400 ", "HTTP/1.1 501 ")) and answer["closed"], answer


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_a_method_that_is_for_proxies_does_not_reach_the_application(nginx, method):
    def answered(where: str) -> str:
        text = f"{method} / HTTP/1.1\r\nHost: shop.example.com\r\nX-Secret: reflected\r\n\r\n"
        sent = base64.b64encode(text.encode()).decode()
        return json.loads(nginx.host.check_output(f"python3 /usr/local/bin/raw.py {where} {sent}"))["answer"]

    assert "reflected" in answered("socket")
    assert answered("tls").startswith(("HTTP/1.1 405 ", "HTTP/1.1 400 "))


# -- Files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [
    "/static../secret.txt", "/static/.env", "/static/.git/config", "/static/settings.yml"])
def test_files_that_are_not_for_clients_stay(nginx, path):
    assert nginx.ask(NAIVE + path).text == "secret\n"
    assert nginx.ask(SHOP + path).text != "secret\n"


# -- Names -------------------------------------------------------------------------------------------------------------


def test_a_forged_host_reaches_nobody(nginx):
    assert '["host", "evil.example.com"]' in nginx.ask(NAIVE, "--header", "Host: evil.example.com").text
    assert nginx.ask(SHOP, "--header", "Host: evil.example.com").status == 0


def test_an_unknown_name_in_the_handshake_gets_no_certificate(nginx):
    assert nginx.ask("https://evil.example.com:8443", "--insecure").status == 200
    assert nginx.ask("https://evil.example.com", "--insecure").status == 0


def test_a_forged_address_is_not_believed(nginx):
    assert '["x-forwarded-for", "6.6.6.6, ' in nginx.ask(NAIVE, "--header", "X-Forwarded-For: 6.6.6.6").text
    assert nginx.seen_by_app(SHOP, "--header", "X-Forwarded-For: 6.6.6.6")["x-forwarded-for"] == ["127.0.0.1"]


def test_a_line_break_in_a_path_is_none_in_a_header(nginx):
    assert nginx.ask(f"{NAIVE}/go/%0d%0aSet-Cookie:%20a=b").all("Set-Cookie") == ["a=b"]
    assert not nginx.ask("http://shop.example.com/go/%0d%0aSet-Cookie:%20a=b").all("Set-Cookie")


# -- Caches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/account/x.css", "/kept/x.css"])
def test_a_private_page_is_not_kept_under_a_public_name(nginx, path):
    """The victim is sent to a path that looks like a file; the attacker then asks for the same."""
    def stolen(site: str, trust: str) -> bool:
        url = f"{site}{path}?{time.time_ns()}"
        victim = nginx.ask(url, "--header", "Cookie: session=victim", trust=trust)
        assert "session=victim" in victim.text
        return "session=victim" in nginx.ask(url, trust=trust).text

    assert stolen(NAIVE, "shop")
    assert not stolen("https://cached.example.com", "spread")


# -- Too much, too slow ------------------------------------------------------------------------------------------------


def test_a_header_has_a_limit(nginx):
    header = "--header", f"X-Long: {'x' * 50000}"
    assert nginx.ask(NAIVE_TLS, "--http1.1", *header).status == 200
    assert nginx.ask(SHOP, "--http1.1", *header).status == 400


def test_a_body_has_a_limit(nginx):
    assert nginx.ask(NAIVE, "--data", "x" * 100000).status == 200
    assert nginx.ask(SHOP, "--data", "x" * 100000).status == 413


SLOW = """
import socket, ssl, time
streams = []
for port in (443, 8443):
    plain = socket.create_connection(('127.0.0.1', port), 5)
    stream = ssl._create_unverified_context().wrap_socket(plain, server_hostname='shop.example.com')
    stream.sendall(b'GET / HTTP/1.1\\r\\nHost: shop.example.com\\r\\n')
    streams.append(stream)
for stream in streams * 8:  # a line of a header now and then
    time.sleep(1)
    try:
        stream.sendall(b'X-More: x\\r\\n')
    except OSError:
        pass
for stream in streams:
    stream.settimeout(1)
    try:
        print('closed' if stream.recv(1000)[:1] in (b'', b'H') else 'open')
    except socket.timeout:
        print('open')
    except OSError:
        print('closed')
"""


def test_a_client_that_never_finishes_is_let_go(nginx):
    """After 15 s, however often it sends another line."""
    assert nginx.python(SLOW) == "closed\nopen"


def test_streams_that_are_reset_at_once_end_the_connection(nginx):
    def attack(port: int) -> str:
        return nginx.host.check_output(f"python3 /usr/local/bin/reset.py {port}")

    assert attack(8443) == "willing"
    assert attack(443) == "cut off"
    assert nginx.ask(SHOP).status == 200
