# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the role monitoring that cannot work, each with what is right beside it."""

from __future__ import annotations

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import rules, spec


def check(**variables):
    filled, problems = spec.check(
        spec.load("monitoring"), {f"monitoring_{name}": value for name, value in variables.items()}
    )
    return problems + rules.check("monitoring", filled, problems)


HASHED = "$6$monitoring$" + "a" * 86
TARGET = {"job": "db", "instance": "db", "address": "db:9187"}
MAIL = {"resources_mail_to": ["ops@example.com"], "resources_mail_from": "monitor@example.com"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"resources_interval": 1, "resources_queue": 1, "logs_keep": 1},
        {"resources_rules": {"disk": {"threshold": 100, "recovery": 99}, "load": {"threshold": 150, "recovery": 2}}},
        {"resources_rules": {"cpu": {"duration": 0, "repeat": 0}}},
        {"troubleshoot_addresses": ["192.0.2.1", "2001:db8::1"]},
        {"exporters_address": "10.0.0.7", "exporters_nginx_status": ""},
        {"exporters_address": "fd00::7"},
        {"exporters_series": 100, "local_services_users": ["grafana-agent", "_exporter"]},
        {"troubleshoot_thresholds": {"disk": 100, "load": 500, "lock": 1}},
        {"resources_ignored_mounts": ["^/mnt/", "x$"]},
        {"resources_slack_url": "https://hooks.slack.com/services/x", "resources_webhook_url": "http://127.0.0.1:80/x"},
        {"resources_webhook_url": "https://h/x", "resources_webhook_token": "t"},
        MAIL,
        {**MAIL, "resources_mail_security": "starttls", "resources_mail_user": "u", "resources_mail_password": "p"},
        {"logs_max_size": "1k", "logs_journal_max_use": "1T", "logs_journal_retention": "2weeks 3 days"},
        {"logs_journal_retention": "0"},
        {"prometheus_interval": "1m30s", "prometheus_retention_time": "1y", "prometheus_retention_size": ""},
        {"prometheus_rules": {"shop": {"groups": []}}},
        {"further_targets": [{"job": "db", "instance": "a", "address": "[fd00::1]:9187", "labels": {"team": "x"}}]},
        {"alerts": {"TargetDown": {"enabled": False, "for": "0", "severity": "none", "labels": {"a": "b"}}}},
        {"alerts_thresholds": {"certificate": 1, "certificate_critical": 0.5, "slo": 99.99}},
        {"alertmanager_routes": [{"receiver": "team"}], "alertmanager_receivers": [{"name": "team"}]},
        {"alertmanager_mail_port": 465, "alertmanager_mail_security": "tls"},
        {"access_domain": "m.example.com", "access_users": {"ops": HASHED}, "access_allow": ["10.0.0.0/8", "::1"]},
    ],
)
def test_sound_settings_pass(variables):
    assert check(**variables) == []


@pytest.mark.parametrize(
    "variables, path, text",
    [
        ({"resources_interval": 0}, "resources_interval", "at least 1"),
        ({"prometheus_interval": "15"}, "prometheus_interval", "is not a time"),
        ({"alertmanager_group_wait": "soon"}, "alertmanager_group_wait", "is not a time"),
        ({"prometheus_retention_size": "10 GB"}, "prometheus_retention_size", "like '10GB'"),
        ({"prometheus_rules": {"../x": {"groups": []}}}, "prometheus_rules['../x']", "name of a rule file"),
        ({"prometheus_rules": {"x": {"rules": []}}}, "prometheus_rules.x", "must have 'groups'"),
        ({"further_targets": [{**TARGET, "address": "db"}]}, "further_targets[0].address", "a host and a port"),
        ({"further_targets": [{**TARGET, "labels": {"a-b": "c"}}]}, "further_targets[0].labels.a-b", "a valid label"),
        ({"further_targets": [TARGET, TARGET]}, "further_targets[1]", "the job and the instance of"),
        ({"targets": [TARGET], "further_targets": [TARGET]}, "further_targets[0]", "monitoring_targets[0]"),
        ({"alerts_thresholds": {"slo": 100}}, "alerts_thresholds.slo", "less than 100"),
        ({"alerts_thresholds": {"slow": 0}}, "alerts_thresholds.slow", "more than 0"),
        ({"alerts_thresholds": {"certificate": 1}}, "alerts_thresholds.certificate_critical", "must not be more than"),
        ({"alerts": {"TargetDwon": {}}}, "alerts.TargetDwon", "no such alert"),
        ({"alerts": {"TargetDown": False}}, "alerts.TargetDown", "must be a dict"),
        ({"alerts": {"TargetDown": {"after": "5m"}}}, "alerts.TargetDown.after", "unknown option"),
        ({"alerts": {"TargetDown": {"enabled": "no"}}}, "alerts.TargetDown.enabled", "true or false"),
        ({"alerts": {"TargetDown": {"for": "5"}}}, "alerts.TargetDown.for", "no time"),
        ({"alerts": {"TargetDown": {"severity": "page"}}}, "alerts.TargetDown.severity", "one of critical"),
        ({"alerts": {"TargetDown": {"labels": {"a b": "c"}}}}, "alerts.TargetDown.labels", "no name of a label"),
        ({"alertmanager_receivers": [{"name": "ops"}]}, "alertmanager_receivers", "the role's"),
        ({"alertmanager_routes": [{"receiver": "x"}]}, "alertmanager_routes[0].receiver", "no such receiver"),
        ({"alertmanager_mail_port": 587, "alertmanager_mail_security": "tls"}, "alertmanager_mail_port", "does not go"),
        ({"alertmanager_mail_port": 465}, "alertmanager_mail_port", "does not go"),
        ({"alertmanager_mail_to": ["a@b"]}, "alertmanager_mail_from", "needed"),
        ({"alertmanager_watchdog_url": "http://hc.example.com/x"}, "alertmanager_watchdog_url", "in the clear"),
        ({"alertmanager_webhook_token": "t"}, "alertmanager_webhook_token", "needs"),
        ({"access_domain": "https://m.x", "access_users": {"ops": HASHED}}, "access_domain", "is not a host name"),
        ({"access_domain": "m.example.com"}, "access_users", "is needed"),
        ({"access_users": {"a:b": HASHED}}, "access_users['a:b']", "is not a valid user name"),
        ({"access_users": {"ops": "open sesame"}}, "access_users.ops", "is not a hashed password"),
        ({"grafana": True}, "grafana_admin_password", "is needed"),
        ({"grafana_repository": "http://mirror.example.com"}, "grafana_repository", "https"),
        ({"access_allow": ["home"]}, "access_allow[0]", "is not an address or a network"),
        ({"exporters_series": 99}, "exporters_series", "at least 100"),
        ({"local_services_users": ["ops", "0 } accept #"]}, "local_services_users[1]", "is not a valid user"),
        ({"local_services_users": ["ops\n"]}, "local_services_users[0]", "is not a valid user"),
        ({"resources_queue": 0}, "resources_queue", "at least 1"),
        ({"logs_keep": 0}, "logs_keep", "at least 1"),
        ({"resources_rules": {"disk": {"threshold": 101}}}, "resources_rules.disk.threshold", "at most 100"),
        ({"resources_rules": {"load": {"threshold": 0}}}, "resources_rules.load.threshold", "more than 0"),
        (
            {"resources_rules": {"cpu": {"threshold": 80, "recovery": 80}}},
            "resources_rules.cpu.recovery",
            "less than the threshold",
        ),
        ({"resources_rules": {"cpu": {"duration": -1}}}, "resources_rules.cpu.duration", "negative"),
        ({"resources_rules": {"cpu": {"repeat": -1}}}, "resources_rules.cpu.repeat", "negative"),
        ({"troubleshoot_addresses": ["lb.example.com"]}, "troubleshoot_addresses[0]", "is not an IP address"),
        ({"exporters_address": "app1.internal"}, "exporters_address", "is not an IP address"),
        ({"exporters_address": "0.0.0.0"}, "exporters_address", "everybody"),
        ({"exporters_address": "8.8.8.8"}, "exporters_address", "everybody"),
        ({"exporters_nginx_status": "127.0.0.1:8099"}, "exporters_nginx_status", "is not a plain http"),
        ({"troubleshoot_thresholds": {"disk": 101}}, "troubleshoot_thresholds.disk", "percent"),
        ({"troubleshoot_thresholds": {"load": 0}}, "troubleshoot_thresholds.load", "more than 0"),
        ({"resources_ignored_mounts": ["("]}, "resources_ignored_mounts[0]", "regular expression"),
        ({"resources_slack_url": "hooks.slack.com/x"}, "resources_slack_url", "is not an http or https URL"),
        ({"resources_slack_url": "ftp://h/x"}, "resources_slack_url", "is not an http or https URL"),
        ({"resources_webhook_url": "http://example.com/x"}, "resources_webhook_url", "in the clear"),
        ({"resources_webhook_token": "t"}, "resources_webhook_token", "needs"),
        (
            {"resources_webhook_url": "https://h/x", "resources_webhook_token": "a\nb"},
            "resources_webhook_token",
            "line break",
        ),
        ({**MAIL, "resources_mail_to": ["nobody"]}, "resources_mail_to[0]", "is not an e-mail address"),
        ({"resources_mail_to": ["a@b"]}, "resources_mail_from", "needed"),
        ({**MAIL, "resources_mail_from": "a@b\nBcc: x@y"}, "resources_mail_from", "is not an e-mail address"),
        ({**MAIL, "resources_mail_port": 0}, "resources_mail_port", "no port"),
        ({**MAIL, "resources_mail_user": "u", "resources_mail_password": "p"}, "resources_mail_user", "in the clear"),
        ({**MAIL, "resources_mail_security": "tls", "resources_mail_user": "u"}, "resources_mail_password", "missing"),
        ({**MAIL, "resources_mail_password": "p"}, "resources_mail_user", "missing"),
        ({"logs_max_size": "1 GB"}, "logs_max_size", "like '500M'"),
        ({"logs_journal_max_use": "lots"}, "logs_journal_max_use", "like '1G'"),
        ({"logs_journal_retention": "ever"}, "logs_journal_retention", "like '1month'"),
    ],
)
def test_what_cannot_work_is_refused(variables, path, text):
    (problem,) = check(**variables)
    assert problem.path == f"monitoring_{path}" and text in problem


def test_a_wrong_secret_is_not_shown():
    (problem,) = check(resources_slack_url="hooks.slack.com/s33d")
    assert "s33d" not in problem
