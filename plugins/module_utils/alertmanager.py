# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alertmanager's configuration: https://prometheus.io/docs/alerting/latest/configuration/. Nothing here needs Ansible.

Secrets are not in it, but in files that systemd hands to the service. Only addresses of webhooks cannot be:
Alertmanager 0.25 (Debian 12) has no `url_file`.
"""

from __future__ import annotations

import copy

# While the first of a row is on, the others are what follows from it.
# (what is on, what is then not told, labels that must be the same)
INHIBITIONS = (
    ('alertname="ErrorBudgetBurnsFast"', 'alertname=~"ErrorBudgetBurnsSlowly|ServerErrors"', ["site"]),
    ('alertname="ServerErrors"', 'alertname="ErrorBudgetBurnsSlowly"', ["site"]),
    ('alertname="NoWorkers"', 'alertname="WorkersEnd"', ["instance", "app"]),
    ('alertname="DeployGuardBroken"', 'alertname="DeployFailed"', ["instance", "app"]),
    (
        'alertname="CertificateExpires"',
        'alertname=~"CertificateExpiresSoon|CertificateRenewalFailed"',
        ["instance", "name"],
    ),
    ('alertname="DiskFull"', 'alertname="DiskFills"', ["instance", "mountpoint"]),
)
# A host that is down: one alert, not one for each of its exporters.
HOST_DOWN = ('alertname="TargetDown",job="node"', 'alertname="TargetDown",job=~"app|edge|nginx"', ["instance"])
TITLE = (
    '{{ .Status | toUpper }}{{ if eq .Status "firing" }} {{ .Alerts.Firing | len }}{{ end }}: '
    "{{ .CommonLabels.alertname }}"
)
TEXT = (
    '{{ range .Alerts }}{{ if eq .Status "resolved" }}over: {{ end }}*{{ .Annotations.summary }}*\n'
    "{{ .Annotations.description }}\n{{ .Annotations.runbook_url }}\n{{ end }}"
)
WATCHDOG = 'alertname="Watchdog"'


def matchers(text):
    return text.split(",")


def config(settings, credentials):
    """Alertmanager's configuration.

    :arg settings: the role's variables without their prefix monitoring_alertmanager_
    :arg credentials: directory with the files slack_url, webhook_token and mail_password
    """
    ops = {"name": "ops"}
    if settings["slack_url"]:
        ops["slack_configs"] = [_slack(settings, credentials)]
    if settings["webhook_url"]:
        ops["webhook_configs"] = [_webhook(settings, credentials)]
    if settings["mail_to"]:
        ops["email_configs"] = [{"to": ", ".join(settings["mail_to"]), "send_resolved": True}]
    receivers = [ops, {"name": "nobody"}]
    # The first route that fits takes the alert, so what is always on comes first.
    routes = []
    if settings["watchdog_url"]:
        receivers.append(
            {"name": "watchdog", "webhook_configs": [{"url": settings["watchdog_url"], "send_resolved": False}]}
        )
        routes.append(
            {
                "receiver": "watchdog",
                "matchers": [WATCHDOG],
                "group_wait": "0s",
                "group_interval": settings["watchdog_interval"],
                "repeat_interval": settings["watchdog_interval"],
            }
        )
    routes.append({"receiver": "nobody", "matchers": ['severity="none"']})
    result = {
        "route": {
            "receiver": "ops",
            "group_by": list(settings["group_by"]),
            "group_wait": settings["group_wait"],
            "group_interval": settings["group_interval"],
            "repeat_interval": settings["repeat_interval"],
            "routes": routes + copy.deepcopy(settings["routes"]),
        },
        "receivers": receivers + copy.deepcopy(settings["receivers"]),
        "inhibit_rules": [
            {"source_matchers": matchers(source), "target_matchers": matchers(target), "equal": equal}
            for source, target, equal in (*INHIBITIONS, HOST_DOWN)
        ],
    }
    if settings["mail_to"]:
        result["global"] = _mail(settings, credentials)
    return result


def _slack(settings, credentials):
    item = {
        "api_url_file": f"{credentials}/slack_url",
        "send_resolved": True,
        "title": TITLE,
        "text": TEXT,
        "fallback": TITLE,
        "title_link": "",
        "footer": "",
        "username": "Alertmanager",
    }
    if settings["slack_channel"]:
        item["channel"] = settings["slack_channel"]
    return item


def _webhook(settings, credentials):
    item = {"url": settings["webhook_url"], "send_resolved": True}
    if settings["webhook_token"]:
        item["http_config"] = {"authorization": {"credentials_file": f"{credentials}/webhook_token"}}
    return item


def _mail(settings, credentials):
    found = {
        "smtp_from": settings["mail_from"],
        "smtp_smarthost": f"{settings['mail_host']}:{settings['mail_port']}",
        # Port 465 is TLS from the start, whatever this says.
        "smtp_require_tls": settings["mail_security"] == "starttls",
    }
    if settings["mail_user"]:
        found["smtp_auth_username"] = settings["mail_user"]
        found["smtp_auth_password_file"] = f"{credentials}/mail_password"
    return found
