# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement over a release: which requests count, and how much worse than before is too much."""

from __future__ import annotations

import itertools
import json
import os
import random

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host.guard import (
    AccessLog,
    Request,
    Traffic,
    compared,
    judge,
    network,
    parse,
    percentile,
    shown,
)

SETTINGS = {"requests": 20, "error_rate": 0.02, "latency": 3.0, "latency_floor": 0.5}


def line(ended, seconds=0.01, status=200, upstream="unix:/srv/shop/live.sock", **changes):
    entry = {"msec": ended, "request_time": seconds, "status": status, "upstream_addr": upstream, "method": "GET",
             "uri": "/x?secret=1"}
    return json.dumps({**entry, **changes}) + "\n"


def traffic(good=0, bad=0, seconds=0.01, status=500, network=""):
    taken = max(seconds, 1) if status == 499 else seconds
    requests = [Request(0, seconds, 200, "GET /x", network)] * good
    requests += [Request(0, taken, status, "GET /x", network)] * bad
    return Traffic(requests, 10)


def test_a_line_of_the_log_is_a_request_without_its_query():
    assert parse(line(100.5, 0.5, 503)) == Request(100.0, 0.5, 503, "GET /x")


@pytest.mark.parametrize(
    "text",
    [
        *("", "no json", "[]", "{}", "1", "[" * 100_000),
        *(line(1, upstream=""), line(1, upstream=None), line(1, upstream=["x"]), line(1, upstream={"a": 1})),
        *(line("x"), line(float("nan")), line(1, float("inf")), line(1, status=None), line(1, status=1e400)),
    ],
)
def test_what_says_nothing_about_the_app_is_left_out(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    "before, after, wrong",
    [
        (traffic(1000), traffic(90, 10), True),
        (traffic(1000), traffic(99, 1), False),
        (traffic(1000), traffic(998, 2), False),
        (traffic(100), traffic(10, 5), False),
        (traffic(80, 20), traffic(79, 21), False),
        (traffic(80, 20), traffic(70, 30), True),
        (traffic(1000), traffic(0, 20, status=499), True),
        (traffic(1000), traffic(0, 20, status=404), False),
        (traffic(1), traffic(0, 20), True),
    ],
)
def test_errors_are_judged_against_those_before(before, after, wrong):
    assert bool(judge(before, after, SETTINGS, final=False)) is wrong


def test_a_judgement_over_errors_names_the_numbers_and_the_requests():
    said = judge(traffic(1000), traffic(80, 20), SETTINGS, final=False)
    assert said.startswith("20 of 100 requests after the switch failed (20.0%), 0 of 1000 before it (0.0%)")
    assert said.endswith("20 x 500 for GET /x")


@pytest.mark.parametrize(
    "before, after, final, wrong",
    [
        (traffic(100, seconds=0.2), traffic(100, seconds=0.7), True, True),
        (traffic(100, seconds=0.2), traffic(100, seconds=0.7), False, False),
        (traffic(100, seconds=0.2), traffic(100, seconds=0.55), True, False),
        (traffic(100, seconds=0.01), traffic(100, seconds=0.4), True, False),
        (traffic(10, seconds=0.2), traffic(100, seconds=0.7), True, False),
        (traffic(100, seconds=0.2), traffic(100, seconds=20), True, False),
    ],
)
def test_latency_is_judged_at_the_end_against_that_before(before, after, final, wrong):
    assert bool(judge(before, after, SETTINGS, final)) is wrong


def test_a_percentile_is_a_value_that_was_there():
    assert percentile(list(range(1, 101)), 0.95) == 95
    assert percentile([7], 0.95) == 7
    assert percentile([], 0.95) == 0


def test_websockets_have_no_latency():
    assert Traffic([Request(0, 9, 101, "GET /ws"), Request(0, 0.1, 200, "GET /")], 10).p95 == 0.1


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "access.log"
    path.write_text("".join(line(number, 0) for number in range(1000)))
    return path


def test_the_log_is_read_from_a_time_on_and_then_on(log):
    reader = AccessLog(str(log))
    assert [item.begun for item in reader.recent(990)] == list(range(990, 1000))
    assert reader.more() == []
    with log.open("a") as stream:
        stream.write(line(1001, 0) + line(1002, 0)[:20])
    assert [item.begun for item in reader.more()] == [1001]
    with log.open("a") as stream:
        stream.write(line(1002, 0)[20:])
    assert [item.begun for item in reader.more()] == [1002]


def test_the_log_is_followed_over_a_rotation(log):
    reader = AccessLog(str(log))
    reader.recent(990)
    os.rename(log, f"{log}.1")
    log.write_text(line(1001, 0))
    assert [item.begun for item in reader.more()] == [1001]


def test_a_large_log_is_read_from_its_end(tmp_path):
    path = tmp_path / "access.log"
    path.write_text("".join(line(number, 0, padding="x" * 900) for number in range(5000)))
    assert len(AccessLog(str(path)).recent(4990)) == 10
    assert len(AccessLog(str(path)).recent(1000)) == 4000


def test_without_a_log_there_is_nothing_to_judge_by(tmp_path):
    reader = AccessLog(str(tmp_path / "no.log"))
    assert reader.recent(0) == reader.more() == []


# -- what users, and others, do ---------------------------------------------------------------------------------------


def requests(networks, each=1, status=200, seconds=0.01, what="GET /x", waited=None):
    return [Request(0, seconds, status, what, str(net), waited) for net in networks for _number in range(each)]


def judged(before, after, final=True):
    return judge(Traffic(before, 10), Traffic(after, 10), SETTINGS, final)


MANY = range(10)
BUSY = requests(MANY, 100)


def test_streams_that_a_client_resets_are_no_failures():
    """HTTP/2 rapid reset at low traffic: 30 of 33 requests."""
    after = requests([0], 30, status=499, seconds=0.02) + requests([1, 2, 3])
    assert judged(requests(range(3), 20), after) == ""
    assert judged(BUSY, after) == ""


def test_resets_neither_hide_nor_thin_out_real_failures():
    resets = requests(["z"], 10_000, status=499, seconds=0.0)
    assert judged(BUSY, requests(MANY, 5, status=500) + requests(MANY, 20) + resets) != ""
    assert judged(BUSY, requests(MANY, 1, status=500) + resets) == "", "ten requests are too few to judge by"


def test_an_app_that_hangs_is_found():
    after = requests(MANY, 5, status=499, seconds=3)
    assert "50 of 50 requests after the switch failed" in judged(BUSY, after)
    assert judged(requests([0], 60), requests([0], 30, status=499, seconds=3)) != "", "an office behind one address"


def test_how_long_a_client_waits_follows_from_the_latency_before():
    slow = requests(MANY, 100, seconds=1.0)
    assert judged(slow, requests(MANY, 5, status=499, seconds=2.5)) == "", "they do not wait three times as long"
    assert judged(slow, requests(MANY, 5, status=499, seconds=3.5)) != ""


def test_a_client_that_was_slow_itself_has_not_waited_for_the_app():
    uploads = requests(MANY, 5, status=499, seconds=60, waited=0.01)
    assert judged(BUSY, uploads + requests(MANY, 5)) == ""
    assert judged(BUSY, requests(MANY, 5, status=499, seconds=60, waited=9)) != ""


def test_clients_that_give_up_as_often_as_before_say_nothing():
    impatient = requests(MANY, 10, status=499, seconds=2)
    assert judged(BUSY + impatient, requests(MANY, 10) + requests(MANY, 1, status=499, seconds=2)) == ""


@pytest.mark.parametrize("status, seconds", [(500, 0.01), (503, 0.01), (499, 5)])
def test_one_network_cannot_send_a_release_back(status, seconds):
    attack = requests([0], 500, status=status, seconds=seconds, what="GET /always-fails")
    assert judged(BUSY, requests(MANY, 5) + attack) == ""
    assert judged(BUSY, requests(MANY, 5) + [item._replace(network="new") for item in attack]) == ""


def test_one_network_cannot_send_a_release_back_by_slow_requests():
    attack = requests([0], 500, seconds=5, what="GET /report")
    assert judged(BUSY, requests(MANY, 5) + attack) == ""
    assert judged(BUSY, requests(MANY, 5, seconds=2) + attack) != ""


def test_what_fails_for_everybody_is_found_also_where_one_network_asks_most():
    office = requests([0], 40, status=500)
    assert judged(BUSY, office + requests(range(1, 6), 1, status=500)) != ""
    assert judged(BUSY, office + requests(range(1, 6), 2)) == ""


def test_two_networks_can():
    assert judged(BUSY, requests(MANY, 5) + requests([0, 1], 20, status=500)) != ""


def test_with_few_networks_before_each_counts():
    assert judged(requests([0], 60), requests([0], 10, status=500) + requests([0], 10)) != ""
    assert judged(requests(range(3), 20), requests([0], 10, status=500) + requests([1], 10)) != ""
    assert judged(requests([""], 60), requests([""], 20, status=500)) != "", "addresses that are not known"


def test_the_facts_are_those_that_were_judged():
    resets = requests([0], 30, status=499, seconds=0.3)
    before, after = compared(Traffic(BUSY, 10), Traffic(resets + requests(MANY, 1, 500), 10), SETTINGS)
    assert (before.facts()["errors"], after.facts()) == (0, {"requests": 10, "errors": 10, "p95": 0.01})


@pytest.mark.parametrize(
    "client, found",
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        *((client, "") for client in ("unix:", "", None, 3221225985, [], "192.0.2.777")),
    ],
)
def test_the_network_of_a_client(client, found):
    assert network(client) == found


def test_a_line_has_the_network_and_the_time_that_the_app_took():
    text = line(100.5, 9, 499, client="192.0.2.1", upstream_response_time="0.250, 0.500")
    assert parse(text)[4:] == ("192.0.2.0/24", 0.75)
    for unknown in ("", "-", None, "x", [], {}, "nan"):
        assert parse(line(100.5, 9, 499, upstream_response_time=unknown)).waited is None


def test_another_apps_line_in_a_shared_log_is_left_out():
    assert parse(line(1), "shop")
    assert parse(line(1, upstream="unix:/srv/other/live.sock"), "shop") is None
    assert parse(line(1, upstream="unix:/srv/other/live.sock, unix:/srv/shop/live.sock"), "shop")
    assert parse(line(1, upstream="10.0.0.2:443"), "shop"), "the app on another host"


def test_paths_are_safe_and_short_in_a_message():
    evil = "GET /\x1b]0;title\x07\u202e\x9b31m\n" + "x" * 5000
    said = judged(BUSY, requests(MANY, 5, status=500, what=evil))
    assert said.isprintable() and len(said) < 500
    assert shown("GET /straße/日本") == "GET /straße/日本"


def test_no_line_stops_the_guard():
    """JSON of every shape, in every field."""
    shapes = [None, True, 0, -1, 1.5, 1e308, 10**400, "", "x", "1", "\x00", [], [1], {}, {"a": []}, float("nan")]
    fields = ("msec", "request_time", "status", "upstream_addr", "method", "uri", "client", "upstream_response_time")
    found = [parse(line(1, **{field: shape})) for field, shape in itertools.product(fields, shapes)]
    found += [parse(json.dumps(shape)) for shape in shapes]
    letters = random.Random(1)
    found += [parse(bytes(letters.randrange(256) for _ in range(200))) for _ in range(200)]
    found = [item for item in found if item]
    assert found
    judged(found, found)
    judged(BUSY, found * 10)
