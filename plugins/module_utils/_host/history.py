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

from . import records
from .redact import redact_url
from .shell import open_plain, write_file

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
    """Add a line, whole or not at all. Lines that do not fit are set aside before; a sentence about them."""
    tidy(layout)
    said = set_aside_lines(layout)
    text = (json.dumps(public(entry)) + "\n").encode()
    descriptor = os.open(layout.history, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _let_read(descriptor)
        size = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, text)
            while written < len(text):  # on a full disk the next one says why
                written += os.write(descriptor, text[written:])
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    return said


def read(layout):
    """The bytes of a history."""
    descriptor = open_plain(layout.history)
    if descriptor is None:
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def damaged_lines(data):
    """The lines of a history that are none, with their numbers from 1 on: also the last where it has no end."""
    lines = data.split(b"\n")
    end = len(lines) - 1
    return [
        (number + 1, line)
        for number, line in enumerate(lines)
        if (line or number < end) and (number == end or not _is_line(line))
    ]


def _is_line(line):
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def set_aside_lines(layout):
    """Move lines that were damaged, or not written to their end, to a file of their own; a sentence about them."""
    data = read(layout)
    damaged = damaged_lines(data)
    if not damaged:
        return ""
    numbers = {number for number, _line in damaged}
    kept = [line for number, line in enumerate(data.split(b"\n"), 1) if number not in numbers and line]
    # A last line that is whole but for its end is a line.
    if damaged[-1][0] == data.count(b"\n") + 1 and _is_line(damaged[-1][1]):
        kept.append(damaged.pop()[1])
    path = records.free_name(layout.history)
    if damaged:
        write_file(path, "\n".join(_text(line) for _number, line in damaged) + "\n", 0o600)
    write_file(layout.history, "".join(_text(line) + "\n" for line in kept), 0o600)
    if not damaged:
        return ""
    return f"{layout.history} had lines that do not fit ({len(damaged)}). They were set aside as {path}."


def _text(line):
    return line.decode("utf-8", "surrogateescape")


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
