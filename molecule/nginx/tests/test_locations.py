"""Parts of a site with timeouts, limits, guards and headers of their own."""

from __future__ import annotations

import time

import pytest

PARTS = "https://parts.example.com"


@pytest.fixture
def ask(nginx):
    return lambda path, *arguments: nginx.ask(PARTS + path, *arguments, trust="spread")


def test_a_location_has_its_own_timeout(nginx, ask):
    assert ask("/impatient/slow?seconds=1").status == 504
    assert ask("/slow?seconds=1").status == 200


def test_a_location_has_its_own_limit_to_bodies(nginx, ask):
    assert ask("/upload/", "--data", "x" * 2000).status == 200
    assert ask("/", "--data", "x" * 2000).status == 413


def test_a_request_that_was_too_slow_is_not_repeated(nginx, ask):
    """It was offered again after 300 ms, and then no more."""
    path = f"/impatient/slow?seconds=1&{time.time_ns()}"
    assert ask(path).status == 504
    assert nginx.host.check_output(f"grep -c 'GET {path}$' /run/backend.sock.seen") == "2"


UPLOAD = """
import socket, ssl, time
context = ssl._create_unverified_context()
plain = socket.create_connection(('127.0.0.1', 443), 5)
with context.wrap_socket(plain, server_hostname='parts.example.com') as stream:
    stream.sendall(b'POST %s HTTP/1.1\\r\\nHost: parts.example.com\\r\\nContent-Length: 20\\r\\n\\r\\n0123456789')
    time.sleep(0.5)
    print('BEGIN %s\\n' in open('/run/backend.sock.seen').read())
    stream.sendall(b'0123456789')
    print(stream.recv(15))
"""


@pytest.mark.parametrize("path, early", [("/stream/", True), ("/upload/", False)])
def test_an_upload_is_streamed_only_where_asked(nginx, path, early):
    path += str(time.time_ns())
    assert nginx.python(UPLOAD % (path, path)) == f"{early}\nb'HTTP/1.1 200 OK'"


@pytest.mark.parametrize("path, seen", [("/stream/events?plain", True), ("/events?plain", False)])
def test_a_stream_is_passed_on_at_once_where_buffering_is_off(nginx, ask, path, seen):
    response = ask(path, "--no-buffer", "--max-time", "1")
    assert ("data: 0" in response.text) is seen


@pytest.mark.parametrize("user, status", [
    (None, 401), ("alice:wrong", 401), ("bob:wonderland", 401), ("alice:wonderland", 200)])
def test_a_user_and_a_password_are_asked_for(ask, user, status):
    response = ask("/closed/x", *(["--user", user] if user else []))
    assert response.status == status
    assert response["Content-Security-Policy"] == "default-src 'none'"
    if status == 401:
        assert response["WWW-Authenticate"].startswith("Basic realm=")
        assert not response.all("X-Backend")


@pytest.mark.parametrize("path", [
    "/closed/../closed/x", "/x/../closed/x", "//closed/x", "/%63losed/x", "/closed/%2e/x", "/closed/..%2fx"])
def test_no_spelling_of_the_path_goes_past_the_password(ask, path):
    response = ask(path)
    assert response.status in (400, 401) and not response.all("X-Backend")


@pytest.mark.parametrize("path, address, user, status", [
    ("/office/", "127.0.9.9", None, 200), ("/office/", "127.0.8.9", None, 403),
    ("/both/", "127.0.9.9", "alice:wonderland", 200), ("/both/", "127.0.9.9", None, 401),
    ("/both/", "127.0.8.9", "alice:wonderland", 403),
])
def test_only_listed_addresses_may_ask(ask, path, address, user, status):
    forged = ["--header", "X-Forwarded-For: 127.0.9.9", "--header", "X-Real-IP: 127.0.9.9"]
    response = ask(path, "--interface", address, *forged, *(["--user", user] if user else []))
    assert response.status == status


def test_a_rate_is_limited_by_key(nginx):
    """One at once and two of the burst; another user is another count, and who names none is not counted."""
    user = time.time_ns()
    assert nginx.statuses(f"{PARTS}/login?user=a{user}&[1-5]") == {"200": 3, "429": 2}
    assert nginx.statuses(f"{PARTS}/login?user=b{user}&[1-3]") == {"200": 3}
    assert nginx.statuses(f"{PARTS}/login?[1-5]") == {"200": 5}
    assert nginx.statuses(f"{PARTS}/login/x?user=a{user}&[1-5]") == {"200": 5}


def test_headers_are_on_429_too(ask):
    for _ in range(4):
        response = ask("/login?user=headers")
    assert response.status == 429
    assert response["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path, served", [("/one/slow", 1), ("/slow", 3)])
def test_requests_in_flight_are_limited(nginx, path, served):
    found = nginx.statuses(f"{PARTS}{path}?seconds=1&[1-5]", "--parallel", "--parallel-immediate", "--http1.1")
    assert found == {"200": served, "429": 5 - served}


def test_a_location_has_its_own_headers_besides_the_sites(ask):
    response = ask("/own/x")
    assert response["Content-Security-Policy"] == "default-src 'self'"
    assert response["X-Frame-Options"] == "DENY"
    headers = dict(response.json()["headers"])
    assert (headers["x-extra"], headers["x-forwarded-proto"]) == ("yes", "https")


@pytest.mark.parametrize("path, status, target", [
    ("/old", 301, f"{PARTS}/new"), ("/old?a=b", 301, f"{PARTS}/new"), ("/away", 308, "https://other.example.com/a?b=c")])
def test_a_path_is_redirected(ask, path, status, target):
    response = ask(path)
    assert (response.status, response["Location"]) == (status, target)
    assert response["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path", ["/old/", "/old/x", "/login/", "/OLD"])
def test_what_only_looks_like_it_is_the_applications(ask, path):
    assert ask(path).json()["path"] == path
