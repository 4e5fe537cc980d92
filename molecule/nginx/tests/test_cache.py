"""What is kept of answers, and for whom."""

from __future__ import annotations

import time

import pytest

CACHED = "https://cached.example.com"


@pytest.fixture
def ask(nginx):
    return lambda path, *arguments: nginx.ask(CACHED + path, *arguments, trust="spread")


@pytest.fixture
def path():
    """One that nobody has asked for."""
    return f"/kept/reply?{time.time_ns()}"


def cached(response) -> tuple[str, str]:
    assert response.status == 200, response
    return response["X-Cache-Status"], response.text


def test_an_answer_is_kept_and_given_to_others(ask, path):
    (first, one), (second, two) = cached(ask(path)), cached(ask(path))
    assert (first, second) == ("MISS", "HIT")
    assert one == two
    assert ask(path)["X-Frame-Options"] == "DENY"
    assert cached(ask(path + "&other"))[0] == "MISS"


def test_elsewhere_nothing_is_kept(ask, path):
    path = path.replace("/kept", "")
    assert ask(path).text != ask(path).text
    assert not ask(path).all("X-Cache-Status")


# Those that usual names of credentials make private, and the two that the location names itself.
PRIVATE = [
    ("Authorization: Bearer x",), ("Cookie: session=x",), ("X-API-Key: x",), ("X-Auth-Token: x",), ("X-Mine: 0",)]


@pytest.mark.parametrize("header", PRIVATE, ids=lambda header: header[0].partition(":")[0])
def test_the_answer_to_a_request_in_person_is_not_kept(ask, path, header):
    private = cached(ask(path, "--header", *header))
    assert private[0] == "BYPASS"
    assert cached(ask(path))[0] == "MISS"
    assert cached(ask(path))[1] != private[1]


@pytest.mark.parametrize("header", PRIVATE, ids=lambda header: header[0].partition(":")[0])
def test_who_asks_in_person_does_not_get_what_was_kept(ask, path, header):
    kept = cached(ask(path))
    private = cached(ask(path, "--header", *header))
    assert private[0] == "BYPASS" and private[1] != kept[1]
    assert cached(ask(path)) == ("HIT", kept[1])


@pytest.mark.parametrize("header", [
    "Set-Cookie:session=x", "Cache-Control:private", "Cache-Control:no-store", "Cache-Control:no-cache",
    "Cache-Control:max-age%3D0", "Cache-Control:private%2C max-age%3D60", "Vary:*", "X-Accel-Expires:0",
    "Expires:Thu, 01 Jan 1970 00:00:00 GMT",
])
def test_an_answer_that_is_private_is_not_kept(ask, path, header):
    path += "&header=" + header.replace(" ", "%20")
    assert cached(ask(path))[1] != cached(ask(path))[1]


def seen(response) -> dict[str, str]:
    """The headers with which a request reached the application."""
    return {name: value for name, value in response.json()["headers"] if name != "connection"}


OF_NGINX = {"host": "cached.example.com", "x-forwarded-proto": "https", "x-forwarded-host": "cached.example.com",
            "x-forwarded-port": "443", "x-real-ip": "233.252.0.1", "x-forwarded-for": "233.252.0.1"}


def test_what_is_not_part_of_the_key_does_not_reach_the_application(ask):
    """An API key in a header of any name, what a browser tells of itself, who asks: all would be others' to read."""
    headers = ["X-My-Key: mine", "Accept: text/html", "Accept-Language: de", "Accept-Encoding: gzip",
               "Origin: https://evil.test", "User-Agent: mine", "Referer: https://mine.test",
               "Range: bytes=0-3", "Content-Type: application/x-mine", "X-Request-ID: mine-mine-mine",
               "X-Forwarded-Host: evil.test", "X-Forwarded-Prefix: /mine", "If-None-Match: x"]
    path = f"/kept/{time.time_ns()}"
    answer = ask(path, *(word for header in headers for word in ("--header", header)), "--interface", "127.0.9.9")
    found = seen(answer)
    assert "mine" not in found.pop("x-request-id")
    assert found == OF_NGINX


def test_headers_that_are_part_of_the_key_do(ask):
    path = f"/asked/reply?{time.time_ns()}&header=Cache-Control:max-age%3D60"
    words = {"Accept": "text/html", "Accept-Language": "de", "Origin": "https://shop.test"}

    def headers(**changed):
        return [word for name, value in {**words, **changed}.items() for word in ("--header", f"{name}: {value}")]

    one = headers()
    first = cached(ask(path, *one))
    assert first[0] == "MISS" and cached(ask(path, *one)) == ("HIT", first[1])
    for name in words:
        assert cached(ask(path, *headers(**{name: "other"})))[0] == "MISS"
    # not to be had by writing two of them into one
    joined = "Accept-Language: de\thttps://shop.test"
    assert cached(ask(path, *one[:2], "--header", joined, "--header", "Origin:"))[0] == "MISS"
    found = seen(ask(f"/asked/{time.time_ns()}", *one))
    assert {name: found[name.lower()] for name in words} == words
    assert ask(f"/asked/{time.time_ns()}", *one).json()["headers"] != ask(f"/asked/{time.time_ns()}").json()["headers"]


@pytest.mark.parametrize("arguments", [
    ("--request", "POST", "--data", "x"), ("--request", "GET", "--data", "x"), ("--header", "Cookie: x=y"),
    ("--header", "Transfer-Encoding: chunked", "--request", "GET", "--data", "x"), ("--request", "DELETE"),
])
def test_who_asks_in_person_or_for_a_change_is_seen_whole(ask, arguments):
    path = f"/kept/{time.time_ns()}"
    answer = ask(path, *arguments, "--header", "X-My-Key: mine", "--header", "Accept-Language: de",
                 "--interface", "127.0.9.9", "--header", "X-Request-ID: mine-mine-mine", "--http1.1")
    found = seen(answer)
    assert (found["x-my-key"], found["accept-language"], found["x-real-ip"], found["x-request-id"]) == (
        "mine", "de", "127.0.9.9", "mine-mine-mine")
    assert "mine" not in ask(path).text, "and it is nobody else's"


def test_a_body_that_does_not_say_its_length_does_not_make_an_answer_for_others(nginx, ask, path):
    """Over HTTP/2 a body needs no length."""
    body = ("--request", "GET", "--header", "Content-Length:", "--data-binary", "evil")
    nginx.curl(CACHED + path, "--http2", *body, trust="spread")
    assert "evil" not in ask(path).text


def test_clients_at_other_addresses_get_the_same(ask, path):
    kept = cached(ask(path, "--interface", "127.0.9.9"))[1]
    assert cached(ask(path, "--interface", "127.0.8.8")) == ("HIT", kept)


def test_the_applications_vary_is_minded(ask, path):
    """Also of a header that it is not given: one answer too many, and none that is another's."""
    path += "&header=Vary:X-My-Key"
    assert cached(ask(path, "--header", "X-My-Key: one"))[0] == "MISS"
    assert cached(ask(path, "--header", "X-My-Key: two"))[0] == "MISS"


def test_parts_and_heads_of_an_answer_are_made_of_the_whole(nginx, ask, path):
    path += "&header=Accept-Ranges:bytes"
    assert len(ask(path, "--range", "0-3").text) in (4, 20)
    assert len(cached(ask(path))[1]) == 20
    head = path + "&head"
    assert ask(head, "--head").status == 200
    assert len(ask(head).text) == 20


def test_websockets_work_beside_a_cache(nginx):
    words = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="]
    headers = [word for header in words for word in ("--header", header)]
    answer = nginx.curl(f"{CACHED}/kept/socket", "--include", "--http1.1", "--max-time", "1", *headers, trust="spread")
    assert answer.stdout.startswith("HTTP/1.1 101 ")


def test_errors_beside_a_cache_are_nginxs_own_pages(nginx, ask):
    """It goes through two places, and a page of the second is found from there."""
    nginx.host.check_output("systemctl stop backend@a")
    try:
        response = ask(f"/kept/{time.time_ns()}", "--header", "Accept: text/html")
        assert response.status == 502 and "Bad Gateway" in response.text
        assert response["X-Frame-Options"] == "DENY"
    finally:
        nginx.host.check_output("systemctl start backend@a")
        nginx.host.check_output("until curl -s -o /dev/null --unix-socket /run/a.sock http://x/; do sleep 0.1; done")


def test_without_a_time_only_what_the_application_allows_is_kept(ask, path):
    path = path.replace("kept", "asked")
    assert cached(ask(path))[1] != cached(ask(path))[1]
    path += "&header=Cache-Control:max-age%3D60"
    assert cached(ask(path))[1] == cached(ask(path))[1]


@pytest.mark.parametrize("disguise", [
    "/account/..%2fkept/reply", "/account/%2e%2e/kept/reply", "/account/../kept/reply", "/kept/..%2faccount/reply",
    "/kept/%2e%2e%2faccount/reply"])
def test_a_path_that_means_two_things_is_refused(ask, disguise):
    """The application would answer with somebody's account, and nginx would keep it as a public page."""
    response = ask(f"{disguise}?{time.time_ns()}")
    assert response.status == 400 and not response.all("X-Backend")
    assert response["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path", ["/a..b/x", "/a...", "/a%2fb", "/x?next=/../y", "/.well-known/x"])
def test_dots_that_mean_one_thing_are_not(ask, path):
    assert ask(path).json()["path"] == path


def test_one_request_reaches_the_application_when_many_ask_for_the_same(nginx, ask):
    path = f"/kept/slow?seconds=1&{time.time_ns()}"
    done = nginx.curl(f"{CACHED}{path}", "--parallel", "--parallel-immediate", "--parallel-max", "30", "--http1.1",
                      "--write-out", "%{http_code}\\n", *["--output", "/dev/null"], *[f"{CACHED}{path}"] * 29,
                      trust="spread")
    assert done.stdout.count("200\n") == 30
    assert nginx.host.check_output(f"grep -c 'GET {path}$' /run/a.sock.seen") == "1"


def test_an_answer_that_is_no_longer_fresh_is_given_while_a_new_one_is_fetched(nginx, ask):
    path = f"/brief/slow?seconds=1&{time.time_ns()}"
    assert cached(ask(path))[0] == "MISS"
    time.sleep(2.1)  # nginx counts in whole seconds
    response = ask(path, "--write-out", "%{time_total}")
    assert response["X-Cache-Status"] == "STALE"
    assert float(response.text.rpartition("}")[2]) < 0.8
    time.sleep(1.2)
    assert nginx.host.check_output(f"grep -c 'GET {path}$' /run/a.sock.seen") == "2"


def test_an_answer_is_given_while_the_application_is_down(nginx, ask, path):
    path = path.replace("kept", "brief")
    kept = cached(ask(path))[1]
    nginx.host.check_output("systemctl stop backend@a")
    try:
        time.sleep(2.1)
        assert cached(ask(path)) == ("STALE", kept)
        assert ask(path + "&other").status == 502
    finally:
        nginx.host.check_output("systemctl start backend@a")
        nginx.host.check_output("until curl -s -o /dev/null --unix-socket /run/a.sock http://x/; do sleep 0.1; done")


def test_an_answer_can_be_purged_by_those_who_may(ask, path):
    kept = cached(ask(path))[1]
    assert ask(path, "--request", "PURGE", "--interface", "127.0.9.9").status == 403
    assert cached(ask(path)) == ("HIT", kept)
    assert ask(path, "--request", "PURGE").status == 200
    assert ask(path, "--request", "PURGE").status in (404, 412), "there is nothing left to remove"
    assert cached(ask(path))[0] == "MISS"
    assert ask("/.purge-0").status == 404


def test_what_is_kept_is_for_nginx_only(nginx):
    assert nginx.host.file("/var/lib/nginx/cache-cached").user == "www-data"
    assert nginx.host.file("/var/lib/nginx/cache-cached").mode == 0o700
