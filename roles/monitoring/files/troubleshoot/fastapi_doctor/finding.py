# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A finding, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass, field

WARNING, CRITICAL = "warning", "critical"
# The exit code is that of the worst finding.
EXIT = {WARNING: 1, CRITICAL: 2}
# The doctor itself could not work.
FAILED = 3


@dataclass(frozen=True)
class Finding:
    """`id` is the anchor in docs/troubleshooting.md, `mend` a command or what to do."""

    id: str
    severity: str
    subject: str
    title: str
    cause: str
    mend: str
    evidence: tuple = field(default=())


def warning(id_, subject, title, cause, mend, evidence=()):
    return Finding(id_, WARNING, subject, title, cause, mend, tuple(evidence))


def critical(id_, subject, title, cause, mend, evidence=()):
    return Finding(id_, CRITICAL, subject, title, cause, mend, tuple(evidence))


def exit_code(findings):
    return max((EXIT[finding.severity] for finding in findings), default=0)


def without_others(findings, chosen, apps, domains):
    """The findings but for those about other apps than the chosen ones, and about their sites.

    :arg domains: {name that users ask for: site}
    """
    others = {*apps, *domains.values()} - set(chosen)
    others.update(name for name, site in domains.items() if site in others)
    return [finding for finding in findings if finding.subject.partition("@")[0] not in others]
