# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement over a release: which requests count, and how much worse than before is too much."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host.guard import (
    AccessLog,
    Request,
    Traffic,
    judge,
    parse,
    percentile,
)

SETTINGS = {"requests": 20, "error_rate": 0.02, "latency": 3.0, "latency_floor": 0.5}


def line(ended, seconds=0.01, status=200, upstream="unix:/srv/shop/live.sock", **changes):
    entry = {"msec": ended, "request_time": seconds, "status": status, "upstream_addr": upstream, "method": "GET",
             "uri": "/x?secret=1"}
    return json.dumps({**entry, **changes}) + "\n"


def traffic(good=0, bad=0, seconds=0.01, status=500):
    requests = [Request(0, seconds, 200, "GET /x")] * good + [Request(0, seconds, status, "GET /x")] * bad
    return Traffic(requests, 10)


def test_a_line_of_the_log_is_a_request_without_its_query():
    assert parse(line(100.5, 0.5, 503)) == Request(100.0, 0.5, 503, "GET /x")


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", line(1, upstream=""), line("x"), line(1, status=None)])
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
