# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a fleet."""

from __future__ import annotations

import json

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import fleet_report

WARNING = {
    "severity": "warning",
    "id": "a-first-name",
    "subject": "/",
    "title": "is full",
    "cause": "c",
    "mend": "m",
    "docs": "d",
    "evidence": ["e"],
}
CRITICAL = {**WARNING, "severity": "critical", "id": "app-stopped", "subject": "shop", "title": "does not run"}


def test_the_worst_comes_first_and_what_is_the_same_once():
    lines = fleet_report.lines({"b": {"findings": [WARNING]}, "a": {"findings": [WARNING, CRITICAL]}})
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads == ["CRITICAL shop: does not run  [a]", "WARNING  /: is full  [a, b]"]
    assert lines[1:5] == ["  why   c", "  said  e", "  mend  m", "  more  d"]


def test_hosts_that_are_well_and_those_not_seen_are_named():
    assert fleet_report.lines({"a": {"findings": []}, "b": None}) == ["NOT EXAMINED  b", "Healthy: a"]


def live(app, revision, version="main", live=True):
    return {"app": app, "revision": revision, "version": version, "live": live}


def test_apps_of_which_hosts_serve_different_revisions_are_named():
    hosts = {
        "a": [live("shop", "r0", live=False), live("shop", "r1"), live("blog", "r1")],
        "b": [live("shop", "r2"), live("blog", "r1", "v1")],
        "c": [live("shop", "r2")],
        "lost": None,
    }
    assert fleet_report.differing(hosts) == [
        "shop: hosts serve different revisions: main (r1) on a; main (r2) on b, c"]
    assert fleet_report.differing({"a": hosts["b"], "b": hosts["c"]}) == []


@pytest.mark.parametrize("text", [None, "", "no json", "[]", "{}"])
def test_what_is_no_report_is_none(text):
    assert fleet_report.parse(text) is None


def test_a_report_is_read():
    assert fleet_report.parse(json.dumps({"findings": []})) == {"findings": []}
