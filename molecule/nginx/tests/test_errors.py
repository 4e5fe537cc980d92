"""Errors of nginx's own, maintenance, and what is compressed."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

PARTS = "https://parts.example.com"
SHOP = "https://shop.example.com"


@pytest.fixture
def ask(nginx):
    return lambda path, *arguments: nginx.ask(PARTS + path, *arguments, trust="spread")


ERRORS = [
    ("/closed/", 401, "Unauthorized", ()), ("/office/", 403, "Forbidden", ()), ("/.env", 404, "Not Found", ()),
    ("/", 413, "Content Too Large", ("--data", "x" * 2000)), ("/impatient/slow?seconds=1", 504, "Gateway Timeout", ()),
]


@pytest.mark.parametrize("path, status, title, arguments", ERRORS)
@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_a_program_gets_errors_in_json(ask, path, status, title, arguments, accept):
    response = ask(path, "--header", f"Accept: {accept}", *arguments)
    assert (response.status, response["Content-Type"]) == (status, "application/problem+json")
    assert response.json() == {"title": title, "status": status, "request_id": response["X-Request-ID"]}
    assert response["Content-Security-Policy"] == "default-src 'none'"


@pytest.mark.parametrize("path, status, title, arguments", ERRORS)
def test_a_browser_gets_errors_in_html(ask, path, status, title, arguments):
    response = ask(path, "--header", "Accept: text/html,application/xhtml+xml,*/*;q=0.8", *arguments)
    assert (response.status, response["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert f"<h1>{status} {title}</h1>" in response.text
    assert f"<small>Request ID: {response['X-Request-ID']}</small>" in response.text
    assert ("Please try again in a few minutes." in response.text) is (status == 504)


def test_the_page_may_use_its_style_and_load_nothing(ask):
    response = ask("/.env", "--header", "Accept: text/html")
    [style] = re.findall("<style>(.*)</style>", response.text)
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert response["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'")
    assert response["X-Frame-Options"] == "DENY"
    assert not re.search("(src|href)=", response.text)


def test_a_request_id_cannot_bend_an_error(ask):
    forged = 'x","status":200,"<script>'
    response = ask("/.env", "--header", f"X-Request-ID: {forged}")
    assert response.json()["request_id"] != forged


@pytest.mark.parametrize("status", [404, 500, 503])
def test_the_applications_own_errors_are_passed_on(ask, status):
    response = ask(f"/status/{status}")
    assert (response.status, response.text) == (status, "as asked\n")
    assert not response.all("Retry-After")


def test_maintenance_is_one_command(nginx, ask):
    workers = nginx.workers()
    nginx.host.check_output("touch /var/lib/fastapi/nginx/parts.maintenance")
    try:
        for path in ("/", "/closed/", "/own/x", "/.env"):
            response = ask(path)
            assert (response.status, response["Retry-After"]) == (503, "120"), path
            assert response.json()["title"] == "Service Unavailable"
            assert response["X-Frame-Options"] == "DENY"
            assert not response.all("X-Backend")
        assert ask("/", "--interface", "127.0.9.9").status == 200
        assert ask("/", "--header", "X-Forwarded-For: 127.0.9.9").status == 503
        assert nginx.ask(SHOP).status == 200
        # certificates are renewed all the same
        assert nginx.ask("http://parts.example.com/.well-known/acme-challenge/token").text == "token\n"
    finally:
        nginx.host.check_output("rm /var/lib/fastapi/nginx/parts.maintenance")
    response = ask("/")
    assert response.status == 200 and not response.all("Retry-After")
    assert nginx.workers() == workers


def fetched(nginx, path: str, accept: str, unpack: str) -> str:
    """The body, after a command, and the head."""
    curl = "curl -s --insecure --connect-to ::127.0.0.1: -o /tmp/body -D /tmp/head"
    return nginx.host.check_output(
        f"{curl} -H 'Accept-Encoding: {accept}' '{SHOP}{path}' && {unpack} < /tmp/body && cat /tmp/head")


@pytest.mark.parametrize("accept, encoding, text", [
    ("gzip", "gzip", "gzip\n"), ("br, gzip", "br", "brotli\n"), ("identity", None, None)])
@pytest.mark.parametrize("name", ["css/site.css", "site.3f2a9c1b.css"])
def test_a_file_that_lies_there_compressed_is_sent_so(nginx, name, accept, encoding, text):
    found = fetched(nginx, f"/static/{name}", accept, "gunzip" if encoding == "gzip" else "cat")
    assert (f"content-encoding: {encoding}" in found.lower()) is bool(encoding)
    assert found.startswith(text or ("body" if "css/" in name else "now"))
    assert ("immutable" in found) is ("3f2a" in name)


@pytest.mark.parametrize("accept", ["gzip", "br"])
def test_json_is_compressed_on_the_way(nginx, accept):
    found = fetched(nginx, f"/?{'x' * 2000}", accept, "wc -c")
    assert f"content-encoding: {accept}" in found.lower()
    assert "vary: accept-encoding" in found.lower()
    assert int(found.partition("HTTP")[0]) < 1000
