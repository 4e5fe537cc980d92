"""Each attack is withstood by the role's nginx, and succeeds against a naive one: so each test can fail."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

# -- Smuggling: one request in front is two behind ---------------------------------------------------------------------
#
# nginx (1.22 and later) refuses most of these whatever its configuration, so they are shown to succeed against app.py's
# old proxies: 8090 goes by Content-Length and 8091 by Transfer-Encoding, each before an application that goes by the
# other.

HIDDEN = "GET /admin/ HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"
HEAD = "POST / HTTP/1.1\r\nHost: shop.example.com\r\n"
# For who goes by the length, all of it is a body; for who reads chunks it ends where the hidden request begins.
CHUNKS_END = "0\r\n\r\n" + HIDDEN
# For who reads chunks, all of it is a body; for who goes by the length it ends after the first line.
IN_CHUNK = f"{len(HIDDEN):x}\r\n{HIDDEN}\r\n0\r\n\r\n"


def by_length(lines: str) -> str:
    return f"{HEAD}Content-Length: {len(CHUNKS_END)}\r\n{lines}\r\n\r\n{CHUNKS_END}"


SMUGGLING = {
    "CL.TE": (8090, by_length("Transfer-Encoding: chunked")),
    "TE.CL": (8091, f"{HEAD}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{IN_CHUNK}"),
    "two lengths": (8090, f"{HEAD}Content-Length: {len(HIDDEN)}\r\nContent-Length: 0\r\n\r\n{HIDDEN}"),
    "folded line": (8090, by_length("Transfer-Encoding:\r\n chunked")),
    "folded into another": (8090, by_length("X: y\r\nTransfer-Encoding:\r\n\tchunked")),
    "space before the colon": (8090, by_length("Transfer-Encoding : chunked")),
    "another encoding": (8090, by_length("Transfer-Encoding: xchunked")),
    "two encodings": (8090, by_length("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked")),
    "list of encodings": (8090, by_length("Transfer-Encoding: chunked, identity")),
    "vertical tab": (8090, by_length("Transfer-Encoding: \x0bchunked")),
}


@pytest.mark.parametrize("attack", SMUGGLING)
def test_a_request_that_reads_in_two_ways(front, attack):
    old_proxy, request = SMUGGLING[attack]
    outcome = front.send(request, wait=1, port=0 if front.hardened else old_proxy)
    if front.hardened:
        # 501: nginx knows no encoding but chunked
        assert outcome.statuses in ([400], [501]) and outcome.closed and outcome.targets == []
    else:
        assert outcome.targets[:2] == ["/", "/admin/"]


@pytest.mark.parametrize("length", ["+5", "-1", "0x5", "5,5", "5 5", "99999999999999999999"])
def test_a_length_that_is_no_number(hardened, length):
    """nginx by itself: app.py's readers see none in these, and nothing smuggled."""
    outcome = hardened.send(f"{HEAD}Content-Length: {length}\r\n\r\nhello", wait=1)
    assert (outcome.statuses, outcome.closed, outcome.targets) == ([400], True, [])


def test_chunks_with_extensions_and_trailers_reach_the_application_as_one_length(front):
    """The naive nginx hands chunks on as they come in, so that the application's reading of them counts."""
    outcome = front.send((f'{HEAD}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5;a="b"\r\nhello\r\n', 1, 0.3),
                         "0\r\nX-Evil: yes\r\n\r\n")
    assert outcome.status == 200
    assert outcome.headers("content-length") == (["5"] if front.hardened else [])
    assert outcome.headers("transfer-encoding") == ([] if front.hardened else ["chunked"])
    assert [event["body"] for event in outcome.events("body")] == ["hello"]
    assert "evil" not in json.dumps(outcome.seen).lower()


def test_an_upgrade_to_something_else_than_websockets(front):
    """With an Upgrade that nginx hands on, all that follows goes past it: h2c smuggling."""
    outcome = front.send(
        "GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        f"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n{HIDDEN}", wait=1)
    assert outcome.statuses == ([200, 403] if front.hardened else [101, 200])
    assert outcome.targets == (["/"] if front.hardened else ["/", "/admin/"])


HTTP2_SMUGGLING = {
    "length too short": ([("content-length", "2")], "hello"),
    "length too long": ([("content-length", "50")], "hello"),
    "two lengths": ([("content-length", "5"), ("content-length", "0")], "hello"),
    "line break in a value": ([("x", f"y\r\n\r\n{HIDDEN}")], "hello"),
    "line feed in a value": ([("x", "y\nX-Forwarded-For: 6.6.6.6")], "hello"),
    "line break in a name": ([("x: y\r\nx-evil", "yes")], "hello"),
    "capitals in a name": ([("Transfer-Encoding", "chunked")], "hello"),
}


@pytest.mark.parametrize("attack", HTTP2_SMUGGLING)
def test_http2_that_would_be_two_requests_in_http1(hardened, http2, attack):
    """nginx by itself, and no old proxy speaks HTTP/2."""
    fields, body = HTTP2_SMUGGLING[attack]
    request = http2.PREFACE + http2.headers(1, *fields, method="POST", end=False) + http2.data(1, body)
    outcome = hardened.send(request.decode("latin-1"), alpn="h2", wait=1)
    assert outcome.protocol == "h2"
    assert outcome.targets == []


def test_http2_with_chunks(hardened, http2):
    """A field that means nothing in HTTP/2 does not reach the application."""
    request = http2.PREFACE + http2.headers(1, ("transfer-encoding", "chunked"), method="POST", end=False)
    outcome = hardened.send((request + http2.data(1, CHUNKS_END)).decode("latin-1"), alpn="h2", wait=1)
    assert "/admin/" not in outcome.targets
    assert not outcome.seen or outcome.headers("transfer-encoding") == []


# -- Paths -------------------------------------------------------------------------------------------------------------


def test_traversal_beside_a_directory(front):
    outcome = front.ask("/static../secret.txt")
    assert ("secret\n" in outcome.answer) is not front.hardened
    assert outcome.targets == (["/static../secret.txt"] if front.hardened else [])


@pytest.mark.parametrize("path", ["/static/../secret.txt", "/static/..%2fsecret.txt", "/static/%2e%2e/secret.txt"])
def test_traversal_out_of_a_directory(hardened, path):
    """nginx by itself: it resolves the path before it looks for a location."""
    outcome = hardened.ask(path)
    assert (outcome.status, outcome.targets) == (400, [])


@pytest.mark.parametrize("path", [
    "/admin/..%2fpublic", "/admin/%2e%2e/public", "/admin/../public", "/admin%2f..%2fpublic", "/admin/.%2e%2fpublic",
])
def test_a_path_that_is_public_to_nginx_and_closed_to_the_application(front, path):
    outcome = front.ask(path)
    assert outcome.status == (400 if front.hardened else 200)
    assert outcome.targets == ([] if front.hardened else [path])


@pytest.mark.parametrize("path", ["/admin/", "//admin/", "/%61dmin/", "/x/../admin/", "/admin/x;y", "/./admin/"])
def test_a_closed_path_in_another_spelling(hardened, path):
    """nginx by itself: it compares what it has decoded."""
    outcome = hardened.ask(path)
    assert (outcome.status in (400, 403), outcome.targets) == (True, [])


@pytest.mark.parametrize("path", ["/static/.env", "/static/.git/config", "/static/notes.txt~", "/static/dump.sql"])
def test_files_that_are_nobodys_business(front, path):
    outcome = front.ask(path)
    assert outcome.status == (404 if front.hardened else 200)
    assert ("secret\n" in outcome.answer) is not front.hardened


@pytest.mark.parametrize("path", ["/.env", "/.git/config", "/x.bak"])
def test_dotfiles_that_the_application_might_have(front, path):
    outcome = front.ask(path)
    assert outcome.targets == ([] if front.hardened else [path])


# -- An application that lays out links in what is published -----------------------------------------------------------


@pytest.mark.parametrize("path, layout", [
    ("link.txt", "ln -sfn /srv/beta/secret.txt uploads/link.txt"),
    ("link/secret.txt", "ln -sfn /srv/beta uploads/link"),
    ("secret.txt", "mv uploads uploads.kept; ln -s /srv/beta uploads"),
])
def test_a_link_out_of_a_published_directory(front, path, layout):
    def alpha(command):
        front.host.check_output("runuser -u alpha -- sh -euc %s", f"cd /srv/alpha/shared; {command}")

    alpha(layout)
    try:
        outcome = front.ask(f"/uploads/{path}")
    finally:
        alpha("if [ -d uploads.kept ]; then rm uploads; mv uploads.kept uploads; fi; find uploads -mindepth 1 -delete")
    assert ("secret" in outcome.answer) is not front.hardened
    assert outcome.status in ((403, 404) if front.hardened else (200,))


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/x"])
def test_what_is_beside_a_place_with_a_password(hardened, path):
    """The naive nginx has no password at all."""
    outcome = hardened.ask(path, host="members.example.com", sni="members.example.com")
    assert (outcome.status, outcome.targets) == (401, [])


# -- Names -------------------------------------------------------------------------------------------------------------


def test_a_forged_host(front):
    outcome = front.ask("/", host="evil.example.com")
    if front.hardened:
        assert (outcome.answer, outcome.closed, outcome.targets) == ("", True, [])
    else:
        assert outcome.headers("host") == ["evil.example.com"]


def test_a_forged_host_without_tls(front):
    outcome = front.ask("/", host="evil.example.com", tls=False)
    if front.hardened:
        assert (outcome.answer, outcome.closed) == ("", True)
    else:
        assert "Location: https://evil.example.com/" in outcome.answer


def test_no_host(front):
    outcome = front.ask("/", host="", version="1.0")
    if front.hardened:
        assert (outcome.answer, outcome.closed, outcome.targets) == ("", True, [])
    else:
        assert outcome.status == 200


def test_a_host_beside_the_one_that_counts(front):
    outcome = front.ask("https://shop.example.com/", host="evil.example.com")
    assert outcome.headers("host") == (["shop.example.com"] if front.hardened else ["evil.example.com"])


@pytest.mark.parametrize("name", [
    "shop.example.com@evil.example.com", "shop.example.com\r\nHost: evil.example.com", "shop.example.com/x",
    "shop.example.com evil", "shop.example.com\x00",
])
def test_a_host_that_is_no_name(hardened, name):
    """nginx by itself, but for the first, which for the naive one is a port."""
    outcome = hardened.ask("/", host=name)
    assert (outcome.status in (0, 400), outcome.targets) == (True, [])


def test_a_port_in_the_host_is_not_the_clients_to_choose(front):
    outcome = front.ask("/", host="shop.example.com:6666")
    assert ("6666" in json.dumps(outcome.seen)) is not front.hardened


def test_a_forged_forwarded_host(front):
    outcome = front.ask("/", "X-Forwarded-Host: evil.example.com", "X-Forwarded-For: 6.6.6.6")
    assert ("evil.example.com" in outcome.answer) is not front.hardened
    assert outcome.headers("x-forwarded-for") == ["127.0.0.1" if front.hardened else "6.6.6.6, 127.0.0.1"]


@pytest.mark.parametrize("sni", ["evil.example.com", ""])
def test_a_handshake_for_another_name(front, sni):
    outcome = front.ask("/", sni=sni)
    assert outcome.ended == ("refused" if front.hardened else "closed")
    assert ("UNRECOGNIZED_NAME" in outcome.handshake) is front.hardened
    assert outcome.status == (0 if front.hardened else 200)


# -- Limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header, status", [
    ("X-Long: " + "x" * 9000, 400),
    ("Cookie: " + "; ".join(f"c{number}=x" for number in range(1500)), 400),
    ("\r\n".join(f"X-{number}: {'x' * 100}" for number in range(400)), 400),
])
def test_headers_over_the_limit(front, header, status):
    outcome = front.ask("/", header)
    assert outcome.status == (status if front.hardened else 200)
    assert outcome.targets == ([] if front.hardened else ["/"])


def test_an_address_over_the_limit(front):
    outcome = front.ask("/?" + "x" * 9000)
    assert outcome.status == (414 if front.hardened else 200)


def test_a_body_over_the_limit(front):
    outcome = front.ask("/", method="POST", body="x" * 1025)
    assert outcome.status == (413 if front.hardened else 200)
    assert outcome.targets == ([] if front.hardened else ["/"])


def test_a_body_over_the_limit_that_does_not_say_so(front):
    chunk = f"400\r\n{'x' * 1024}\r\n"
    outcome = front.ask("/", f"Transfer-Encoding: chunked\r\n\r\n{chunk * 2}0\r\n", method="POST")
    assert outcome.status == (413 if front.hardened else 200)
    assert outcome.targets == ([] if front.hardened else ["/"])


def test_many_connections_of_one_client(front):
    """With a limit; where there is none, the naive nginx has room for as many as its workers have connections."""
    slow = "POST /few/ HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 5\r\n\r\nh"
    outcome = front.ask("/few/", others=[slow] * 8)
    assert outcome.status == (429 if front.hardened else 200)


@pytest.mark.parametrize("source, status", [("127.0.0.1", 429), ("127.0.9.9", 200)])
def test_more_slow_bodies_than_one_client_may_hold(front, http2, source, status):
    """Over a dozen connections of HTTP/2 more than a thousand. The client is refused what others still get."""
    bodies = b"".join(http2.headers(stream, ("content-length", "9"), method="POST", path="/held", end=False)
                      for stream in range(1, 2 * 120, 2))
    request = "GET /asked HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n"
    outcome = front.send(("", 1, 1), request, source=source, others_alpn="h2",
                         others=[(http2.PREFACE + bodies).decode("latin-1")] * 12)
    if front.hardened:
        assert outcome.status == status
        assert outcome.targets == ["/asked"] * (status == 200)
    else:  # the application gets them, as many as a busy machine sends it in this time
        assert outcome.status != 429
        assert outcome.targets.count("/held") > 10


# -- Slow clients ------------------------------------------------------------------------------------------------------


def test_a_head_that_never_ends(hardened, naive):
    """A byte now and then does not help: 15 seconds are for the whole head. nginx itself gives it 60."""
    def attack(front):
        return front.send("GET / HTTP/1.1\r\nHost: shop.example.com\r\n", ("X: y\r\n", 12, 1.5))

    with ThreadPoolExecutor() as pool:
        ours, theirs = pool.map(attack, [hardened, naive])
    assert ours.closed
    assert 14 < ours.seconds < 17
    assert theirs.ended == "open" and theirs.seconds > 18


def test_a_body_that_comes_slowly_does_not_hold_the_application(front):
    """nginx waits for it, and the application never knows."""
    outcome = front.send(f"{HEAD}Content-Length: 500\r\n\r\n", ("x", 4, 0.3), wait=0.3)
    assert outcome.ended == "open"
    assert outcome.targets == ([] if front.hardened else ["/"])


def test_an_answer_that_is_read_slowly_does_not_hold_the_application(front):
    """nginx takes it off the application's hands."""
    outcome = front.send("GET /large HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", wait=2, read=False)
    assert outcome.targets == ["/large"]
    assert bool(outcome.events("answered")) is front.hardened


# Bytes of an answer that nginx keeps on disk, in files that have no name any more.
KEPT = r"""sleep 2; for fd in $(find /proc/[0-9]*/fd -lname '/var/lib/nginx/proxy/*'); do stat -L -c %s $fd; done"""


def test_a_large_answer_that_is_read_slowly_does_not_fill_the_disk(hardened):
    """The naive one keeps nothing of it."""
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(hardened.send, "GET /huge HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", wait=3, read=False)
        sizes = [int(size) for size in hardened.host.check_output(KEPT).split()]
        assert sent.result().targets == ["/huge"]
    assert 8 << 20 < sum(sizes) < 17 << 20


# -- HTTP/2 ------------------------------------------------------------------------------------------------------------


def test_rapid_reset(front, http2):
    """Requests that are taken back at once cost who sends them nothing (CVE-2023-44487)."""
    requests = b"".join(http2.headers(stream) + http2.reset(stream) for stream in range(1, 2 * 5000, 2))
    outcome = front.send(http2.PREFACE.decode("latin-1"), requests.decode("latin-1"), alpn="h2", wait=2)
    farewells = [payload for kind, _, _, payload in http2.frames(outcome.answer) if kind == http2.GOAWAY]
    if front.hardened:
        assert outcome.closed and outcome.seconds < 2
        last_stream = int.from_bytes(farewells[0][:4], "big")
        assert last_stream / 2 < 1000
    else:  # takes them all, and more
        assert (outcome.ended, farewells) == ("open", [])


def test_streams_at_once(front, http2):
    requests = b"".join(http2.headers(stream) for stream in range(1, 2 * 300, 2))
    outcome = front.send(http2.PREFACE.decode("latin-1"), requests.decode("latin-1"), alpn="h2", wait=1)
    refused = [stream for kind, _, stream, _ in http2.frames(outcome.answer) if kind == http2.RST_STREAM]
    assert len(refused) >= 100 if front.hardened else refused == []


# -- Lines -------------------------------------------------------------------------------------------------------------


def test_a_line_break_in_a_redirect(front):
    outcome = front.ask("/x%0d%0aSet-Cookie:%20session=evil", tls=False)
    assert outcome.status == 301
    assert ("\r\nSet-Cookie: session=evil" in outcome.answer) is not front.hardened
    if front.hardened:
        assert "\r\nLocation: https://shop.example.com/x%0d%0aSet-Cookie:%20session=evil\r\n" in outcome.answer


def test_a_line_break_in_what_is_handed_on(front):
    """Where nginx decodes a path and hands that on, a client writes the application's requests."""
    outcome = front.ask("/api/%20HTTP/1.1%0d%0aX-Real-IP:%206.6.6.6%0d%0aX:")
    assert outcome.status == 200
    assert outcome.headers("x-real-ip")[0] == ("127.0.0.1" if front.hardened else "6.6.6.6")


@pytest.mark.parametrize("header", ["X: y\rX-Real-IP: 6.6.6.6", "X: y\x00z", "X y", ": y"])
def test_a_header_that_is_none(hardened, header):
    """nginx by itself."""
    outcome = hardened.ask("/", header)
    assert (outcome.status, outcome.targets) == (400, [])


def test_a_forged_line_in_the_log(front):
    stamp = f"log{time.time_ns()}"
    forged = f'{stamp}","status":200}}\\r\\n{{"agent":"forged'
    front.ask("/static/nothing", f"User-Agent: {forged}")
    time.sleep(1.2)
    path = "/var/log/nginx/shop.access.log" if front.hardened else "/var/log/naive.access.log"
    line = front.host.check_output(f"grep -a {stamp} {path}")
    if front.hardened:
        assert json.loads(line)["user_agent"] == forged
        assert json.loads(line)["status"] == 404
    else:
        with pytest.raises(json.JSONDecodeError):
            json.loads(line)


def test_a_request_that_is_a_hundred_kilobytes_of_log(front):
    """A control character is six bytes of JSON, and one client has a disk full of them in an hour."""
    stamp = f"log{time.time_ns()}"
    junk = "\x01" * 7900
    agent = junk if front.hardened else "x" * 99999
    front.ask(f"/static/nothing?{stamp}", f"Referer: {junk}", f"User-Agent: {agent}")
    time.sleep(1.2)
    path = "/var/log/nginx/shop.access.log" if front.hardened else "/var/log/naive.access.log"
    line = front.host.check_output(f"grep -a {stamp} {path}")
    assert (len(line) < 4000) is front.hardened


# -- Caches ------------------------------------------------------------------------------------------------------------


def path_of_its_own() -> str:
    return f"/kept/{time.time_ns()}.css"


@pytest.mark.parametrize("mine", ["Cookie: mine", "Authorization: mine", "X-API-Key: mine", "X-My-Key: mine"])
def test_cache_deception(front, mine):
    """The victim follows a link that looks like a file's; then the attacker asks for it.

    Of a header whose name tells nothing, an application behind a cache learns nothing.
    """
    path = path_of_its_own()
    known = not front.hardened or "My" not in mine
    assert f"for {'mine' if known else 'nobody'}" in front.ask(path, mine).answer
    assert ("for mine" in front.ask(path).answer) is not front.hardened


def test_an_answer_that_sets_a_cookie_is_the_clients_own(front):
    path = path_of_its_own().replace(".css", "-session.css")
    assert "session=mine" in front.ask(path).answer
    outcome = front.ask(path)
    assert outcome.targets == ([path] if front.hardened else [])


@pytest.mark.parametrize("header", ["X-Forwarded-Host: evil.example.com", "Host: evil.example.com"])
def test_cache_poisoning(front, header):
    """What an answer depends on is part of the key, or the attacker writes it for all."""
    path = path_of_its_own()
    if header.startswith("Host"):
        front.ask(f"https://shop.example.com{path}", host="evil.example.com")
    else:
        front.ask(path, header)
    assert ("evil.example.com" in front.ask(path).answer) is not front.hardened


def test_an_answer_for_one_query_is_not_the_others(front):
    path = path_of_its_own()
    front.ask(f"{path}?evil")
    assert ("evil" in front.ask(path).answer) is not front.hardened


# -- Methods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_methods_for_proxies(front, method):
    """nginx by itself; the old proxy hands TRACE on, and the cookie comes back for a script to read."""
    outcome = front.ask("/", "Cookie: mine", method=method, port=0 if front.hardened else 8090, wait=1)
    assert outcome.status == (405 if front.hardened else 200)
    assert ("for mine" in outcome.answer) is not front.hardened


@pytest.mark.parametrize("method", ["get", "GE T", "GET\x00", "G\u00e9T"])
def test_a_method_that_is_none(hardened, method):
    """nginx by itself."""
    outcome = hardened.ask("/", method=method)
    assert (outcome.status, outcome.targets) == (400, [])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PROPFIND"])
def test_files_are_for_reading(hardened, method):
    """nginx by itself, unless it is told to write (the module dav)."""
    assert hardened.ask("/static/site.txt", method=method).status == 405


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_method_inside_another(front, name):
    """A guard or a cache in front goes by the request's own; an application that goes by the header is another's."""
    outcome = front.ask("/", f"{name}: DELETE")
    assert outcome.headers(name.lower()) == ([] if front.hardened else ["DELETE"])


def test_a_request_without_a_version(front):
    """HTTP/0.9 has no Host."""
    outcome = front.send("GET /\r\n", wait=1)
    assert outcome.targets == ([] if front.hardened else ["/"])
    assert (outcome.answer == "") is front.hardened
