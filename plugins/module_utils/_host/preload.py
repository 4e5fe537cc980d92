# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a release is preloaded, by what its check (`lib/fastapi_check.py`) has found.

The check runs the app's code, so its result is the app's own statement. A false one harms that app alone; here it is
bounded, and a text for people. What cannot be read is a reason not to preload.
"""

from __future__ import annotations

import json

from .release import ReleaseError

FILE = "preload.json"
# Bytes of a result, findings in it, characters of a text. What the check writes is within them.
LARGEST = 16384
MOST = 20
LONGEST = 200
STAGES = ("configuration", "import")
UNREADABLE = {"stage": "import", "where": "", "what": "left no result of its check that can be read"}
INSTEAD = (
    "Open it in the app's lifespan, which runs in each worker; or set gunicorn.preload_app to auto, which runs such a "
    "release without preload; or, if it may be shared, set gunicorn.preload_unsafe"
)


def parse_error(data):
    """Why gunicorn cannot load the app, in a line; empty where it can."""
    document = _document(data)
    if document is None:
        return UNREADABLE["what"]
    if document.get("loaded") is True:
        return ""
    return _text(document.get("error")) or "gunicorn cannot load the app"


def parse_findings(data):
    """What the app leaves open at its import: dicts with `stage`, `where` and `what`, all of them texts."""
    document = _document(data)
    found = document.get("findings") if document else None
    if not isinstance(found, list) or len(found) > MOST:
        return [dict(UNREADABLE)]
    result = []
    for item in found:
        if not isinstance(item, dict) or item.get("stage") not in STAGES:
            return [dict(UNREADABLE)]
        finding = {"stage": item["stage"], "where": _text(item.get("where")), "what": _text(item.get("what"))}
        if not finding["what"]:
            return [dict(UNREADABLE)]
        result.append(finding)
    return result


def _document(data):
    if len(data) > LARGEST:
        return None
    try:
        document = json.loads(data if isinstance(data, str) else data.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and document.get("format") == 1 else None


def _text(value):
    if not isinstance(value, str):
        return ""
    return "".join(letter if letter.isprintable() else "?" for letter in value[:LONGEST]).strip()


def describe(findings):
    """The findings in one line: the first, and how many more."""
    first = findings[0]
    when = " at import" if first["stage"] == "import" and first != UNREADABLE else ""
    more = f", and {len(findings) - 1} more of the kind" if len(findings) > 1 else ""
    return f"{first['where'] or 'the app'} {first['what']}{when}{more}"


def preload_document(setting, unsafe, findings):
    """Text of the release's preload.json. ReleaseError where preload is set, and the app does not allow it."""
    setting = str(setting).lower()
    found = _at_import(findings)
    if setting == "true" and found and not unsafe:
        raise ReleaseError(
            "check",
            f"gunicorn.preload_app is true, but {describe(found)}. All workers would share it, and requests could get "
            f"each other's answers. {INSTEAD}.",
        )
    document = {"format": 1, "preload": setting == "true" or (setting == "auto" and not found), "findings": findings}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def warning(setting, findings):
    """One line about what was found, to go after the app's name; empty where there is nothing to tell."""
    setting = str(setting).lower()
    found = _at_import(findings)
    lines = []
    if found and setting == "auto":
        lines.append(f"runs without preload: {describe(found)}")
    elif found and setting == "true":
        lines.append(f"is preloaded because gunicorn.preload_unsafe is set: {describe(found)}")
    others = [item for item in findings if item["stage"] == "configuration"]
    if others:
        what = describe([{**others[0], "where": "gunicorn.extra"}, *others[1:]])
        lines.append(f"{what}. All workers share that, also without preload: do it in the hook post_fork")
    return ". ".join(lines)


def _at_import(findings):
    return [item for item in findings if item["stage"] == "import"]
