"""What clients and applications see of a site, and what they must not."""

from __future__ import annotations

import json
import time

import pytest

SHOP = "https://shop.example.com"

# Everything the role promises to send, on whatever status.
HEADERS = {
    "Strict-Transport-Security": "max-age=63072000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


# -- Names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shop.example.com", "www.shop.example.com", "SHOP.example.com"])
def test_http_is_redirected_to_the_canonical_name_with_path_and_query(nginx, name):
    response = nginx.ask(f"http://{name}/a%20b?c=d&e=%2F")
    assert response.status == 301
    assert response["Location"] == f"{SHOP}/a%20b?c=d&e=%2F"


def test_an_alias_is_redirected_over_https_too(nginx):
    response = nginx.ask("https://www.shop.example.com/a?b")
    assert (response.status, response["Location"]) == (301, f"{SHOP}/a?b")
    assert response["Strict-Transport-Security"]


@pytest.mark.parametrize("path", ["/%0d%0aSet-Cookie:%20a=b", "//evil.example.com/", "/%5cevil.example.com"])
def test_a_redirect_cannot_be_bent(nginx, path):
    response = nginx.ask(f"http://shop.example.com{path}")
    assert response["Location"] == SHOP + path
    assert not response.all("Set-Cookie")


def test_acme_challenges_are_answered_over_http(nginx):
    base = "http://shop.example.com/.well-known/acme-challenge"
    assert nginx.ask(f"{base}/token").text == "token\n"
    assert nginx.ask(f"{base}/missing").status == 404
    assert "secret" not in nginx.ask(f"{base}/../../secret.txt").text


@pytest.mark.parametrize("arguments", [
    ("http://evil.example.com/",),
    ("http://127.0.0.1/",),
    ("http://shop.example.com/", "--header", "Host: evil.example.com"),
    ("http://shop.example.com/", "--http1.0", "--header", "Host:"),
    ("http://shop.example.com.evil.example.com/",),
])
def test_an_unknown_host_gets_no_answer(nginx, arguments):
    response = nginx.ask(*arguments)
    assert (response.status, response.text, response.error) == (0, "", 56)


@pytest.mark.parametrize("name", ["evil.example.com", "127.0.0.1"])
def test_an_unknown_name_in_the_handshake_is_refused(nginx, name):
    response = nginx.ask(f"https://{name}/", "--insecure")
    assert (response.status, response.error) == (0, 35)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_known_name_in_the_handshake_does_not_open_the_door_to_an_unknown_host(nginx, version):
    response = nginx.ask(SHOP, version, "--header", "Host: evil.example.com")
    assert (response.status, response.text) == (0, "")
    assert response.error in (56, 92)


# -- TLS ---------------------------------------------------------------------------------------------------------------


def handshake(nginx, *options):
    command = "openssl s_client -connect 127.0.0.1:443 -servername shop.example.com"
    return nginx.host.run(f"{command} {' '.join(options)} </dev/null 2>&1").stdout


def test_http2_is_offered_and_http1_still_served(nginx):
    assert nginx.ask(SHOP, "--http2", "--write-out", "version=%{http_version}").text.endswith("version=2")
    assert nginx.ask(SHOP, "--http1.1", "--write-out", "version=%{http_version}").text.endswith("version=1.1")


@pytest.mark.parametrize("version, protocol", [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_modern_tls_is_spoken(nginx, version, protocol):
    assert f"New, {protocol}" in handshake(nginx, version)


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_tls_is_refused_by_the_server(nginx, version):
    """The client offers it in earnest: at its own default level it would not even ask."""
    assert "alert protocol version" in handshake(nginx, version, "-cipher 'ALL:@SECLEVEL=0'")


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256"])
def test_ciphers_without_authentication_of_the_whole_are_refused(nginx, cipher):
    assert "alert handshake failure" in handshake(nginx, "-tls1_2", f"-cipher '{cipher}:@SECLEVEL=0'")


# -- Headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status, path, arguments", [
    (200, "/", ()),
    (200, "/static/css/site.css", ()),
    (200, "/raw", ()),
    (404, "/status/404", ()),
    (404, "/static/missing.css", ()),
    (404, "/.git/config", ()),
    (405, "/static/css/site.css", ("--request", "POST")),
    (413, "/", ("--data", "x" * 2000)),
    (429, "/status/429", ()),
    (500, "/status/500", ()),
])
def test_security_headers_are_on_every_answer_once(nginx, status, path, arguments):
    response = nginx.ask(SHOP + path, *arguments)
    assert response.status == status
    assert {name: response[name] for name in HEADERS} == HEADERS
    assert response["Content-Security-Policy"] == "default-src 'self'; report-uri \"/csp\""


def test_security_headers_are_there_when_the_application_is_not(nginx):
    response = nginx.ask("https://dead.example.com/", trust="dead")
    assert response.status == 502
    assert {name: response[name] for name in HEADERS} == HEADERS


def test_security_headers_are_there_when_the_request_is_no_good(nginx):
    response = nginx.ask(SHOP, "--http1.1", "--header", f"X-Long: {'x' * 9000}")
    assert response.status == 400
    assert {name: response[name] for name in HEADERS} == HEADERS


def test_a_header_that_is_set_empty_is_left_to_the_application(nginx):
    assert nginx.ask(SHOP)["Referrer-Policy"] == "same-origin"
    assert nginx.ask("https://dead.example.com/", trust="dead")["Referrer-Policy"] == "strict-origin-when-cross-origin"


def test_nginx_keeps_its_version_to_itself(nginx):
    for response in (nginx.ask(SHOP), nginx.ask(f"{SHOP}/static/missing"), nginx.ask("http://shop.example.com/")):
        assert response["Server"] == "nginx"
        assert "nginx/" not in response.text


# -- The application ---------------------------------------------------------------------------------------------------


def test_the_application_sees_the_client_and_https(nginx):
    headers = nginx.seen_by_app(SHOP)
    assert headers["host"] == headers["x-forwarded-host"] == ["shop.example.com"]
    assert headers["x-real-ip"] == headers["x-forwarded-for"] == ["127.0.0.1"]
    assert headers["x-forwarded-proto"] == ["https"]
    assert headers["x-forwarded-port"] == ["443"]


FORGED = {
    "X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil",
    "X-Forwarded-Port": "666", "X-Forwarded-Prefix": "/evil", "Forwarded": "for=6.6.6.6", "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil", "Proxy": "http://evil", "X_Forwarded_For": "6.6.6.6",
}


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_what_a_client_claims_about_itself_does_not_reach_the_application(nginx, version):
    arguments = [word for name, value in FORGED.items() for word in ("--header", f"{name}: {value}")]
    honest, forged = nginx.seen_by_app(SHOP, version), nginx.seen_by_app(SHOP, version, *arguments)
    honest.pop("x-request-id"), forged.pop("x-request-id")
    assert forged == honest


def test_the_name_of_an_absolute_request_counts_and_not_the_host_header(nginx):
    text = nginx.python(
        "import socket, ssl\n"
        "context = ssl.create_default_context(cafile='/var/lib/fastapi/placeholder/shop/fullchain.pem')\n"
        "plain = socket.create_connection(('127.0.0.1', 443), 5)\n"
        "with context.wrap_socket(plain, server_hostname='shop.example.com') as stream:\n"
        "    stream.sendall(b'GET https://shop.example.com/x HTTP/1.1\\r\\nHost: evil.example.com\\r\\n'\n"
        "                   b'Connection: close\\r\\n\\r\\n')\n"
        "    print(b''.join(iter(lambda: stream.recv(4096), b'')).decode())\n")
    assert '["host", "shop.example.com"]' in text
    assert "evil" not in text


def test_a_request_id_is_made_and_shared(nginx):
    response = nginx.ask(SHOP)
    headers = dict(response.json()["headers"])
    assert len(headers["x-request-id"]) == 32
    assert response["X-Request-ID"] == headers["x-request-id"]


def test_a_good_request_id_is_kept(nginx):
    response = nginx.ask(SHOP, "--header", "X-Request-ID: abc-123.DEF_456")
    assert dict(response.json()["headers"])["x-request-id"] == response["X-Request-ID"] == "abc-123.DEF_456"


@pytest.mark.parametrize(
    "value", ["short", "x" * 129, 'quote"quote', "with space in it", "semi;colon;;;", "ünïcödé-ünïcödé"])
def test_a_bad_request_id_is_replaced(nginx, value):
    response = nginx.ask(SHOP, "--header", f"X-Request-ID: {value}")
    assert response["X-Request-ID"] == dict(response.json()["headers"])["x-request-id"]
    assert len(response["X-Request-ID"]) == 32


def test_a_body_over_the_limit_is_answered_413_and_one_below_it_passed_on(nginx):
    assert nginx.ask(SHOP, "--data", "x" * 1025).status == 413
    assert nginx.ask(SHOP, "--data", "x" * 1024).status == 200


def test_connections_to_the_application_are_reused(nginx):
    command = "curl --silent --cacert /var/lib/fastapi/placeholder/shop/fullchain.pem --connect-to ::127.0.0.1:"
    text = nginx.host.check_output(" ".join([command, *[SHOP] * 3]))
    assert text.count('"connection": ') == 3
    assert len({part.partition("}")[0] for part in text.split('"connection": ')[1:]}) == 1, text


WEBSOCKET = r"""
import socket, ssl
context = ssl.create_default_context(cafile='/var/lib/fastapi/placeholder/shop/fullchain.pem')
plain = socket.create_connection(('127.0.0.1', 443), 5)
with context.wrap_socket(plain, server_hostname='shop.example.com') as stream:
    stream.sendall(b'GET /socket HTTP/1.1\r\nHost: shop.example.com\r\nUpgrade: %s\r\nConnection: Upgrade%s\r\n'
                   b'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
    print(stream.recv(4096).decode())
    stream.sendall(b'through\n')
    print(stream.recv(4096).decode())
"""


@pytest.mark.parametrize("word", ["websocket", "WebSocket"])
def test_a_websocket_is_upgraded_and_carries_data(nginx, word):
    text = nginx.python(WEBSOCKET % (word, ""))
    assert text.startswith("HTTP/1.1 101 ")
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in text
    assert "THROUGH" in text


@pytest.mark.parametrize("word", ["h2c", "TLS/1.0", "websocket-not"])
def test_no_other_upgrade_reaches_the_application(nginx, word):
    headers = nginx.seen_by_app(f"{SHOP}/socket", "--http1.1", "--header", f"Upgrade: {word}",
                                "--header", "Connection: Upgrade, HTTP2-Settings")
    assert "upgrade" not in headers
    assert "connection" not in headers


def test_server_sent_events_are_not_held_back(nginx):
    response = nginx.ask(f"{SHOP}/events", "--no-buffer", "--max-time", "1")
    assert response.error == 28, "the stream should still have been open"
    assert "data: 0\n\ndata: 1\n" in response.text
    assert not response.all("X-Accel-Buffering")


# -- Files -------------------------------------------------------------------------------------------------------------


def test_static_files_come_from_disk_and_may_be_kept(nginx):
    response = nginx.ask(f"{SHOP}/static/css/site.css")
    assert (response.status, response.text) == (200, "body {}\n")
    assert response["Cache-Control"] == "max-age=2592000"
    assert response["Content-Type"] == "text/css"
    assert not response.all("X-Backend")


def test_a_static_file_that_is_missing_is_not_kept(nginx):
    response = nginx.ask(f"{SHOP}/static/missing.css")
    assert (response.status, response.all("Cache-Control")) == (404, [])


def test_a_file_whose_name_holds_a_hash_may_be_kept_for_good(nginx):
    response = nginx.ask(f"{SHOP}/static/site.3f2a9c1b.css")
    assert (response.status, response.text, response["Content-Type"]) == (200, "now\n", "text/css")
    assert response["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("name", ["icon-1024x768.css", "report-20240101.css", "css/site.css"])
def test_a_name_that_only_looks_like_it_may_not(nginx, name):
    assert nginx.ask(f"{SHOP}/static/{name}")["Cache-Control"] == "max-age=2592000"


def test_a_hashed_file_of_the_release_before_is_still_there(nginx):
    response = nginx.ask(f"{SHOP}/static/old.27e20196a850.css")
    assert (response.status, response.text) == (200, "before\n")
    assert response["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("name", ["plain.css", "source.27e20196a850.py", "gone.27e20196a850.css"])
def test_no_other_file_of_the_release_before_is(nginx, name):
    response = nginx.ask(f"{SHOP}/static/{name}")
    assert (response.status, response.all("Cache-Control")) == (404, [])


@pytest.mark.parametrize("path", [
    "/static/../secret.27e20196a850.css", "/static/..%2fsecret.27e20196a850.css", "/static../secret.27e20196a850.css",
    "/static/css/%2e%2e/%2e%2e/secret.27e20196a850.css", "/static//..//secret.27e20196a850.css",
    "/static/..\\secret.27e20196a850.css", "/static//srv/files/secret.27e20196a850.css",
    "/static/srv/files/secret.27e20196a850.css", "/static/opt/secret.27e20196a850.css",
    "/static/secret.27e20196a850.css",
    "/static/before/../secret.27e20196a850.css", "/static/%2fopt%2fsecret.27e20196a850.css",
    "/static/css/..%2f..%2f..%2f..%2fsecret.27e20196a850.css", "/opt/before/old.27e20196a850.css",
])
def test_a_hash_in_its_name_brings_no_other_file_within_reach(nginx, path):
    """Neither beside the two directories nor anywhere else: both are roots by themselves."""
    response = nginx.ask(SHOP + path)
    assert response.text not in ("secret\n", "before\n")
    assert not (response.status == 200 and not response.all("X-Backend"))


@pytest.mark.parametrize("path", [
    "/static/../secret.txt", "/static../secret.txt", "/static/..%2fsecret.txt", "/static/%2e%2e/secret.txt",
    "/static/css/../../secret.txt", "/static/..;/secret.txt", "/static%2f..%2fsecret.txt",
    "/static/%2e%2e%2fsecret.txt",
    "/static/..%5csecret.txt", "/static//../secret.txt", "/static/css/%252e%252e/%252e%252e/secret.txt",
])
def test_nothing_beside_the_directory_is_within_reach(nginx, path):
    response = nginx.ask(SHOP + path)
    assert "secret\n" not in response.text
    assert not (response.status == 200 and not response.all("X-Backend"))


@pytest.mark.parametrize("path", [
    "/static/.env", "/static/.git/config", "/static/.hidden", "/static/notes.txt~", "/static/app.py",
    "/static/dump.sql", "/static/settings.yml", "/static/site.css.bak", "/static/APP.PY", "/static/%2ehidden",
])
def test_files_that_are_nobodys_business_are_refused(nginx, path):
    response = nginx.ask(SHOP + path)
    assert response.status == 404
    assert "secret" not in response.text


@pytest.mark.parametrize("path", [
    "/.env", "/.git/config", "/%2egit/HEAD", "/a/.htpasswd", "/.ssh/id_rsa", "/backup.sql.bak", "/index.php~", "/x.SWP",
    "/.well-known.bak",
])
def test_dotfiles_and_backups_are_not_even_asked_of_the_application(nginx, path):
    response = nginx.ask(SHOP + path)
    assert response.status == 404
    assert not response.all("X-Backend")


@pytest.mark.parametrize("path", ["/.well-known/security.txt", "/a.b/c", "/main.py", "/items/v1.2"])
def test_what_only_looks_like_it_is_the_applications(nginx, path):
    assert nginx.ask(SHOP + path).json()["path"] == path


# -- Logs --------------------------------------------------------------------------------------------------------------


def log_line(nginx, request_id, name="shop"):
    """The line of a request; nginx holds lines back for a second."""
    for _ in range(40):
        text = nginx.host.run(f"grep -a {request_id} /var/log/nginx/{name}.access.log").stdout
        if text:
            return json.loads(text)
        time.sleep(0.1)
    raise AssertionError(f"{request_id} is not in the log")


def test_the_log_has_one_json_object_for_each_request(nginx):
    request_id = f"log-test-{time.time_ns()}"
    nginx.ask(f"{SHOP}/path?a=b", "--header", f"X-Request-ID: {request_id}", "--user-agent", 'a "quoted" \\ agent')
    line = log_line(nginx, request_id)
    assert line["user_agent"] == 'a "quoted" \\ agent'
    expected = {"site": "shop.example.com", "client": "127.0.0.1", "method": "GET", "uri": "/path?a=b", "status": 200,
                "upstream_status": "200", "upstream_addr": "unix:/run/backend.sock", "protocol": "HTTP/2.0"}
    assert {key: line[key] for key in expected} == expected
    assert line["request_time"] >= 0
    # the moment of the request's end, exact enough to order what happens within a second
    assert isinstance(line["msec"], float) and 0 <= time.time() - line["msec"] < 60
    assert float(line["upstream_response_time"]) >= 0


FLOOD = r"""
import socket, ssl
plain = socket.create_connection(('127.0.0.1', 443))
stream = ssl._create_unverified_context().wrap_socket(plain, server_hostname='shop.example.com')
junk = b'\x01' * 7900
lines = [b'GET /path?' + b'"' * 7900 + b' HTTP/1.1', b'Host: shop.example.com', b'Connection: close',
         b'X-Request-ID: %s', b'Referer: before' + junk, b'User-Agent: agent' + junk]
stream.sendall(b'\r\n'.join([*lines, b'', b'']))
stream.recv(10)
"""


def test_what_a_client_sends_has_a_bound_in_the_log(nginx, measured):
    """A control character is six bytes of JSON: 24 kB of request were 100 kB of log. What is said before them stays."""
    request_id = f"log-test-{time.time_ns()}"
    nginx.python(FLOOD % request_id)
    line = log_line(nginx, request_id)
    size = int(nginx.host.check_output(f"grep -a {request_id} /var/log/nginx/shop.access.log | wc -c"))
    measured(f"a request of 24 kB is {size} bytes of log")
    assert (line["referer"], line["user_agent"]) == ("before...", "agent...")
    assert line["uri"] == '/path?' + '"' * 1018 + "..." and size < 4000


def test_a_method_has_a_bound_in_the_log(nginx):
    request_id = f"log-test-{time.time_ns()}"
    nginx.ask(SHOP, "--http1.1", "--request", "X" * 5000, "--header", f"X-Request-ID: {request_id}")
    assert log_line(nginx, request_id)["method"] == "X" * 32 + "..."


def test_an_application_that_is_down_shows_in_the_log(nginx):
    request_id = f"log-test-{time.time_ns()}"
    nginx.ask("https://dead.example.com/", "--header", f"X-Request-ID: {request_id}", trust="dead")
    line = log_line(nginx, request_id, "dead")
    assert (line["status"], line["upstream_status"]) == (502, "502, 502")
    assert "No such file" in nginx.host.file("/var/log/nginx/dead.error.log").content_string


@pytest.mark.parametrize("name", ["shop.access.log", "shop.error.log", "access.log", "error.log"])
def test_logs_are_not_for_all_to_read(host, name):
    file = host.file(f"/var/log/nginx/{name}")
    assert (file.user, file.group, file.mode) == ("www-data", "adm", 0o640)


# -- The host ----------------------------------------------------------------------------------------------------------


def test_nginx_listens_on_80_and_443_and_for_this_host_where_it_tells_its_connections(host):
    lines = host.check_output("ss --listening --tcp --numeric --processes --no-header").splitlines()
    addresses = sorted(line.split()[3] for line in lines if '"nginx"' in line)
    assert addresses == ["0.0.0.0:443", "0.0.0.0:80", "127.0.0.1:8099", "[::]:443", "[::]:80"]
    assert "Active connections: " in host.check_output("curl -sS http://127.0.0.1:8099/stub_status")
    asked = "curl -sS -o /dev/null -w '%{http_code}' http://127.0.0.1:8099"
    assert host.check_output(f"{asked}/") == "404"
    assert host.check_output(f"{asked}/stub_status --interface $(hostname -I)") == "403"


def test_nginx_runs_and_starts_at_boot(host):
    assert host.service("nginx").is_running and host.service("nginx").is_enabled


def test_workers_are_unprivileged_and_may_open_enough_files(nginx):
    for pid in nginx.workers():
        assert nginx.host.check_output(f"ps --no-headers -o user {pid}") == "www-data"
        assert "9216" in nginx.host.check_output(f"grep 'Max open files' /proc/{pid}/limits")


def test_sites_are_linked_and_the_distributions_default_is_gone(host, sites):
    assert host.file("/etc/nginx/sites-enabled/shop.conf").linked_to == "/etc/nginx/sites-available/shop.conf"
    assert sorted(host.file("/etc/nginx/sites-enabled").listdir()) == sorted(f"{site['name']}.conf" for site in sites)
    file = host.file("/etc/nginx/sites-available/shop.conf")
    assert (file.user, file.group, file.mode) == ("root", "adm", 0o640)


def test_templates_of_the_users_replace_blocks(nginx, sites):
    """One of a site and one of nginx.conf: the second defines a variable that the first uses."""
    assert nginx.ask("https://pages.example.com/", trust="pages").text == "home\n"
    told = nginx.ask("https://pages.example.com/who", trust="pages").text
    assert told == f"pages pages the team of {len(sites)} sites\n"
