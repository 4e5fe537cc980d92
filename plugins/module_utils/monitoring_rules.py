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
ADDRESS = re.compile(r"^[^@\s<>,\"]+@[^@\s<>,\"]+$")
SIZE = re.compile(r"^[1-9]\d*[kMG]?$")
JOURNAL_SIZE = re.compile(r"^[1-9]\d*[KMGT]?$")
UNITS = r"(s|sec|min|h|hours?|d|days?|w|weeks?|M|months?|y|years?)"
JOURNAL_TIME = re.compile(rf"^(0|([1-9]\d*\s*{UNITS}\s*)+)$")
RETENTION_SIZE = re.compile(r"^([1-9]\d*(KB|MB|GB|TB))?$")
ENDPOINT = re.compile(r"^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9_.-]+):\d{1,5}$")
FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
DOMAIN = re.compile(r"^(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+$")
USER = re.compile(r"^[A-Za-z0-9._-]+$")
# crypt(3) with SHA-256, SHA-512 or bcrypt.
HASHED = re.compile(r"^\$(5|6|2[aby])\$[./A-Za-z0-9$=]{20,}$")
ACCOUNT = re.compile(r"^[a-z_][a-z0-9_-]{0,31}\Z")
LABEL = re.compile(r"^[a-zA-Z_]\w*$")
LOCAL = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|::1)$")
AT_LEAST = {
    "monitoring_resources_interval": 1,
    "monitoring_resources_queue": 1,
    "monitoring_logs_keep": 1,
    "monitoring_exporters_series": 100,
}
# Times as Prometheus and Alertmanager write them.
TIMES = (
    "monitoring_prometheus_interval",
    "monitoring_prometheus_retention_time",
    "monitoring_alertmanager_watchdog_interval",
    "monitoring_alertmanager_group_wait",
    "monitoring_alertmanager_group_interval",
    "monitoring_alertmanager_repeat_interval",
)


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


def addresses(variables):
    for index, value in enumerate(variables.get("monitoring_troubleshoot_addresses") or []):
        try:
            ipaddress.ip_address(value)
        except ValueError:
            yield problem(join("monitoring_troubleshoot_addresses", index), "is no IP address", value)


def exporters(variables):
    value = variables.get("monitoring_exporters_address")
    if value is not None:
        try:
            found = ipaddress.ip_address(value)
        except ValueError:
            yield problem("monitoring_exporters_address", "is no IP address", value)
        else:
            if found.is_unspecified or found.is_global:
                yield problem(
                    "monitoring_exporters_address", "would show the metrics to everybody", value,
                    mend="Use 127.0.0.1 or the host's private address")
    url = variables.get("monitoring_exporters_nginx_status")
    if url and not re.match(r"^https?://[^\s/]+/\S*$", url):
        yield problem("monitoring_exporters_nginx_status", "is no URL of http or https", url)


def local_services(variables):
    for index, value in enumerate(variables.get("monitoring_local_services_users") or []):
        if not ACCOUNT.match(value):
            where = join("monitoring_local_services_users", index)
            yield problem(where, "is not a valid account name", value, mend="Give a name such as 'grafana-agent'")


def mounts(variables):
    for index, value in enumerate(variables.get("monitoring_resources_ignored_mounts") or []):
        try:
            re.compile(value)
        except re.error as error:
            where = join("monitoring_resources_ignored_mounts", index)
            yield problem(where, f"is no regular expression: {error}", value)


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
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", value):
            yield Problem(name, "is no URL of http or https")
        elif parts.scheme == "http" and not LOCAL.match(parts.hostname):
            yield Problem(name, "would send in the clear what happens on this host", mend="Use https")
    for prefix in ("monitoring_resources_", "monitoring_alertmanager_"):
        if variables.get(prefix + "webhook_token"):
            if not variables.get(prefix + "webhook_url"):
                yield Problem(prefix + "webhook_token", f"needs {prefix}webhook_url as well")
            elif re.search(r"\s", variables[prefix + "webhook_token"]):
                yield Problem(prefix + "webhook_token", "has a blank or a line break in it")


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
    for index, value in enumerate(given.get("to") or []):
        if not ADDRESS.match(value):
            yield problem(join(prefix + "to", index), "is no e-mail address", value)
    if given.get("to") and not given.get("from"):
        yield Problem(prefix + "from", f"is needed with {prefix}to")
    elif given.get("from") and not ADDRESS.match(given["from"]):
        yield problem(prefix + "from", "is no e-mail address", given["from"])
    if given.get("port") is not None and not 1 <= given["port"] <= 65535:
        yield problem(prefix + "port", "is no port", given["port"])
    if given.get("user") and given.get("security") == "none":
        yield Problem(
            prefix + "user", "would send the password in the clear", mend=f"Set {prefix}security to starttls or tls")
    if bool(given.get("user")) != bool(given.get("password")):
        missing = "password" if given.get("user") else "user"
        yield Problem(prefix + missing, "is missing: user and password belong together")


def log_settings(variables):
    for name, pattern, example in (
        ("monitoring_logs_max_size", SIZE, "500M"),
        ("monitoring_logs_journal_max_use", JOURNAL_SIZE, "1G"),
        ("monitoring_logs_journal_retention", JOURNAL_TIME, "1month"),
    ):
        value = variables.get(name)
        if value is not None and not pattern.match(value):
            yield problem(name, f"must be like '{example}'", value)


def prometheus(variables):
    for name in TIMES:
        value = variables.get(name)
        if value is not None and (not alerts.DURATION.match(value) or value in ("", "0")):
            yield problem(name, "is no time as Prometheus writes it, such as '15s' or '30d'", value)
    size = variables.get("monitoring_prometheus_retention_size")
    if size is not None and not RETENTION_SIZE.match(size):
        yield problem("monitoring_prometheus_retention_size", "must be like '10GB'", size)
    for name, content in (variables.get("monitoring_prometheus_rules") or {}).items():
        where = join("monitoring_prometheus_rules", name)
        if not FILE_NAME.match(str(name)):
            yield problem(where, "becomes the name of a file: letters, digits, hyphens and underscores", name)
        elif not isinstance(content, dict) or not isinstance(content.get("groups"), list):
            yield problem(where, "must have 'groups', a list, as Prometheus' rule files do", content)


def targets(variables):
    seen = {}
    for variable in ("monitoring_targets", "monitoring_further_targets"):
        for index, item in enumerate(variables.get(variable) or []):
            where = join(variable, index)
            if not item or None in (item.get("job"), item.get("instance"), item.get("address")):
                continue
            if not ENDPOINT.match(item["address"]):
                yield problem(
                    join(where, "address"), "must be a host and a port, such as '10.0.0.5:9187'", item["address"])
            for label in item.get("labels") or {}:
                if not LABEL.match(str(label)):
                    yield problem(join(where, "labels"), f"'{label}' is no name of a label")
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
    if domain and not DOMAIN.match(domain):
        yield problem("monitoring_access_domain", "is no name of a site, such as monitoring.example.com", domain)
    if domain and not users:
        yield Problem(
            "monitoring_access_users", "is needed with monitoring_access_domain", mend="Or anybody could see it")
    for name, hashed in (users or {}).items():
        where = join("monitoring_access_users", name)
        if not USER.match(str(name)):
            yield Problem(where, "is no name of a user: letters, digits, dots, hyphens and underscores")
        elif not HASHED.match(str(hashed)):
            yield Problem(where, "is no hashed password", mend="Make one with: openssl passwd -6")
    for index, item in enumerate(variables.get("monitoring_access_allow") or []):
        try:
            ipaddress.ip_network(item, strict=False)
        except ValueError:
            yield problem(join("monitoring_access_allow", index), "is no address or network", item)


def grafana(variables):
    if variables.get("monitoring_grafana") and not variables.get("monitoring_grafana_admin_password"):
        yield Problem(
            "monitoring_grafana_admin_password", "is needed with monitoring_grafana", mend="Or it would be 'admin'")
    value = variables.get("monitoring_grafana_repository")
    if value and not value.startswith("https://"):
        yield problem("monitoring_grafana_repository", "must be an address of https", value)


RULES = (
    at_least, resource_rules, shares, addresses, exporters, local_services, mounts, receivers, mail, log_settings,
    prometheus, targets, thresholds, single_alerts, alertmanager, access, grafana,
)
