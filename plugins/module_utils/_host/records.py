# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""State files: JSON with a format and a shape. What does not fit is named, set aside, and never deleted.

A shape is plain data: a type stands for a value of it, a tuple for one of several, a list of one shape for a list of
such values, a dict for a dict that has at least these keys. A key that ends in `?` may be missing.
"""

from __future__ import annotations

import json
import os
import stat

# A file that does not fit has this and a number at the end of its name.
ASIDE = ".damaged-"
# Bytes of a state file. The largest, a manifest, has some thousand.
MOST = 4 << 20


def misfit(value, shape):
    """What of a value is not of this shape, in words, or nothing."""
    found = _misfit(value, shape)
    return f"{found[0].lstrip('.') or 'it'} {found[1]}" if found else ""


def _misfit(value, shape):
    """Where, and what."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return "", "is not an object"
        for key, inner in shape.items():
            name = key.rstrip("?")
            if name in value:
                found = _misfit(value[name], inner)
                if found:
                    return f".{name}{found[0]}", found[1]
            elif name == key:
                return f".{name}", "is missing"
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return "", "is not a list"
        for index, each in enumerate(value):
            found = _misfit(each, shape[0])
            if found:
                return f"[{index}]{found[0]}", found[1]
        return None
    types = shape if isinstance(shape, tuple) else (shape,)
    if isinstance(value, types) and (bool in types or not isinstance(value, bool)):
        return None
    return "", f"is not of type {' or '.join(each.__name__ for each in types)}"


def parse(text, shape, newest):
    """Content and nothing, or None and why it does not fit. `newest` is the last format that this code knows."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None, "it is not JSON"
    wrong = misfit(found, shape)
    if not wrong and isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] > newest:
        wrong = f"its format {found['format']} is newer than {newest}, which this version of the collection knows"
    return (None, wrong) if wrong else (found, "")


def read(path, shape, newest):
    """As parse(), of a file; None and nothing where there is none."""
    try:
        # Nothing leads away from here, and a fifo makes nobody wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None, "it is not a regular file"
            text = stream.read(MOST + 1)
    except FileNotFoundError:
        return None, ""
    except OSError as exc:
        return None, f"it cannot be read: {exc.strerror}"
    if len(text) > MOST:
        return None, f"it is larger than {MOST} bytes"
    return parse(text, shape, newest)


def free_name(path):
    """The next name under which a file can be set aside."""
    number = 1
    while os.path.lexists(f"{path}{ASIDE}{number}"):
        number += 1
    return f"{path}{ASIDE}{number}"


def set_aside(path, why):
    """Rename a file that does not fit; a sentence that says so."""
    kept = free_name(path)
    os.rename(path, kept)
    return f"{path} does not fit: {why}. It was set aside as {kept}, and the run goes on without it."


def set_aside_files(directory):
    """Names of the files in a directory that were set aside."""
    try:
        return sorted(name for name in os.listdir(directory) if ASIDE in name)
    except OSError:
        return []
