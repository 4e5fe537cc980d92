# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The alerts of the role monitoring: its rule files with thresholds, the user's changes to them, and runbooks."""

from __future__ import annotations

import os
import re
from functools import lru_cache

from ansible_collections.daoman.fastapi.plugins.module_utils.spec import ROLES, join, nearest, problem, show

FOLDER = os.path.join(ROLES, "monitoring", "files", "prometheus", "rules")
THRESHOLD = re.compile(r"\[\[ (\w+) \]\]")
# What may be said of a single alert.
CHANGES = {"enabled": bool, "for": str, "severity": str, "labels": dict}
SEVERITIES = ("critical", "warning", "info", "none")
# <duration> of https://prometheus.io/docs/prometheus/latest/configuration/configuration/
DURATION = re.compile(r"^(0|(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?)$")


def sources(folder=FOLDER):
    """The rule files as they are in the role: {name: text}."""
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8") as stream:
            found[name] = stream.read()
    return found


@lru_cache(maxsize=1)
def names():
    """All alerts of the role."""
    return tuple(match for text in sources().values() for match in re.findall(r"^ +- alert: (\w+)$", text, re.M))


def number(value):
    """A threshold as PromQL and people write it: 5, not 5.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def filled(text, thresholds):
    """A rule file with its thresholds. One that is not known is a KeyError."""
    return THRESHOLD.sub(lambda match: number(thresholds[match[1]]), text)


def changed(groups, changes, runbook):
    """Rule groups with the user's changes to single alerts, and where each alert's runbook is.

    :arg changes: {alert: {enabled, for, severity, labels}}
    :arg runbook: the address to which `#` and the alert's name in small letters is added
    """
    result = []
    for group in groups:
        rules = []
        for rule in group["rules"]:
            if "alert" in rule:
                rule = _changed(rule, changes.get(rule["alert"]) or {}, runbook)
            if rule:
                rules.append(rule)
        if rules:
            result.append({**group, "rules": rules})
    return result


def _changed(rule, change, runbook):
    if not change.get("enabled", True):
        return None
    labels = {**(rule.get("labels") or {}), **(change.get("labels") or {})}
    if "severity" in change:
        labels["severity"] = change["severity"]
    annotations = {**rule["annotations"], "runbook_url": f"{runbook}#{rule['alert'].lower()}"}
    result = {**rule, "labels": labels, "annotations": annotations}
    if "for" in change:
        result["for"] = change["for"]
    return result


def files(thresholds, changes, runbook):
    """What the rule files are to be: {name: {groups}}."""
    import yaml  # here, because only the controller has it for certain

    return {
        name: {"groups": changed(yaml.safe_load(filled(text, thresholds))["groups"], changes, runbook)}
        for name, text in sources().items()
    }


def problems(changes, path):
    """What is wrong with the user's changes."""
    for alert, change in changes.items():
        where = join(path, alert)
        if alert not in names():
            close = nearest(alert, names())
            mend = f"Did you mean '{close}'?" if close else "They are in docs/alerts.md"
            yield problem(where, "there is no such alert", change, mend=mend)
        elif not isinstance(change, dict):
            yield problem(where, "must be a dict", change, mend=f"It takes {', '.join(CHANGES)}")
        else:
            yield from _change_problems(change, where)


def _change_problems(change, where):
    for key, value in change.items():
        at = join(where, key)
        if key not in CHANGES:
            yield problem(at, "unknown option", value, mend=f"Options here: {', '.join(CHANGES)}")
        elif not isinstance(value, CHANGES[key]):
            kind = {bool: "true or false", str: "a string", dict: "a dict"}[CHANGES[key]]
            yield problem(at, f"must be {kind}", value)
        elif key == "for" and not (value and DURATION.match(value)):
            yield problem(at, "is no time as Prometheus writes it, such as '5m' or '1h30m'", value)
        elif key == "severity" and value not in SEVERITIES:
            yield problem(at, f"must be one of {', '.join(SEVERITIES)}", value)
        elif key == "labels":
            wrong = [name for name in value if not re.match(r"^[a-zA-Z_]\w*$", str(name))]
            if wrong:
                yield problem(at, f"{show(wrong[0])} is no name of a label", value)
