# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of an app: a line for every deploy, rollback and return. Root writes it; the group adm may read it.

Sources come with tokens: in the user part of a URL, in its query, in its fragment. None is kept, in any line.
"""

from __future__ import annotations

import grp
import json
import os
import stat

from .redact import redact_url
from .shell import write_file

# Of those who read nginx's logs, as the exporter of metrics does.
GROUP = "adm"
# Characters of a field that are kept.
LONGEST = 2000


def public(data):
    """Plain data for others to read: no tokens in its texts, no control characters, and an end."""
    if isinstance(data, str):
        text = redact_url(data[: 2 * LONGEST])
        return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)[:LONGEST]
    if isinstance(data, dict):
        return {public(key): public(value) for key, value in data.items()}
    if isinstance(data, list):
        return [public(item) for item in data]
    return data


def append(layout, entry):
    """Add a line."""
    tidy(layout)
    descriptor = os.open(layout.history, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
        _let_read(descriptor)
        stream.write(json.dumps(public(entry)) + "\n")


def tidy(layout):
    """Take from the history and the states of releases before 0.3 what others may not read, and then all who may."""
    try:
        mode = os.lstat(layout.history).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode) or not mode & 0o007:
        return
    with open(layout.history, encoding="utf-8", errors="replace") as stream:
        lines = [_tidied(line) for line in stream]
    write_file(layout.history, "".join(lines), 0o600)
    descriptor = os.open(layout.history, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _let_read(descriptor)
    finally:
        os.close(descriptor)
    for id_ in layout.ids():
        path = layout.release(id_, "state.json")
        if os.path.isfile(path) and not os.path.islink(path):
            os.chmod(path, 0o600)


def _tidied(line):
    try:
        return json.dumps(public(json.loads(line))) + "\n"
    except (ValueError, RecursionError):
        return public(line.rstrip("\n")) + "\n"


def _let_read(descriptor):
    try:
        os.fchown(descriptor, -1, grp.getgrnam(GROUP).gr_gid)
    except (KeyError, PermissionError):  # not on Debian, or not as root
        return
    os.fchmod(descriptor, 0o640)
