# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: for people, and as JSON."""

from __future__ import annotations

import textwrap
import time

from fastapi_host.text import one_line, safe

from fastapi_doctor import parse
from fastapi_doctor.finding import CRITICAL, WARNING
from fastapi_doctor.show import duration, size

DOCS = "https://github.com/daoman/ansible-collection-fastapi/blob/main/docs/troubleshooting.md"
WIDTH = 80
COLOURS = {CRITICAL: "\033[1;31m", WARNING: "\033[1;33m", "good": "\033[1;32m", "head": "\033[1m", "faint": "\033[2m"}
LABEL = 7


def ordered(findings):
    return sorted(findings, key=lambda finding: (finding.severity != CRITICAL, finding.id, finding.subject))


def as_json(facts, findings, code, redact):
    """Plain data, without secrets, and safe for a terminal."""
    report = redact(
        {
            "host": facts.get("system", {}).get("name", ""),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(facts.get("system", {}).get("now"))),
            "severity": {0: "healthy", 1: WARNING, 2: CRITICAL}[code],
            "exit_code": code,
            "findings": [
                {**vars(finding), "evidence": list(finding.evidence), "docs": f"{DOCS}#{finding.id}"}
                for finding in ordered(findings)
            ],
            "facts": facts,
        }
    )
    return safe(report)


def as_text(facts, findings, code, redact, colours=False):
    """The report as lines of at most 80 columns, but for commands, which stay whole."""

    def shown(text):
        return one_line(redact(text))

    def paint(text, colour):
        return f"{COLOURS[colour]}{text}\033[0m" if colours else text

    lines = _head(facts, paint)
    for finding in ordered(findings):
        lines.append("")
        lines += _finding(finding, shown, paint)
    lines.append("")
    for title, rows in _sections(facts):
        rows = list(rows)
        if rows:
            lines.append(paint(title, "head"))
            # A row is cut: nothing in it that a finding does not say in full.
            lines += ["  " + _indented(redact(row)) for row in rows]
            lines.append("")
    lines.append(_sum(findings, code, paint))
    if findings:
        lines.append(paint(f"More: {DOCS}", "faint"))
    return "\n".join(lines)


def _head(facts, paint):
    system = facts.get("system")
    if not system:
        return [paint("troubleshoot.sh", "head")]
    when = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(system["now"]))
    distribution = (
        " ".join(system["system"].split()[:3:2]) if system["system"].startswith("Debian") else system["system"]
    )
    return [f"{paint(system['name'], 'head')}  {distribution}, up {duration(system['uptime'])}, {when}"]


def _finding(finding, redact, paint):
    word = "CRITICAL" if finding.severity == CRITICAL else "WARNING "
    title = redact(f"{finding.subject}: {finding.title}")
    gap = " " * max(WIDTH - len(word) - len(title) - len(finding.id) - 2, 2)
    if len(word) + len(title) + len(finding.id) + 4 > WIDTH:
        gap = "\n" + " " * (WIDTH - len(finding.id) - 1)
    lines = [f"{paint(word, finding.severity)} {paint(title, 'head')}{gap}{paint('#' + finding.id, 'faint')}"]
    lines += _wrapped("why", redact(finding.cause))
    lines += [line for text in finding.evidence for line in _wrapped("said", redact(text[:400]))]
    commands = redact(finding.mend).split("; ")
    lines += [f"  {'mend' if number == 0 else '':<{LABEL - 2}}{command}" for number, command in enumerate(commands)]
    return lines


def _wrapped(label, text):
    return (
        textwrap.wrap(
            text,
            WIDTH,
            initial_indent=f"  {label:<{LABEL - 2}}",
            subsequent_indent=" " * LABEL,
            break_long_words=False,
            break_on_hyphens=False,
        )
        or []
    )


def _indented(row):
    """A row within the width, with the blanks that it begins with and that part its columns."""
    text = row.lstrip(" ")
    return _cut(" " * (len(row) - len(text)) + "  ".join(map(one_line, text.split("  "))))


def _cut(row, width=WIDTH - 2):
    return row if len(row) <= width else row[: width - 3] + "..."


def _sum(findings, code, paint):
    if not findings:
        return paint("Healthy: nothing was found.", "good")
    bad = sum(finding.severity == CRITICAL for finding in findings)
    parts = [f"{count} {word}" for count, word in ((bad, "critical"), (len(findings) - bad, "warning")) if count]
    parts = [part + "s" if part.endswith("warning") and not part.startswith("1 ") else part for part in parts]
    return paint("Found: " + ", ".join(parts), CRITICAL if code == 2 else WARNING)


# -- what was seen, whether anything is wrong with it or not ----------------------------------------------------------


def _sections(facts):
    yield "Machine", _machine(facts)
    yield "Apps", [row for app in facts.get("apps", []) for row in _app(app, facts)]
    yield "nginx", _nginx(facts)
    yield "Certificates", [_certificate(entry, facts) for entry in facts.get("certificates", [])]
    yield "Deploys", _deploys(facts)
    yield (
        "Last errors in the journal",
        [
            f"{time.strftime('%H:%M:%S', time.localtime(entry['time']))} {entry['from']}: {entry['text']}"
            for entry in facts.get("journal", {}).get("errors", [])
        ]
        + [
            f"{name}: {text}"
            for name, said in facts.get("journal", {}).get("apps", {}).items()
            for text in said["errors"][-3:]
        ],
    )


def _machine(facts):
    system, rows = facts.get("system"), []
    if system:
        memory = system["memory"]
        text = f"{size(memory.get('MemAvailable', 0))} of {size(memory.get('MemTotal', 0))} available"
        if memory.get("SwapTotal"):
            text += f", swap {size(memory['SwapTotal'] - memory['SwapFree'])} of {size(memory['SwapTotal'])}"
        rows.append(f"memory  {text}")
        rows.append(f"load    {' '.join(f'{value:.2f}' for value in system['load'])} on {system['cpus']} CPUs")
    disks = [f"{disk['path']} {disk['used']:.0%}" for disk in facts.get("filesystems", []) if disk["size"] > 1 << 26]
    if disks:
        rows.append("disks   " + ", ".join(disks))
    network = facts.get("network")
    if network:
        ports = {}
        for item in network["listeners"]:
            ports.setdefault(item["port"], set()).update(item["processes"])
        rows.append(
            "ports   " + ", ".join(f"{port} {'/'.join(sorted(names)) or '?'}" for port, names in sorted(ports.items()))
        )
    found = facts.get("units")
    if found:
        rows.append(f"units   {len(found['failed'])} failed, {len(found['timers'])} timers")
    return rows


def _app(app, facts):
    unit = f"{app['name']}@{app['live']}.service"
    known = facts.get("units", {}).get("units", {}).get(unit, {})
    entered = parse.number(known.get("ActiveEnterTimestampMonotonic")) or 0
    since = facts.get("system", {}).get("uptime", 0) - entered / 1e6
    answer = app["answer"]
    said = "not asked" if not answer else f"{answer['status'] or answer['error']} in {answer['seconds'] * 1000:.0f} ms"
    state = f"{known.get('ActiveState', '?')} {duration(since)}"
    yield f"{app['name']}  {app['version']}  {app['live'] or 'no release'}  {state}"
    memory = facts.get("units", {}).get("memory", {}).get(unit)
    used = ""
    if memory and memory["current"] is not None:
        used = f", memory {size(memory['current'])}" + (f" of {size(memory['limit'])}" if memory["limit"] else "")
    yield f"  {app['readiness'] or 'readiness'}: {said}{used}, restarts {known.get('NRestarts', '?')}"
    if app["maintenance"]:
        yield "  in maintenance: users get 503"
    if app["lock"]:
        yield f"  locked by {app['lock'].get('owner', 'somebody')}: {app['lock'].get('reason', '')}"


def _nginx(facts):
    nginx = facts.get("nginx", {})
    if not nginx.get("installed"):
        return
    service = facts.get("units", {}).get("units", {}).get("nginx.service", {})
    test = {True: "would load", False: "is broken", None: "was not tested"}[nginx["test"]["ok"]]
    yield f"nginx.service {service.get('ActiveState', '?')}, {len(nginx['workers'])} workers, the configuration {test}"
    for site, seen in facts.get("traffic", {}).get("sites", {}).items():
        slow = "" if seen["p95"] is None else f", 95 % within {seen['p95']:.3f} s"
        yield f"{site}: {seen['requests']} requests in the log, {seen['failed']} failed{slow}"
    for item in facts.get("edge", []):
        yield f"https://{item['name']}  {item['status'] or item['error']} in {item['seconds'] * 1000:.0f} ms"


def _certificate(entry, facts):
    if entry.get("ends") is None:
        return f"{entry['site']}: {entry['error'] or 'missing'}"
    left = entry["ends"] - facts.get("system", {}).get("now", time.time())
    kind = "a placeholder that signed itself" if entry["self_signed"] else f"by {entry['issuer']}"
    ends = f"ends in {duration(left)}" if left > 0 else "over"
    return f"{entry['site']}: {', '.join(entry['names_of'])}, {ends}, {kind}"


def _deploys(facts):
    for app in facts.get("apps", []):
        for line in app["history"][-3:]:
            when = line.get("time", "")[:16].replace("T", " ")
            what = f"{app['name']} {line.get('action')} {line.get('version')} {line.get('outcome')}"
            yield f"{when} {what} by {line.get('by')}: {line.get('reason')}"
