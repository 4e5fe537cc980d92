# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exporter's arithmetic: what lines make of numbers, and what of it is shown, kept and forgotten."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi_exporter import edge, registry, releases, statsd
from fastapi_exporter.certificates import describe, sites
from fastapi_exporter.registry import Registry


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def numbers(clock):
    return Registry(clock)


def shown(numbers, name: str) -> dict[str, str]:
    """Samples of a metric: the text between the braces, and the number."""
    pairs = [line.rsplit(" ", 1) for line in numbers.lines() if line.startswith((name + "{", name + " "))]
    return {labels.removeprefix(name).strip("{}"): value for labels, value in pairs}


# -- What is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "labels", "value"),
    [
        ("a:1|c", "a", "", "1"),
        ("a:1|c|@0.25|#x:y", "a", 'x="y"', "4"),
        ("a:1:2:3|c", "a", "", "6"),
        ("a.b-c:2|g|#z:1,b:2", "a_b_c", 'b="2",z="1"', "2"),
        ("a:0.5|c", "a", "", "0.5"),
        ("a:1|c|#flag", "a", 'flag=""', "1"),
        ("a:1|c|c:id|#x:a:b", "a", 'x="a:b"', "1"),
        ('a:1|c|#x:"q"\\', "a", r'x="\"q\"\\"', "1"),
    ],
)
def test_a_line_is_a_number_with_labels(numbers, line, name, labels, value):
    statsd.take(numbers, line.encode())
    assert shown(numbers, name) == {labels: value}
    assert shown(numbers, "fastapi_exporter_lines_total") == {'result="counted"': "1"}


@pytest.mark.parametrize(
    "line",
    [
        *("a", "a:1", ":1|c", "1a:1|c", "a:x|c", "a:1|q", "a:-1|c", "a:nan|g", "a:inf|c", "a:1|c|@0", "a:1|c|@2"),
        *("a:1|c|#le:1", "a:1|c|#__name__:b", "a:1|c|#" + ",".join(f"t{n}:1" for n in range(13))),
    ],
)
def test_what_is_no_line_is_counted_as_that_and_harms_nothing(numbers, line):
    statsd.take(numbers, f"before:1|c\n{line}\nafter:1|c".encode())
    assert shown(numbers, "fastapi_exporter_lines_total") == {'result="counted"': "2", 'result="refused"': "1"}
    assert not shown(numbers, "a")


def test_a_metric_stays_what_it_was(numbers):
    statsd.take(numbers, b"a:1|c\na:5|g\na:1|h")
    assert shown(numbers, "a") == {"": "1"}


def test_gauges_can_change_by_a_difference(numbers):
    statsd.take(numbers, b"a:5|g\na:+2|g\na:-3|g")
    assert shown(numbers, "a") == {"": "4"}


def test_a_histogram_counts_an_observation_as_often_as_its_rate_says(numbers):
    statsd.take(numbers, f"a:0.02|h|@{1 / 49!r}\na:0.005|h\na:31000|ms".encode())
    assert shown(numbers, "a_bucket")['le="0.005"'] == "1"
    assert shown(numbers, "a_bucket")['le="0.01"'] == "1"
    assert shown(numbers, "a_bucket")['le="0.025"'] == "50"
    assert shown(numbers, "a_bucket")['le="30.0"'] == "50"
    assert shown(numbers, "a_bucket")['le="+Inf"'] == "51"
    assert shown(numbers, "a_count") == {"": "51"}
    assert float(shown(numbers, "a_sum")[""]) == pytest.approx(0.98 + 0.005 + 31)


@pytest.mark.parametrize("count", [*range(1, 200), 4096, 99991])
def test_the_rate_of_any_count_is_that_count(numbers, count):
    statsd.take(numbers, f"a:0.02|h|@{1 / count!r}".encode())
    assert shown(numbers, "a_count") == {"": str(count)}


def test_exits_of_workers_begin_at_nought(numbers):
    statsd.take(numbers, b"fastapi_workers:1|g|#app:shop,release:r,worker:0,state:serving")
    assert shown(numbers, "fastapi_worker_exits_total")['app="shop",reason="oom"'] == "0"
    statsd.take(numbers, b"fastapi_worker_exits_total:1|c|#app:shop,reason:oom")
    statsd.take(numbers, b"fastapi_workers:1|g|#app:shop,release:r,worker:0,state:serving")
    assert shown(numbers, "fastapi_worker_exits_total")['app="shop",reason="oom"'] == "1"


def test_errors_begin_at_nought_as_soon_as_a_route_is_known(numbers):
    statsd.take(numbers, b"fastapi_http_requests_total:3|c|#app:shop,method:GET,route:/,status:200")
    found = {
        'app="shop",method="GET",route="/",status="200"': "3",
        'app="shop",method="GET",route="/",status="500"': "0",
    }
    assert shown(numbers, "fastapi_http_requests_total") == found
    statsd.take(numbers, b"fastapi_http_requests_total:2|c|#app:shop,method:GET,route:/,status:500")
    assert shown(numbers, "fastapi_http_requests_total")['app="shop",method="GET",route="/",status="500"'] == "2"


# -- What is kept ------------------------------------------------------------------------------------------------------


def test_workers_that_say_no_more_are_gone_and_what_they_counted_stays(numbers, clock):
    statsd.take(numbers, b"busy:3|g|#worker:0\nqueue:3|g|#app:shop\ndone:3|c|#worker:0")
    clock.now += registry.FRESH + 1
    assert (shown(numbers, "busy"), shown(numbers, "queue")) == ({}, {'app="shop"': "3"})
    assert shown(numbers, "done") == {'worker="0"': "3"}
    clock.now += registry.REMEMBERED
    assert not list(numbers.lines())


def test_numbers_outlive_a_restart(numbers, clock, tmp_path):
    statsd.take(numbers, b"a:2|c|#x:y\nb:0.3|h\nc:0.25|g")
    before = list(numbers.lines())
    registry.save(str(tmp_path / "state.json"), {"registry": numbers.saved()})
    again = Registry(clock)
    again.restore(registry.load(tmp_path / "state.json")["registry"])
    assert list(again.lines()) == before
    statsd.take(again, b"a:2|c|#x:y")
    assert shown(again, "a") == {'x="y"': "4"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"registry": [], "bounds": [1]}'])
def test_a_damaged_state_is_none(tmp_path, text):
    (tmp_path / "state.json").write_text(text, encoding="utf-8")
    assert registry.load(tmp_path / "state.json") == {}


def test_names_without_end_do_not_fill_the_memory(numbers, monkeypatch):
    monkeypatch.setattr(registry, "MOST_SERIES", 10)
    statsd.take(numbers, b"known:1|c\n" + b"\n".join(b"a:1|c|#id:%d" % n for n in range(50)))
    statsd.take(numbers, b"known:1|c")
    assert len(shown(numbers, "a")) < 10
    assert shown(numbers, "known") == {"": "2"}
    refused = 50 - len(shown(numbers, "a"))
    assert shown(numbers, "fastapi_exporter_lines_total")['result="refused"'] == str(refused)


# -- nginx's log -------------------------------------------------------------------------------------------------------


def entry(uri: str = "/items/1", status: int = 200, **more) -> bytes:
    line = {
        "method": "GET",
        "uri": uri,
        "status": status,
        "bytes_sent": 100,
        "request_time": 0.2,
        "cache": "",
        "upstream_response_time": "0.1",
        "limit": "",
        **more,
    }
    return json.dumps(line).encode() + b"\n"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "shop.access.log"
    path.write_bytes(entry())
    return path


def add(path: Path, *lines: bytes):
    with path.open("ab") as stream:
        stream.write(b"".join(lines))


def counted(numbers) -> dict[str, str]:
    return {labels: value for labels, value in shown(numbers, "nginx_http_requests_total").items() if value != "0"}


def requests(numbers) -> int:
    return sum(map(int, shown(numbers, "nginx_http_requests_total").values()))


def test_requests_count_by_site_method_status_and_prefix(numbers, log):
    watched = edge.Edge(numbers, str(log.parent))
    add(log, entry(), entry("/items?q=secret", 500), entry("/", 304), entry(method="BREW"), b"garbage\n", entry()[:-5])
    watched.step(0)
    assert counted(numbers) == {
        'method="GET",prefix="/items",site="shop",status="200"': "1",
        'method="GET",prefix="/items",site="shop",status="500"': "1",
        'method="GET",prefix="/",site="shop",status="304"': "1",
        'method="other",prefix="/items",site="shop",status="200"': "1",
    }
    assert shown(numbers, "fastapi_exporter_lines_total")['result="refused"'] == "1"
    assert shown(numbers, "nginx_http_response_bytes_total") == {'site="shop"': "400"}
    add(log, entry()[-5:])
    watched.step(0)
    assert requests(numbers) == 5


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("/", "/"),
        ("/items", "/items"),
        ("/v1/items", "/v1"),
        ("/robots.txt", "/robots.txt"),
        ("/sign-in/x", "/sign-in"),
        ("/5f2a9b", None),
        ("/12", None),
        ("/eyJhbGciOi.J9.abc123def", None),
        ("//evil", None),
        ("*", None),
        ("/%2e%2e", None),
        ("/" + "a" * 60, None),
    ],
)
def test_only_words_are_prefixes(uri, prefix):
    assert edge.segment(uri) == prefix


def test_prefixes_are_those_that_are_answered_and_not_too_many(numbers, log):
    watched = edge.Edge(numbers, str(log.parent))
    words = [f"/{first}{second}" for first in "abcdefgh" for second in "abcdefgh"]
    add(log, entry("/wp-admin", 404), entry("/login", 302), *[entry(word) for word in words])
    watched.step(0)
    found = {labels.split('prefix="')[1].split('"')[0] for labels in shown(numbers, "nginx_http_requests_total")}
    assert found == {*words[: edge.MOST_PREFIXES], "other"}
    assert requests(numbers) == len(words) + 2


def test_the_apps_time_is_that_of_all_tries_and_only_of_what_was_passed_on(numbers, log):
    watched = edge.Edge(numbers, str(log.parent))
    add(
        log,
        entry(upstream_response_time="0.1, 0.2 : 0.3"),
        entry(upstream_response_time="-"),
        entry(upstream_response_time=""),
    )
    watched.step(0)
    assert shown(numbers, "nginx_upstream_duration_seconds_count") == {'prefix="/items",site="shop"': "1"}
    assert float(shown(numbers, "nginx_upstream_duration_seconds_sum")['prefix="/items",site="shop"']) == pytest.approx(
        0.6
    )


def test_errors_at_the_edge_begin_at_nought(numbers, log):
    watched = edge.Edge(numbers, str(log.parent))
    add(log, entry())
    watched.step(0)
    assert shown(numbers, "nginx_http_requests_total")['method="GET",prefix="/items",site="shop",status="502"'] == "0"


def test_a_rotation_loses_no_line_and_counts_none_twice(numbers, log):
    watched = edge.Edge(numbers, str(log.parent))
    add(log, entry())
    watched.step(0)
    old = log.with_name("shop.access.log-20260101-1")
    add(log, entry())
    log.rename(old)
    add(old, entry())  # nginx has not opened its new one yet
    watched.step(1)
    add(log, entry())
    watched.step(2)
    add(old, entry())
    watched.step(3)
    assert requests(numbers) == 5
    watched.step(100)
    assert not watched.leaving


def test_a_restart_goes_on_where_it_was_also_in_a_log_that_was_rotated(numbers, log):
    watched = edge.Edge(numbers, str(log.parent))
    add(log, entry())
    watched.step(0)
    saved = json.loads(json.dumps(watched.saved()))
    add(log, entry())
    log.rename(log.with_name("shop.access.log-20260101-1"))
    add(log, entry(), entry())
    again = edge.Edge(numbers, str(log.parent), saved)
    again.step(0)
    again.step(1)
    assert requests(numbers) == 4
    assert again.prefixes == {"shop": {"/items"}}


def test_a_log_that_was_emptied_is_read_from_its_beginning(numbers, log):
    watched = edge.Edge(numbers, str(log.parent))
    os.truncate(log, 0)
    watched.step(0)
    add(log, entry())
    watched.step(0)
    assert requests(numbers) == 1


# -- Releases and certificates -----------------------------------------------------------------------------------------


def test_releases_are_told_by_what_became_of_them(tmp_path):
    one, two = "20260101T000000Z-aaaaaaaaaaaa", "20260102T000000Z-bbbbbbbbbbbb"
    lines = [
        {
            "action": "deploy",
            "release": one,
            "version": "v1",
            "revision": "abc",
            "outcome": "good",
            "time": "2026-01-01T00:00:00Z",
        },
        {
            "action": "deploy",
            "release": two,
            "version": "v2",
            "revision": "def",
            "outcome": "failed",
            "phase": "guard",
            "time": "2026-01-02T00:00:00Z",
        },
    ]
    (tmp_path / "shop").mkdir()
    (tmp_path / "git").mkdir()
    history = tmp_path / "shop/history.jsonl"
    history.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (tmp_path / "shop/live.sock").symlink_to(f"/run/shop/{one}.sock")
    known = releases.Releases(str(tmp_path))
    told = {name: dict(values) for name, _kind, values in known.values()}
    app = ("app", "shop")
    assert told["fastapi_release_info"] == {(app, ("release", one), ("revision", "abc"), ("version", "v1")): 1}
    assert told["fastapi_deploys_total"] == {
        (("action", "deploy"), app, ("outcome", "good")): 1,
        (("action", "deploy"), app, ("outcome", "failed")): 1,
        (("action", "rollback"), app, ("outcome", "good")): 0,
        (("action", "rollback"), app, ("outcome", "failed")): 0,
    }
    assert told["fastapi_deploy_guard_breaches_total"] == {(app,): 1}
    assert told["fastapi_deploy_timestamp_seconds"][(("action", "deploy"), app, ("outcome", "failed"))] == 1767312000
    with history.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**lines[0], "action": "rollback"}) + "\n")
    assert (
        dict(next(v for n, _k, v in known.values() if n == "fastapi_deploys_total"))[
            (("action", "rollback"), app, ("outcome", "good"))
        ]
        == 1
    )


def test_certificates_are_those_that_sites_name():
    text = """server { listen 443 ssl; server_name www.example.com old.example.com;
    ssl_certificate tls/shop/fullchain.pem; ssl_certificate_key tls/shop/privkey.pem; }
    server { listen 80; server_name shop.example.com; }"""
    assert sites(text) == [("shop", "www.example.com", False)]
    assert sites(text.replace("443 ssl", "443 ssl proxy_protocol")) == [("shop", "www.example.com", True)]


def test_a_certificate_is_described_by_its_dates_and_its_issuer():
    key = ec.generate_private_key(ec.SECP256R1())
    name, issuer = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in ("shop", "CA"))
    begins = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)

    def made(by):
        builder = x509.CertificateBuilder(by, name, key.public_key(), 1, begins, begins + datetime.timedelta(days=90))
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    assert describe(made(name)) == {"begins": 1767312000, "expires": 1775088000, "self_signed": True}
    assert describe(made(issuer))["self_signed"] is False
