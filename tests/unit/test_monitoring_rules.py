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
    assert problems == []
    return rules.check("monitoring", filled)


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
        {"troubleshoot_thresholds": {"disk": 100, "load": 500, "lock": 1}},
        {"resources_ignored_mounts": ["^/mnt/", "x$"]},
        {"resources_slack_url": "https://hooks.slack.com/services/x", "resources_webhook_url": "http://127.0.0.1:80/x"},
        {"resources_webhook_url": "https://h/x", "resources_webhook_token": "t"},
        MAIL,
        {**MAIL, "resources_mail_security": "starttls", "resources_mail_user": "u", "resources_mail_password": "p"},
        {"logs_max_size": "1k", "logs_journal_max_use": "1T", "logs_journal_retention": "2weeks 3 days"},
        {"logs_journal_retention": "0"},
    ],
)
def test_sound_settings_pass(variables):
    assert check(**variables) == []


@pytest.mark.parametrize(
    "variables, path, text",
    [
        ({"resources_interval": 0}, "resources_interval", "at least 1"),
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
        ({"troubleshoot_addresses": ["lb.example.com"]}, "troubleshoot_addresses[0]", "no IP address"),
        ({"exporters_address": "app1.internal"}, "exporters_address", "no IP address"),
        ({"exporters_address": "0.0.0.0"}, "exporters_address", "everybody"),
        ({"exporters_address": "8.8.8.8"}, "exporters_address", "everybody"),
        ({"exporters_nginx_status": "127.0.0.1:8099"}, "exporters_nginx_status", "no URL"),
        ({"troubleshoot_thresholds": {"disk": 101}}, "troubleshoot_thresholds.disk", "percent"),
        ({"troubleshoot_thresholds": {"load": 0}}, "troubleshoot_thresholds.load", "more than 0"),
        ({"resources_ignored_mounts": ["("]}, "resources_ignored_mounts[0]", "regular expression"),
        ({"resources_slack_url": "hooks.slack.com/x"}, "resources_slack_url", "no URL"),
        ({"resources_slack_url": "ftp://h/x"}, "resources_slack_url", "no URL"),
        ({"resources_webhook_url": "http://example.com/x"}, "resources_webhook_url", "in the clear"),
        ({"resources_webhook_token": "t"}, "resources_webhook_token", "needs"),
        (
            {"resources_webhook_url": "https://h/x", "resources_webhook_token": "a\nb"},
            "resources_webhook_token",
            "line break",
        ),
        ({**MAIL, "resources_mail_to": ["nobody"]}, "resources_mail_to[0]", "no e-mail address"),
        ({"resources_mail_to": ["a@b"]}, "resources_mail_from", "needed"),
        ({**MAIL, "resources_mail_from": "a@b\nBcc: x@y"}, "resources_mail_from", "no e-mail address"),
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
