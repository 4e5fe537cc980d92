# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules with thresholds and changes, Alertmanager's configuration, targets, and what the module makes of files."""

from __future__ import annotations

import os

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.daoman.fastapi.plugins.filter import (
    alert_rules,
    monitoring_addresses,
    monitoring_sites,
    monitoring_targets,
    secrets_in,
)
from ansible_collections.daoman.fastapi.plugins.module_utils import alertmanager, alerts, spec
from ansible_collections.daoman.fastapi.plugins.module_utils import monitoring_targets as listed
from ansible_collections.daoman.fastapi.plugins.modules import prometheus_config

THRESHOLDS = spec.default(spec.load("monitoring")["monitoring_alerts_thresholds"])
GROUPS = [
    {
        "name": "g",
        "rules": [
            {"record": "r", "expr": "1"},
            {
                "alert": "A",
                "expr": "1",
                "for": "5m",
                "labels": {"severity": "critical"},
                "annotations": {"summary": "s"},
            },
        ],
    }
]


def test_thresholds_are_filled_in_as_people_write_them():
    assert alerts.filled("x > [[ a ]] and [[ b ]]", {"a": 5.0, "b": 99.9}) == "x > 5 and 99.9"


def test_an_unknown_threshold_is_no_silent_gap():
    with pytest.raises(KeyError):
        alerts.filled("x > [[ a ]]", {})


def test_no_placeholder_is_left():
    assert "[[" not in repr(alerts.files(THRESHOLDS, {}, "x"))


def test_an_alert_is_changed_and_the_others_are_not():
    change = {"A": {"for": "1h", "severity": "info", "labels": {"team": "shop"}}}
    (group,) = alerts.changed(GROUPS, change, "https://example.com/x")
    assert group["rules"][0] == GROUPS[0]["rules"][0]
    assert group["rules"][1]["for"] == "1h"
    assert group["rules"][1]["labels"] == {"severity": "info", "team": "shop"}
    assert group["rules"][1]["annotations"] == {"summary": "s", "runbook_url": "https://example.com/x#a"}
    assert GROUPS[0]["rules"][1]["labels"] == {"severity": "critical"}


def test_an_alert_that_is_off_is_gone_and_a_group_without_rules_too():
    assert [rule for group in alerts.changed(GROUPS, {"A": {"enabled": False}}, "x") for rule in group["rules"]] == [
        GROUPS[0]["rules"][0]
    ]
    only = [{"name": "g", "rules": GROUPS[0]["rules"][1:]}]
    assert alerts.changed(only, {"A": {"enabled": False}}, "x") == []


def test_rule_files_of_the_user_stand_beside_those_of_the_role():
    own = {"shop": {"groups": [{"name": "shop", "rules": []}]}}
    files = {item["dest"]: item["content"] for item in alert_rules.alert_rules(THRESHOLDS, {}, "x", own)}
    assert "name: shop" in files["rules/own-shop.yml"] and "TargetDown" in files["rules/hosts.yml"]


# -- targets ----------------------------------------------------------------------------------------------------------

HOSTS = {"a": {"monitoring_exporters_address": "10.0.0.1"}, "b": {"monitoring_exporters_address": "fd00::2"}}


def targets(hosts, variables, here, watchers=None):
    return monitoring_targets.monitoring_targets(hosts, variables, here, watchers or [here])


def test_a_fleet_is_asked_by_a_host_of_its_own():
    found = targets(["a"], HOSTS, "b")
    assert [(item["instance"], item["job"], item["address"]) for item in found] == [
        ("a", "node", "10.0.0.1:9100"),
        ("a", "app", "10.0.0.1:9102"),
        ("a", "edge", "10.0.0.1:4040"),
        ("a", "nginx", "10.0.0.1:9113"),
        ("b", "node", "[fd00::2]:9100"),
    ]


def test_who_does_not_watch_asks_nobody():
    assert targets(["a"], {"a": {}}, "a", ["b"]) == []


def test_a_single_host_asks_itself():
    found = targets(["a"], {"a": {}}, "a")
    assert [item["address"] for item in found] == [f"127.0.0.1:{port}" for port in listed.PORTS.values()]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_another_host_cannot_be_asked_for_itself_alone(address):
    with pytest.raises(AnsibleFilterError, match="monitoring_exporters_address of a to its private address"):
        targets(["a"], {"a": {"monitoring_exporters_address": address}, "b": {}}, "b")


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_exporters_that_listen_publicly_are_refused(address):
    with pytest.raises(AnsibleFilterError, match="would listen on all addresses"):
        targets(["a"], {"a": {"monitoring_exporters_address": address}}, "a")


def test_a_host_without_exporters_is_not_asked():
    assert targets(["a"], {"a": {"monitoring_exporters": False}, "b": {"monitoring_exporters": "no"}}, "b") == []


def test_targets_do_not_depend_on_the_order_of_the_inventory():
    items = targets(["a", "b"], HOSTS, "b")
    items.append({"job": "postgres", "instance": "db", "address": "db:9187", "labels": {"team": "x"}})
    assert listed.file_sd(items) == listed.file_sd(items[::-1])
    labels = {"job": "postgres", "instance": "db", "team": "x"}
    assert {"targets": ["db:9187"], "labels": labels} in listed.file_sd(items)


def test_a_firewall_lets_those_ask_who_watch_from_elsewhere():
    hosts = {**HOSTS, "m": {"ansible_host": "203.0.113.9", "monitoring_exporters_address": "10.0.0.9"},
             "n": {}, "o": {"ansible_host": "203.0.113.8"}}
    assert monitoring_addresses.monitoring_addresses([*"amno"], hosts, "a") == ["10.0.0.9", "n", "203.0.113.8"]
    assert monitoring_addresses.monitoring_addresses(["m"], hosts, "n") == [], "it listens on a loopback address"
    assert monitoring_addresses.monitoring_addresses(["m"], hosts | {"a": {"monitoring_exporters": False}}, "a") == []


# -- access -----------------------------------------------------------------------------------------------------------


def test_there_is_no_site_without_a_name_or_prometheus():
    assert monitoring_sites.monitoring_sites("", True) == []
    assert monitoring_sites.monitoring_sites("m.example.com", False) == []


def test_every_way_in_asks_for_a_password_and_minds_the_address():
    (site,) = monitoring_sites.monitoring_sites("m.example.com", True, ["10.0.0.0/8"], True)
    assert (site["auth_basic_user_file"], site["allow"]) == ("/etc/fastapi/monitoring.htpasswd", ["10.0.0.0/8"])
    # and nothing in it has one of its own, or none
    assert site["auth_basic"] == "Monitoring" and "locations" not in site
    assert "auth_basic" not in site["extra"] and "allow" not in site["extra"]


def test_without_grafana_nothing_leads_there():
    (site,) = monitoring_sites.monitoring_sites("m.example.com", True)
    assert "grafana" not in site["extra"] and site["allow"] == []


# -- Alertmanager -----------------------------------------------------------------------------------------------------

PREFIX = "monitoring_alertmanager_"


def config(**given):
    settings = {
        name[len(PREFIX) :]: spec.default(option)
        for name, option in spec.load("monitoring").items()
        if name.startswith(PREFIX)
    }
    return alertmanager.config({**settings, **given}, "/run/c")


def receivers(found):
    return {item["name"]: item for item in found["receivers"]}


def test_without_receivers_alerts_are_only_shown():
    found = config()
    assert receivers(found) == {"ops": {"name": "ops"}, "nobody": {"name": "nobody"}}
    assert "global" not in found


def test_secrets_are_named_as_files():
    found = config(
        slack_url="https://s33d",
        webhook_url="https://h",
        webhook_token="s33d",
        mail_to=["a@x", "b@x"],
        mail_from="c@x",
        mail_user="u",
        mail_password="s33d",
        mail_security="starttls",
    )
    assert "s33d" not in repr(found)
    ops = receivers(found)["ops"]
    assert ops["slack_configs"][0]["api_url_file"] == "/run/c/slack_url"
    assert ops["webhook_configs"][0]["http_config"]["authorization"] == {"credentials_file": "/run/c/webhook_token"}
    assert ops["email_configs"] == [{"to": "a@x, b@x", "send_resolved": True}]
    assert found["global"]["smtp_auth_password_file"] == "/run/c/mail_password"
    assert found["global"]["smtp_require_tls"] is True


def test_the_watchdog_goes_to_its_switch_alone():
    routes = config(watchdog_url="https://w", watchdog_interval="30s")["route"]["routes"]
    assert routes[0]["matchers"] == ['alertname="Watchdog"'] and routes[0]["receiver"] == "watchdog"
    assert routes[0]["repeat_interval"] == "30s"
    assert routes[1] == {"receiver": "nobody", "matchers": ['severity="none"']}


def test_without_a_switch_nobody_hears_of_the_watchdog():
    assert config()["route"]["routes"] == [{"receiver": "nobody", "matchers": ['severity="none"']}]


def test_routes_and_receivers_of_the_user_come_after():
    route, receiver = {"receiver": "team", "matchers": ['team="x"']}, {"name": "team"}
    found = config(routes=[route], receivers=[receiver])
    assert found["route"]["routes"][-1] == route and found["receivers"][-1] == receiver


# -- the module -------------------------------------------------------------------------------------------------------


def test_what_differs_is_written_and_what_is_strange_removed(tmp_path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/old.yml").write_text("old")
    (tmp_path / "same.yml").write_text("same")
    os.chmod(tmp_path / "same.yml", 0o640)
    files = [{"dest": "same.yml", "content": "same"}, {"dest": "rules/new.yml", "content": "new"}]
    changes = prometheus_config.plan(str(tmp_path), files, os.getegid())
    assert {os.path.relpath(path, tmp_path): after and after.data for path, (_before, after) in changes.items()} == {
        "rules/new.yml": b"new",
        "rules/old.yml": None,
    }


def test_a_swap_can_be_taken_back(tmp_path):
    (tmp_path / "old.yml").write_text("old")
    changes = prometheus_config.plan(str(tmp_path), [{"dest": "new.yml", "content": "new"}], os.getegid())
    prometheus_config.swap(changes)
    assert [path.name for path in tmp_path.iterdir()] == ["new.yml"]
    prometheus_config.swap(changes, back=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.yml", "old")]


@pytest.mark.parametrize("mtime, stale", [(1700000000.9, False), (1700000001.0, True), (1600000000, False)])
def test_a_drop_in_newer_than_the_service_is_noticed(mtime, stale):
    shown = {"ExecMainStartTimestamp": "@1700000000", "DropInPaths": "/a.conf"}
    assert prometheus_config.outdated(shown, lambda path: mtime) is stale


def test_a_service_that_never_ran_is_not_outdated():
    assert not prometheus_config.outdated({"ExecMainStartTimestamp": "", "DropInPaths": "/a"}, lambda path: 9e9)


METRICS = """
prometheus_config_last_reload_success_timestamp_seconds 1.795397821974605e+09
prometheus_config_last_reload_successful 1
"""


def test_the_daemons_word_on_its_configuration_is_read():
    assert prometheus_config.loaded(METRICS, "prometheus") == (True, 1795397821.974605)
    assert prometheus_config.loaded(METRICS.replace("successful 1", "successful 0"), "prometheus")[0] is False
    assert prometheus_config.loaded("", "prometheus") is None
    assert prometheus_config.loaded(METRICS, "alertmanager") is None


def test_hidden_words_are_masked_the_longest_first():
    assert (
        prometheus_config.masked("a https://x/s33d-2 s33d", ["s33d", "https://x/s33d-2", ""]) == "a ******** ********"
    )


def test_secrets_of_a_configuration_are_found():
    value = [
        {"basic_auth": {"username": "prometheus", "password": "s33d-1", "password_file": "/etc/x"}},
        {"webhook_configs": [{"url": "https://h/s33d-2"}], "name": "team"},
        {"authorization": {"type": "Bearer", "credentials": "s33d-3"}, "tokens": ["s33d-4"], "job_name": "api"},
        "s33d-5",
    ]
    assert secrets_in.secrets_in(value) == ["s33d-1", "https://h/s33d-2", "s33d-3", "s33d-4", "s33d-5"]
