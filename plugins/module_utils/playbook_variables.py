# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables that users give to a playbook of this collection on the command line (`-e`).

Ansible takes every extra variable without a word, so a misspelt one has no effect, and `deploy -e release=v1` releases
something else. A name that is like one of the playbook's, or is another playbook's, is a problem.
"""

from __future__ import annotations

import re

from ansible_collections.daoman.fastapi.plugins.module_utils import spec

OPTIONS = {
    "allow_downgrade": {"type": "bool"},
    "app": {"type": "list", "elements": "str"},
    "break_lock": {"type": "bool"},
    "deep": {"type": "bool"},
    "env": {"type": "str", "choices": ["current"]},
    "fail_on": {"type": "str", "choices": ["warning", "critical"]},
    "forget_secrets": {"type": "bool"},
    "keep_orphans": {"type": "bool"},
    "lock_wait": {"type": "int"},
    "maintenance": {"type": "bool"},
    "minutes": {"type": "int"},
    "reason": {"type": "str"},
    "rebuild": {"type": "bool"},
    "release": {"type": "str"},
    "release_again": {"type": "bool"},
    "version": {"type": "str"},
    "window": {"type": "int"},
}
RELEASING = ("reason", "break_lock", "lock_wait", "release_again", "rebuild", "forget_secrets")
# By playbook, in the order in which the documentation names them.
PLAYBOOKS = {
    "site": ("app", *RELEASING, "keep_orphans", "allow_downgrade"),
    "deploy": ("app", *RELEASING, "allow_downgrade"),
    "rollback": ("app", "release", "env", "reason", "break_lock", "forget_secrets"),
    "releases": ("app",),
    "lock": ("app", "reason", "minutes", "break_lock"),
    "unlock": ("app", "break_lock"),
    "maintenance": ("app", "maintenance"),
    "troubleshoot": ("app", "window", "fail_on", "deep"),
    "deploy_version": ("app", "version"),
    "certificates": ("app",),
    "harden": (),
    "watch": (),
}
# These act on an app that serves, at once: never on one that was not named.
APP_REQUIRED = ("rollback", "lock", "unlock", "maintenance", "deploy_version")
# These read what is on the hosts: an app may be gone from the inventory.
OF_HOSTS = (*APP_REQUIRED, "releases", "troubleshoot")
# Given by Ansible and by what runs it.
PASSING = ("ansible_", "awx_", "tower_")
LIKENESS = 0.75
# What ansible-core calls the words of `-e name=value` that belong to no variable.
LEFT_OVER = "_raw_params"


def check(playbook, extra, used=(), ignored=()):
    """Problems of the extra variables of a playbook.

    :arg extra: the extra variables by name
    :arg used: names that the inventory defines or uses, which are the user's own
    :arg ignored: further names of the user's own
    """
    own = PLAYBOOKS[playbook]
    problems = []
    for name, value in sorted(extra.items()):
        if name == LEFT_OVER:
            problems.append(
                f"-e: the words {spec.show(value)} belong to no variable. Put a value with spaces in quotes inside the "
                "argument, for example: -e 'reason=\"prices with VAT\"'"
            )
        elif name in own:
            problems.extend(spec.check_option(OPTIONS[name], value, name)[1])
        elif name not in used and name not in ignored and not name.startswith(PASSING):
            problems.extend(_unknown(name, playbook, own))
    return problems


def _unknown(name, playbook, own):
    mine = "If it is a variable of yours, name it in fastapi_ignored_variables"
    others = [other for other, names in PLAYBOOKS.items() if name in names]
    close = spec.nearest(name, own, LIKENESS)
    if others:
        text = f"is a variable of the playbook {others[0]}; {playbook} has {', '.join(own) or 'none'}"
        yield spec.Problem(name, text, mend=mine)
    elif close:
        yield spec.Problem(name, "unknown variable", mend=f"Did you mean '{close}'? {mine}")


def chosen(wanted, names, fleet=(), of_host=False):
    """Names of the apps that a run is about on one host, and problems.

    :arg wanted: names that the user gave; none means all
    :arg names: the apps of the host in the inventory
    :arg fleet: the apps of all hosts of the run
    :arg of_host: whether one that the inventory does not name may be on the host
    """
    if not wanted:
        return list(names), []
    known = {*names, *fleet}
    unknown = [name for name in wanted if name not in known]
    if unknown and not of_host:
        there = ", ".join(sorted(known)) or "none"
        close = spec.nearest(unknown[0], known)
        mend = (f"Did you mean '{close}'? " if close else "") + f"There are: {there}"
        return [], [spec.Problem("app", f"fastapi_apps has no app '{name}'", mend=mend) for name in unknown]
    return [name for name in wanted if name in names or name in unknown], []


def words(value, found=None):
    """Words of all templates in a value: what they use is among them."""
    found = set() if found is None else found
    if isinstance(value, dict):
        for item in value.values():
            words(item, found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            words(item, found)
    elif isinstance(value, str) and ("{{" in value or "{%" in value):
        found.update(re.findall(r"[A-Za-z_]\w*", value))
    return found
