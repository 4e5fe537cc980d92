# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every alert is told in full, has a runbook and a test; every picture asks for what is there to be asked for."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.daoman.fastapi.plugins.module_utils import alertmanager, alerts, spec

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import dashboards  # noqa: E402 - the path comes first

THRESHOLDS = spec.default(spec.load("monitoring")["monitoring_alerts_thresholds"])
RULES = [
    rule
    for content in alerts.files(THRESHOLDS, {}, "https://example.com/alerts.md").values()
    for group in content["groups"]
    for rule in group["rules"]
]
ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in RULES if "alert" in rule]
CASES = yaml.safe_load((ROOT / "tests/alerts/alerts.yml").read_text(encoding="utf-8"))
RUNBOOK = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")


def test_the_names_are_found():
    assert sorted(alerts.names()) == sorted(rule["alert"] for rule in RULES if "alert" in rule)
    assert len(set(alerts.names())) == len(alerts.names()) > 20


def test_each_alert_has_a_section_and_each_section_an_alert():
    assert sorted(re.findall(r"^## (.*)$", RUNBOOK, re.M)) == sorted(alerts.names())


@pytest.mark.parametrize("section", re.split(r"^## ", RUNBOOK, flags=re.M)[1:], ids=lambda text: text.split("\n")[0])
def test_a_section_says_something(section):
    assert len(section.split("\n", 1)[1].split()) > 20


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_is_told_in_full(rule):
    assert rule["labels"]["severity"] in alerts.SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert all(rule["annotations"].values())
    assert rule["annotations"]["runbook_url"].endswith("#" + rule["alert"].lower())


@pytest.mark.parametrize("alert", alerts.names())
def test_an_alert_is_tested_both_ways(alert):
    cases = CASES[alert]
    assert any("fires" in case for case in cases)
    assert alert == "Watchdog" or any("fires" not in case for case in cases)


def test_each_threshold_is_used_and_documented():
    used = {name for text in alerts.sources().values() for name in alerts.THRESHOLD.findall(text)}
    assert used == set(THRESHOLDS)
    assert [name for name in THRESHOLDS if f"`{name}`" not in RUNBOOK] == []


def test_inhibitions_name_alerts_that_are_there():
    text = repr((*alertmanager.INHIBITIONS, alertmanager.HOST_DOWN))
    named = {name for found in re.findall(r'alertname=~?"([^"]+)"', text) for name in found.split("|")}
    assert named and named <= set(alerts.names())


# -- pictures ---------------------------------------------------------------------------------------------------------

PICTURES = [pytest.param(json.loads(dashboards.grafana(item)), id=item["name"]) for item in dashboards.load()]


def test_the_pictures_are_those_that_are_wanted():
    assert [item["name"] for item in dashboards.load()] == ["index", "app", "nginx", "host"]


def test_names_are_unique():
    uids = [picture.values[0]["uid"] for picture in PICTURES]
    assert len(set(uids)) == len(uids)


@pytest.mark.parametrize("picture", PICTURES)
def test_panels_have_places_of_their_own(picture):
    panels = picture["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _y in cells) < 24
        taken |= cells


@pytest.mark.parametrize("picture", PICTURES)
def test_each_panel_asks_the_one_datasource(picture):
    known = {variable["name"] for variable in picture["templating"]["list"]} | {"__rate_interval"}
    for panel in picture["panels"]:
        if panel["type"] == "row":
            continue
        ids = [target["refId"] for target in panel["targets"]]
        assert ids and len(set(ids)) == len(ids)
        for target in panel["targets"]:
            assert target["datasource"] == dashboards.DATASOURCE
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= known, panel["title"]


@pytest.mark.parametrize("picture", PICTURES)
def test_deploys_are_marked(picture):
    (marks,) = picture["annotations"]["list"]
    assert "fastapi_deploy_timestamp_seconds" in marks["expr"] and marks["useValueForTime"]
