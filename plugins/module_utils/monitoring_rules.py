# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the argument spec of the role monitoring cannot say. Each rule is a generator of problems, as in `rules`."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from ansible_collections.daoman.fastapi.plugins.module_utils import alerts
from ansible_collections.daoman.fastapi.plugins.module_utils.spec import Problem, join, problem

# Metrics in percent; the load has no upper end.
PERCENT = ("cpu", "memory", "swap", "disk", "inodes", "descriptors")
LOCAL = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|::1)$")
AT_LEAST = {
    "monitoring_resources_interval": 1,
    "monitoring_resources_queue": 1,
    "monitoring_logs_keep": 1,
    "monitoring_exporters_series": 100,
}


def at_least(variables):
    for name, least in AT_LEAST.items():
        value = variables.get(name)
        if value is not None and value < least:
            yield problem(name, f"must be at least {least}", value)


def resource_rules(variables):
    for name, rule in (variables.get("monitoring_resources_rules") or {}).items():
        where = f"monitoring_resources_rules.{name}"
        threshold, recovery = rule["threshold"], rule["recovery"]
        if threshold <= 0 or (name in PERCENT and threshold > 100):
            most = " and at most 100" if name in PERCENT else ""
            yield problem(f"{where}.threshold", f"must be more than 0{most}", threshold)
        elif recovery >= threshold:
            yield problem(
                f"{where}.recovery", f"must be less than the threshold, which is {threshold:g}", recovery,
                mend="Otherwise a value that wavers alerts each time")
        for key in ("duration", "repeat"):
            if rule[key] < 0:
                yield problem(f"{where}.{key}", "must not be negative", rule[key])


def shares(variables):
    for name, value in (variables.get("monitoring_troubleshoot_thresholds") or {}).items():
        where = f"monitoring_troubleshoot_thresholds.{name}"
        if value <= 0:
            yield problem(where, "must be more than 0", value)
        elif name not in ("load", "slow", "lock") and value > 100:
            yield problem(where, "is in percent, and must be at most 100", value)


def exporters(variables):
    value = variables.get("monitoring_exporters_address")
    found = ipaddress.ip_address(value or "127.0.0.1")
    if found.is_unspecified or found.is_global:
        yield problem(
            "monitoring_exporters_address", "would show the metrics to everybody", value,
            mend="Use 127.0.0.1 or the host's private address")


def receivers(variables):
    """URLs are secrets: what is wrong with them is said without them."""
    for name in (
        "monitoring_resources_slack_url",
        "monitoring_resources_webhook_url",
        "monitoring_alertmanager_slack_url",
        "monitoring_alertmanager_webhook_url",
        "monitoring_alertmanager_watchdog_url",
    ):
        value = variables.get(name)
        if not value:
            continue
        parts = urlsplit(value)
        if parts.scheme == "http" and not LOCAL.match(parts.hostname):
            yield Problem(name, "would send in the clear what happens on this host", mend="Use https")
    for prefix in ("monitoring_resources_", "monitoring_alertmanager_"):
        if variables.get(prefix + "webhook_token") and not variables.get(prefix + "webhook_url"):
            yield Problem(prefix + "webhook_token", f"needs {prefix}webhook_url as well")


def mail(variables):
    yield from _mail(variables, "monitoring_resources_mail_")
    yield from _mail(variables, "monitoring_alertmanager_mail_")
    port, security = (variables.get(f"monitoring_alertmanager_mail_{key}") for key in ("port", "security"))
    if None not in (port, security) and (port == 465) != (security == "tls"):
        yield problem(
            "monitoring_alertmanager_mail_port",
            f"does not go with monitoring_alertmanager_mail_security={security}", port,
            mend="Alertmanager begins with TLS on port 465, and there only")


def _mail(variables, prefix):
    given = {key[len(prefix):]: value for key, value in variables.items() if key.startswith(prefix)}
    if given.get("to") and not given.get("from"):
        yield Problem(prefix + "from", f"is needed with {prefix}to")
    if given.get("port") is not None and not 1 <= given["port"] <= 65535:
        yield problem(prefix + "port", "is no port", given["port"])
    if given.get("user") and given.get("security") == "none":
        yield Problem(
            prefix + "user", "would send the password in the clear", mend=f"Set {prefix}security to starttls or tls")
    if bool(given.get("user")) != bool(given.get("password")):
        missing = "password" if given.get("user") else "user"
        yield Problem(prefix + missing, "is missing: user and password belong together")


def prometheus(variables):
    for name, content in (variables.get("monitoring_prometheus_rules") or {}).items():
        where = join("monitoring_prometheus_rules", name)
        if not isinstance(content, dict) or not isinstance(content.get("groups"), list):
            yield problem(where, "must have 'groups', a list, as Prometheus' rule files do", content)


def targets(variables):
    seen = {}
    for variable in ("monitoring_targets", "monitoring_further_targets"):
        for index, item in enumerate(variables.get(variable) or []):
            where = join(variable, index)
            if not item or None in (item.get("job"), item.get("instance"), item.get("address")):
                continue
            key = (item["job"], item["instance"])
            if key in seen:
                yield problem(
                    where, f"has the job and the instance of {seen[key]}", f"{key[0]}, {key[1]}",
                    mend="Their readings would be mixed up")
            seen.setdefault(key, where)


def thresholds(variables):
    given = variables.get("monitoring_alerts_thresholds") or {}
    where = "monitoring_alerts_thresholds"
    for name, value in given.items():
        if value is None:
            continue
        if value <= 0:
            yield problem(join(where, name), "must be more than 0", value)
        elif name in ("slo", "errors", "disk", "inodes") and value >= 100:
            yield problem(join(where, name), "is in percent, and must be less than 100", value)
    soon, critical = given.get("certificate"), given.get("certificate_critical")
    if soon and critical and critical > soon:
        yield problem(
            join(where, "certificate_critical"), f"must not be more than 'certificate', which is {soon:g}", critical)


def single_alerts(variables):
    yield from alerts.problems(variables.get("monitoring_alerts") or {}, "monitoring_alerts")


def alertmanager(variables):
    receivers_of_ones_own = variables.get("monitoring_alertmanager_receivers") or []
    own = {item.get("name") for item in receivers_of_ones_own if isinstance(item, dict)}
    for name in sorted(filter(None, own & {"ops", "nobody", "watchdog"})):
        yield problem("monitoring_alertmanager_receivers", "this name is the role's", name, mend="Choose another")
    for index, route in enumerate(variables.get("monitoring_alertmanager_routes") or []):
        receiver = route.get("receiver") if isinstance(route, dict) else None
        if receiver and receiver not in own | {"ops", "nobody"}:
            yield problem(
                join(join("monitoring_alertmanager_routes", index), "receiver"), "there is no such receiver", receiver,
                mend="Add it to monitoring_alertmanager_receivers")


def access(variables):
    domain, users = (variables.get(f"monitoring_access_{key}") for key in ("domain", "users"))
    if domain and not users:
        yield Problem(
            "monitoring_access_users", "is needed with monitoring_access_domain", mend="Or anybody could see it")


def grafana(variables):
    if variables.get("monitoring_grafana") and not variables.get("monitoring_grafana_admin_password"):
        yield Problem(
            "monitoring_grafana_admin_password", "is needed with monitoring_grafana", mend="Or it would be 'admin'")


RULES = (
    at_least, resource_rules, shares, exporters, receivers, mail, prometheus,
    targets, thresholds, single_alerts, alertmanager, access, grafana,
)
