# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What troubleshoot.sh found on each host of a fleet, as one report, and what hosts serve."""

from __future__ import annotations

import json

from ansible_collections.daoman.fastapi.plugins.module_utils._host.text import safe

ORDER = {"critical": 0, "warning": 1}


def parse(stdout):
    """The report of a host from its JSON, or None where there is none."""
    try:
        found = json.loads(stdout or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) and "findings" in found else None


def lines(reports):
    """The worst first; the same finding on several hosts once.

    :arg reports: {host: report or None where it was not examined}
    """
    found = {}
    for host, report in reports.items():
        for item in (report or {}).get("findings", []):
            key = (ORDER[item["severity"]], item["id"], item["subject"], item["title"], item["cause"])
            found.setdefault(key, (item, []))[1].append(host)
    result = []
    for _key, (item, hosts) in sorted(found.items(), key=lambda pair: pair[0]):
        result += [
            f"{item['severity'].upper():<9}{item['subject']}: {item['title']}  [{', '.join(sorted(hosts))}]",
            f"  why   {item['cause']}",
            *(f"  said  {text}" for text in item["evidence"]),
            f"  mend  {item['mend']}",
            f"  more  {item['docs']}",
        ]
    result += [f"NOT EXAMINED  {host}" for host, report in sorted(reports.items()) if report is None]
    healthy = sorted(host for host, report in reports.items() if report and not report["findings"])
    if healthy:
        result.append(f"Healthy: {', '.join(healthy)}")
    # The host has done that; what it sends is text of others here all the same.
    return safe(result)


def differing(hosts):
    """A line for each app of which hosts serve different revisions.

    :arg hosts: {host: releases as the module release_info returns them}
    """
    live = {}
    for host, releases in sorted(hosts.items()):
        for item in releases or []:
            if item["live"]:
                live.setdefault(item["app"], {}).setdefault((item["version"], item["revision"]), []).append(host)
    lines = []
    for app, of_app in sorted(live.items()):
        if len({revision for _version, revision in of_app}) > 1:
            each = [f"{version} ({revision[:19]}) on {', '.join(on)}" for (version, revision), on in of_app.items()]
            lines.append(f"{app}: hosts serve different revisions: {'; '.join(each)}")
    return safe(lines)
