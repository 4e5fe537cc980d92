# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exporter's arithmetic: what lines make of numbers, and what of it is shown, kept and forgotten."""

from __future__ import annotations

import asyncio
import datetime
import importlib.util
import json
import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi_exporter import edge, page, registry, releases, senders, statsd
from fastapi_exporter.certificates import describe, sites

SHOP, BLOG, ROOT = 990, 991, 0
SHELL = "/usr/sbin/nologin"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Passwd:
    """Accounts of a host, which come and go."""

    def __init__(self):
        self.accounts = {}
        self.asked = 0
        self.add("shop", SHOP)
        self.add("blog", BLOG)

    def add(self, name, uid, comment="FastAPI app", home="/nonexistent"):
        self.accounts[uid] = SimpleNamespace(pw_name=name, pw_uid=uid, pw_gecos=comment, pw_dir=home, pw_shell=SHELL)

    def by_uid(self, uid):
        self.asked += 1
        return self.accounts[uid]

    def by_name(self, name):
        return {account.pw_name: account for account in self.accounts.values()}[name]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def passwd():
    return Passwd()


@pytest.fixture
def numbers(clock):
    return registry.Registries("site", clock)


@pytest.fixture
def intake(clock, passwd):
    accounts = senders.Accounts(clock, passwd.by_uid, passwd.by_name)
    return statsd.Intake(registry.Registries("app", clock, room=statsd.room), accounts)


@pytest.fixture
def send(intake):
    def send(datagram: bytes | str, uid: int = SHOP):
        intake.take(datagram.encode() if isinstance(datagram, str) else datagram, uid)

    return send


def shown(source, name: str) -> dict[str, str]:
    """Samples of a metric: the text between the braces, and the number."""
    lines = source.registries.lines() if isinstance(source, statsd.Intake) else source.lines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith((name + "{", name + " "))]
    return {labels.removeprefix(name).strip("{}"): value for labels, value in pairs}


def outcome(intake, app: str = "shop") -> dict[str, int]:
    """What became of the lines of an app."""
    found = {}
    for labels, value in shown(intake, "fastapi_exporter_lines_total").items():
        pairs = dict(pair.split("=") for pair in labels.replace('"', "").split(","))
        if pairs["app"] == app and value != "0":
            found[pairs.get("reason", pairs["result"])] = int(value)
    return found


# -- What is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "labels", "value"),
    [
        ("a:1|c", "a", "", "1"),
        ("a:1|c|@0.25|#x:y", "a", ',x="y"', "4"),
        ("a:1:2:3|c", "a", "", "6"),
        ("a.b-c:2|g|#z:1,b:2", "a_b_c", ',b="2",z="1"', "2"),
        ("a:0.5|c", "a", "", "0.5"),
        ("a:1|c|#flag", "a", ',flag=""', "1"),
        ("a:1|c|c:id|#x:a:b", "a", ',x="a:b"', "1"),
        ('a:1|c|#x:"q"\\', "a", r',x="\"q\"\\"', "1"),
        ("a:1|c|#x:\x1b]0;title\x07", "a", ',x="_]0;title_"', "1"),
    ],
)
def test_a_line_is_a_number_with_labels(intake, send, line, name, labels, value):
    send(line)
    assert shown(intake, name) == {'app="shop"' + labels: value}
    assert outcome(intake) == {"counted": 1}


@pytest.mark.parametrize(
    "line",
    [
        *("a", "a:1", ":1|c", "1a:1|c", "a:x|c", "a:1|q", "a:-1|c", "a:nan|g", "a:inf|c", "a:1|c|@0", "a:1|c|@2"),
        *("a:1|c|#le:1", "a:1|c|#__name__:b", "a:1|c|#" + ",".join(f"t{n}:1" for n in range(13))),
        *("a" * 101 + ":1|c", "a:1|c|#" + "t" * 101 + ":1"),
        "a:1|c|#" + ",".join(f"t{n}:{'v' * 200}" for n in range(4)),
        "a:1|c|@1e-300",
        # Prometheus refuses a whole page for a number that is too large for it.
        "a:1" + "0" * 308 + "|c",
    ],
)
def test_what_is_no_line_is_counted_as_that_and_harms_nothing(intake, send, line):
    send(f"before:1|c\n{line}\nafter:1|c")
    assert outcome(intake) == {"counted": 2, "malformed": 1}
    assert not shown(intake, "a")


def test_a_metric_stays_what_it_was(intake, send):
    send("a:1|c\na:5|g\na:1|h")
    assert shown(intake, "a") == {'app="shop"': "1"}
    assert outcome(intake) == {"counted": 1, "kind": 2}


@pytest.mark.parametrize("lines", ["a:1|h\na_count:1|c", "a_sum:1|g\na:1|h"])
def test_a_name_is_not_a_part_of_another(intake, send, lines):
    send(lines)
    assert outcome(intake) == {"counted": 1, "kind": 1}


def test_gauges_can_change_by_a_difference(intake, send):
    send("a:5|g\na:+2|g\na:-3|g")
    assert shown(intake, "a") == {'app="shop"': "4"}


def test_a_histogram_counts_an_observation_as_often_as_its_rate_says(intake, send):
    send(f"a:0.02|h|@{1 / 49!r}\na:0.005|h\na:31000|ms")
    buckets = shown(intake, "a_bucket")
    assert [buckets[f'app="shop",le="{le}"'] for le in ("0.005", "0.01", "0.025", "30.0", "+Inf")] == [
        *("1", "1", "50", "50", "51")
    ]
    assert shown(intake, "a_count") == {'app="shop"': "51"}
    assert float(shown(intake, "a_sum")['app="shop"']) == pytest.approx(0.98 + 0.005 + 31)


@pytest.mark.parametrize("count", [*range(1, 200), 4096, 99991])
def test_the_rate_of_any_count_is_that_count(intake, send, count):
    send(f"a:0.02|h|@{1 / count!r}")
    assert shown(intake, "a_count") == {'app="shop"': str(count)}


def test_exits_of_workers_begin_at_0(intake, send):
    alive = "fastapi_workers:1|g|#app:shop,release:r,worker:0,state:serving"
    send(alive)
    assert shown(intake, "fastapi_worker_exits_total")['app="shop",reason="oom"'] == "0"
    send("fastapi_worker_exits_total:1|c|#app:shop,reason:oom")
    send(alive)
    assert shown(intake, "fastapi_worker_exits_total")['app="shop",reason="oom"'] == "1"


def test_errors_begin_at_0_as_soon_as_a_route_is_known(intake, send):
    send("fastapi_http_requests_total:3|c|#app:shop,method:GET,route:/,status:200")
    found = {
        'app="shop",method="GET",route="/",status="200"': "3",
        'app="shop",method="GET",route="/",status="500"': "0",
    }
    assert shown(intake, "fastapi_http_requests_total") == found
    send("fastapi_http_requests_total:2|c|#app:shop,method:GET,route:/,status:500")
    assert shown(intake, "fastapi_http_requests_total")['app="shop",method="GET",route="/",status="500"'] == "2"


# -- Who sends it ------------------------------------------------------------------------------------------------------


def test_an_app_is_named_by_the_kernel(intake, send):
    send("a:1|c")
    send("a:2|c|#app:blog", BLOG)
    assert shown(intake, "a") == {'app="shop"': "1", 'app="blog"': "2"}


def test_an_app_writes_for_no_other(intake, send):
    send("fastapi_http_requests_total:5000|c|#app:blog,method:GET,route:/,status:500\na:1|c|#app:blog")
    assert not shown(intake, "fastapi_http_requests_total") and not shown(intake, "a")
    assert outcome(intake) == {"app": 2}


@pytest.mark.parametrize(
    ("name", "comment", "home"),
    [
        ("root", "FastAPI app", "/nonexistent"),
        ("alice", "Alice", "/home/alice"),
        # A person can be given any comment, and daemons have this home too.
        ("carol", "FastAPI app", "/home/carol"),
        ("daemon", "", "/nonexistent"),
    ],
)
def test_only_accounts_of_apps_are_heard(intake, passwd, send, name, comment, home):
    uid = ROOT if name == "root" else 1000
    passwd.add(name, uid, comment, home)
    send("a:1|c\nb:1|c", uid)
    send("a:1|c", 4711)
    assert not shown(intake, "a")
    assert outcome(intake, "") == {"sender": 3}


def test_accounts_are_asked_for_seldom_and_new_ones_are_found(intake, passwd, clock, send):
    for _ in range(50):
        send("a:1|c", 992)
    assert passwd.asked == 1
    passwd.add("late", 992)
    clock.now += senders.HOLDS
    send("a:1|c", 992)
    assert shown(intake, "a") == {'app="late"': "1"}
    # The user id of an app that is gone becomes another's.
    passwd.add("later", 992)
    clock.now += senders.HOLDS
    send("b:1|c", 992)
    assert shown(intake, "b") == {'app="later"': "1"}


@pytest.mark.parametrize(
    "line",
    [
        *("up:0|g", "ALERTS:1|g|#alertname:Watchdog", "node_vmstat_oom_kill:0|g", "nginx_http_requests_total:1|c"),
        *("fastapi_certificate_served:0|g|#name:blog", "fastapi_release_info:1|g", "fastapi_exporter_lines_total:1|c"),
        *("prometheus_rule_evaluation_failures_total:9|c", "alertmanager_notifications_failed_total:9|c", "nginx:1|h"),
        # Those of the worker in another form than the worker's.
        "fastapi_http_requests_total:1|g|#method:GET,route:/,status:200",
        "fastapi_http_requests_total:1|c|#method:GET,route:/,status:200,instance:other",
        "fastapi_http_requests_total:1|c|#method:GET,status:200",
        "fastapi_http_requests_total:1|c|#method:EVIL,route:/,status:200",
        "fastapi_http_requests_total:1|c|#method:GET,route:/,status:made-up",
        "fastapi_workers:1|g|#release:r,worker:0,state:dancing",
        "fastapi_workers:1|g|#release:r,worker:x,state:serving",
        "fastapi_worker_exits_total:1|c|#reason:made-up",
        "fastapi_streams_open:1|g|#release:r,worker:0,kind:udp",
    ],
)
def test_names_of_the_stack_are_not_for_apps(intake, send, line):
    send(line)
    assert outcome(intake) == {"reserved": 1}


def test_rules_and_dashboards_trust_no_name_that_an_app_may_send():
    folder = Path(__file__).parents[2] / "roles/monitoring/files"
    texts = [path.read_text(encoding="utf-8") for path in (folder / "prometheus/rules").iterdir()]
    texts.append((folder / "dashboards.yml").read_text(encoding="utf-8"))
    metric = re.compile(r"\b([a-z]+(?:_[a-z0-9]+)+)\s*(?:\{|\[\d|\[\$)")
    named = {name for text in texts for name in metric.findall(text)} | {"up"}
    assert {"node_vmstat_oom_kill", "fastapi_deploy_guard_breaches_total", "nginx_http_requests_total"} <= named
    assert {name for name in named if not statsd.RESERVED.match(name)} <= {"process_start_time_seconds"}


@pytest.fixture
def module():
    path = Path(__file__).parents[2] / "roles/gunicorn_app/files/fastapi_metrics.py"
    spec = importlib.util.spec_from_file_location("fastapi_metrics", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_every_line_of_the_worker_module_is_taken(intake, send, module):
    sent = []
    worker = "app:shop,release:20260101T000000Z-aaaaaaaaaaaa,worker:3"
    metrics = module.Metrics(lambda text: sent.append(text) or True, {"app": "app:shop", "worker": worker})
    for number, (method, status) in enumerate([("GET", 200), ("PURGE", 404), ("POST", 999), ("GET", 101)]):
        metrics.observe({"path": "/"}, method, status, number)
        metrics.observe({"route": SimpleNamespace(path="/items/{id}")}, method, status, number)
    for _ in range(2):
        list(metrics.flush())
    sent += [f"fastapi_worker_exits_total:1|c|#app:shop,reason:{reason}" for reason in statsd.EXITS]
    for datagram in sent:
        send(datagram)
    assert set(outcome(intake)) == {"counted"} and outcome(intake)["counted"] > 30


def test_a_worker_finds_the_moments_that_a_flood_leaves_to_it(module):
    """The queue of the listener has room once in a while."""
    tries = []
    metrics = module.Metrics(lambda text: tries.append(text) or len(tries) % 4 == 0, {"app": "app:shop", "worker": ""})
    metrics.observe({}, "GET", 200, 0.1)

    async def main():
        running = asyncio.create_task(metrics.run())
        await asyncio.sleep(0.9)
        running.cancel()

    asyncio.run(main())
    assert not metrics.requests and metrics.told


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "statsd.sock"))
        found.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        found.settimeout(5)
        yield found


def test_the_kernel_names_the_sender_and_gives_nothing_else(listener):
    descriptors = os.listdir("/proc/self/fd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(listener.getsockname())
        sender.send(b"a:1|c")
        assert senders.receive(listener) == (b"a:1|c", os.getuid())
        # Descriptors that are sent along are not taken: they would add up to all that the exporter may have.
        for _ in range(3):
            socket.send_fds(sender, [b"b:1|c"], [0, 1])
            assert senders.receive(listener) == (b"b:1|c", os.getuid())
        sender.send(b"c:1|c\n" * 12000)
        assert senders.receive(listener) == (None, os.getuid())
    assert os.listdir("/proc/self/fd") == descriptors


# -- What is kept ------------------------------------------------------------------------------------------------------


def test_workers_that_say_no_more_are_gone_and_what_they_counted_stays(intake, send, clock):
    send("busy:3|g|#worker:0\nqueue:3|g\ndone:3|c|#worker:0")
    clock.now += registry.FRESH + 1
    assert (shown(intake, "busy"), shown(intake, "queue")) == ({}, {'app="shop"': "3"})
    assert shown(intake, "done") == {'app="shop",worker="0"': "3"}
    clock.now += registry.REMEMBERED
    assert not shown(intake, "queue") and not shown(intake, "done")


def kept(intake, tmp_path) -> dict:
    registry.save(str(tmp_path / "state.json"), {"registry": intake.registries.saved()})
    return registry.load(tmp_path / "state.json")["registry"]


def again(intake, saved):
    """The exporter after a restart."""
    old = intake.registries
    new = statsd.Intake(registry.Registries("app", old.clock, old.most, statsd.room), intake.accounts)
    new.restore(saved)
    return new


def test_numbers_outlive_a_restart(intake, send, tmp_path):
    send("a:2|c|#x:y\nb:0.3|h\nc:0.25|g")
    before = list(intake.registries.lines())
    new = again(intake, kept(intake, tmp_path))
    assert list(new.registries.lines()) == before
    new.take(b"a:2|c|#x:y", SHOP)
    assert shown(new, "a") == {'app="shop",x="y"': "4"}


def test_numbers_of_the_exporter_before_are_kept_as_far_as_they_are_true(intake):
    def series(metric, kind, value, **labels):
        return [metric, kind, [[sorted(labels.items()), value, 999.0]]]

    new = again(
        intake,
        [
            series("fastapi_http_requests_total", "counter", 7, app="shop", method="GET", route="/", status="200"),
            series("orders_total", "counter", 3, app="shop", plan="pro"),
            series("orders_total", "counter", 3),
            series("up", "gauge", 0, app="shop"),
            series("fastapi_certificate_served", "gauge", 0, app="shop", name="blog"),
            series("orders_total", "counter", 3, app="nobody"),
        ],
    )
    assert shown(new, "fastapi_http_requests_total") == {'app="shop",method="GET",route="/",status="200"': "7"}
    assert shown(new, "orders_total") == {'app="shop",plan="pro"': "3"}
    assert not shown(new, "up") and not shown(new, "fastapi_certificate_served")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"registry": [], "bounds": [1]}'])
def test_a_damaged_state_is_none(tmp_path, text):
    (tmp_path / "state.json").write_text(text, encoding="utf-8")
    assert registry.load(tmp_path / "state.json") == {}


@pytest.fixture
def flooded(intake, send):
    """An app has made up as many series as it could."""
    intake.registries.most = 100
    send("known:1|c")
    for part in range(20):
        send("\n".join(f"a:1|c|#id:{part * 20 + n}" for n in range(20)))
    return intake


def test_made_up_series_are_bounded_and_counted(flooded, send):
    send("known:1|c")
    assert len(shown(flooded, "a")) == 99
    assert shown(flooded, "known") == {'app="shop"': "2"}
    assert outcome(flooded) == {"counted": 101, "series": 301}
    assert shown(flooded, "fastapi_exporter_series") == {'app="shop"': "100"}


def test_made_up_series_keep_no_other_app_from_counting_also_after_a_restart(flooded, tmp_path):
    for exporter in (flooded, again(flooded, kept(flooded, tmp_path))):
        exporter.take(b"fastapi_http_requests_total:1|c|#app:blog,method:GET,route:/new,status:200", BLOG)
        assert outcome(exporter, "blog") in ({"counted": 1}, {"counted": 2})
        exporter.take(b"a:1|c|#id:new", SHOP)
        assert len(shown(exporter, "a")) == 99


def test_made_up_series_do_not_take_the_place_of_the_apps_own_workers(flooded, send, clock):
    send("\n".join(f"name{n}:1|c" for n in range(600)))
    send("fastapi_workers:1|g|#release:new,worker:0,state:serving")
    assert shown(flooded, "fastapi_workers") == {'app="shop",release="new",state="serving",worker="0"': "1"}


def test_a_histogram_takes_as_many_places_as_prometheus_makes_of_it(intake, send):
    intake.registries.most = 100
    send("\n".join(f"a:1|h|#id:{n}" for n in range(50)))
    assert len(shown(intake, "a_count")) == 6


def test_series_that_come_and_go_are_bounded_too(intake, send, clock):
    """Each of them stays in the memory of Prometheus for hours."""
    intake.registries.most = 100
    made = set()
    for second in range(0, 120, 6):
        clock.now += 6
        send("\n".join(f"a:1|g|#worker:{second * 100 + n}" for n in range(100)))
        made |= set(shown(intake, "a"))
    assert len(made) == 100
    clock.now += registry.RENEWED / 2
    send("\n".join(f"a:1|g|#worker:{n}-later" for n in range(100)))
    assert len(shown(intake, "a")) == 50


def test_series_do_not_add_up_over_days(intake, send, clock):
    intake.registries.most = 100
    for day in range(5):
        send("\n".join(f"a:1|c|#id:{day}-{n}" for n in range(100)))
        clock.now += registry.RENEWED
    assert len(shown(intake, "a")) == 100


def test_names_are_bounded(intake, send):
    for part in range(10):
        send("\n".join(f"a{part}_{n}:1|c" for n in range(100)))
    assert outcome(intake) == {"counted": registry.MOST_NAMES, "names": 1000 - registry.MOST_NAMES}
    send("fastapi_http_requests_total:1|c|#method:GET,route:/,status:200", BLOG)
    assert outcome(intake, "blog") == {"counted": 1}


def test_one_app_decides_for_no_other_what_a_name_is(intake, send):
    send("orders_total:1|g")
    send("orders_total:0.3|h", BLOG)
    assert shown(intake, "orders_total") == {'app="shop"': "1"}
    assert shown(intake, "orders_total_count") == {'app="blog"': "1"}
    assert "# TYPE orders_total" not in "\n".join(intake.registries.lines())


def test_lines_a_second_are_bounded(intake, send, monkeypatch):
    now = Clock()
    monkeypatch.setitem(intake.allowances, "shop", senders.Allowance(now))
    datagram = "a:1|c\n" * 999 + "a:1|c"
    for _ in range(100):
        send(datagram)
    found = outcome(intake)
    assert found["counted"] + found["rate"] == 100_000
    assert senders.BURST * 0.9 < found["counted"] <= senders.BURST
    send("a:1|c", BLOG)
    assert outcome(intake, "blog") == {"counted": 1}
    now.now += 1
    send("a:1|c")
    assert outcome(intake)["counted"] == found["counted"] + 1


def test_many_who_ask_at_once_get_one_page():
    made = []

    def lines():
        made.append(True)
        time.sleep(0.1)
        return ["a 1"]

    shared = page.Page(lines)
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(lambda _: shared.read(), range(20))) == {b"a 1\n"}
    assert len(made) == 1


def test_apps_are_counted_while_a_page_is_made(intake, send, monkeypatch):
    held = []
    monkeypatch.setattr(registry, "shown", lambda _labels: held.append(intake.registries.lock.locked()) or "")
    send("a:1|c\nb:1|h")
    intake.registries.lines()
    assert held and not any(held)


def test_reasons_begin_at_0(intake, send):
    send("a:1|c")
    assert shown(intake, "fastapi_exporter_lines_total")['app="shop",reason="series",result="refused"'] == "0"


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


def test_one_site_takes_no_place_of_another(numbers, log):
    """A site that answers with each status that there is."""
    numbers.most = 200
    (log.parent / "blog.access.log").touch()
    watched = edge.Edge(numbers, str(log.parent))
    add(log, *[entry(f"/{word}", status) for word in ("a", "b", "c") for status in range(200, 600)])
    watched.step(0)
    add(log.parent / "blog.access.log", entry("/new"))
    watched.step(0)
    assert {key: value for key, value in counted(numbers).items() if "blog" in key} == {
        'method="GET",prefix="/new",site="blog",status="200"': "1"
    }
    assert len(counted(numbers)) < 200


def test_what_is_no_log_is_not_waited_for(numbers, log):
    os.mkfifo(log.parent / "pipe.access.log")
    (log.parent / "link.access.log").symlink_to(log)
    watched = edge.Edge(numbers, str(log.parent))
    add(log, entry())
    watched.step(0)
    assert requests(numbers) == 1


def test_a_line_without_end_does_not_stop_the_counting(numbers, log, monkeypatch):
    monkeypatch.setattr(edge, "CHUNK", 1000)
    watched = edge.Edge(numbers, str(log.parent))
    add(log, b"x" * 2500 + b"\n", entry())
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
    known = releases.Releases(str(tmp_path), os.getuid())
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


@pytest.fixture
def released(tmp_path):
    """The labels of an app's live release, by what its history says."""
    release = "20260101T000000Z-aaaaaaaaaaaa"
    base = tmp_path / "shop"
    base.mkdir()
    (base / "live.sock").symlink_to(f"/run/shop/{release}.sock")

    def labels(**more):
        line = {"action": "deploy", "outcome": "good", "time": "2026-01-01T00:00:00Z", "release": release, **more}
        (base / "history.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
        told = {name: values for name, _kind, values in releases.Releases(str(tmp_path), os.getuid()).values()}
        return [dict(labels) for labels, _value in told["fastapi_release_info"]]

    labels.base = base
    return labels


@pytest.mark.parametrize(
    "version",
    [
        "shop @ https://user:s33d@pypi.example.com/shop-1.0-py3-none-any.whl",
        "https://oauth2:s33d@git.example.com/shop.git",
        "git+ssh://s33d@git.example.com/shop",
        "v1 s33d",
        "s33d\x1b]0;title\x07",
        "s33d" * 100,
        ["s33d"],
    ],
)
def test_an_address_or_what_is_no_version_is_not_a_label(released, version):
    (labels,) = released(version=version, revision=version)
    assert labels["version"] == labels["revision"] == "(not shown)"


@pytest.mark.parametrize("version", ["v1.4.2", "main", "feature/x", "shop==1.2.3", "0f" * 20, "1.0+local.1"])
def test_a_version_is_a_label(released, version):
    (labels,) = released(version=version)
    assert labels["version"] == version


def test_what_somebody_lays_at_the_place_of_a_history_is_not_read(released, tmp_path):
    released()
    history = released.base / "history.jsonl"
    secret = tmp_path / "secret"
    history.rename(secret)

    def apps(owner=None):
        return list(releases.Releases(str(tmp_path), os.getuid() if owner is None else owner).apps())

    history.symlink_to(secret)
    assert apps() == []
    history.unlink()
    os.mkfifo(history)
    assert apps() == []
    history.unlink()
    secret.rename(history)
    assert [name for name, _entries in apps()] == ["shop"]
    assert apps(owner=os.getuid() + 1) == []


def test_names_and_fields_that_no_release_has_do_not_stop_the_others(released, tmp_path):
    (tmp_path / "a\nup 0").mkdir()
    (tmp_path / "a\nup 0/history.jsonl").write_text("{}\n", encoding="utf-8")
    assert len(released(action=["deploy"], outcome={"good": 1}, time=7)) == 1
    assert [name for name, _entries in releases.Releases(str(tmp_path), os.getuid()).apps()] == ["shop"]
    (released.base / "live.sock").unlink()
    (released.base / "live.sock").symlink_to('/etc/x"\n.sock')
    assert released() == []


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


def test_a_damaged_line_takes_no_other_with_it(released):
    lines = ["{", "[" * 100_000, "null", json.dumps({"action": "deploy", "outcome": "good"}), '{"action": "dep']
    (released.base / "history.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = releases.history(str(released.base / "history.jsonl"), os.geteuid())
    assert found == [{"action": "deploy", "outcome": "good"}]
