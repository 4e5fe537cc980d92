# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state on disk: metrics and outbox in one file, so that neither is ever ahead of the other."""

from __future__ import annotations

import contextlib
import json
import os
import sys


def load(path):
    """What was saved, or nothing. A damaged file is put aside: to watch matters more."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
        if isinstance(found, dict):
            return found
        raise ValueError("it is no object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        print(f"<4>{path} cannot be read ({error}); it begins anew", file=sys.stderr)
        with contextlib.suppress(OSError):
            os.replace(path, path + ".damaged")
        return {}


def save(path, state):
    """In one step: whoever reads it, also after a power cut, finds the old or the new."""
    with open(path + ".new", "w", encoding="utf-8") as stream:
        json.dump(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".new", path)


METRICS = (
    ("fastapi_resource_value", "Last reading: percent, or load by CPU.", lambda state: state["value"]),
    ("fastapi_resource_firing", "Whether an alert is on.", lambda state: int(state["fired"] is not None)),
)


def textfile(path, watches, waiting):
    """The state as node_exporter's textfile collector reads it."""
    lines = []
    for name, text, value in METRICS:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        for metric, state in sorted(watches.items()):
            resource, _colon, subject = metric.partition(":")
            subject = subject.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'{name}{{resource="{resource}",subject="{subject}"}} {value(state)}')
    lines += [
        "# HELP fastapi_resource_undelivered Messages that wait for a receiver.",
        "# TYPE fastapi_resource_undelivered gauge",
    ]
    lines += [f'fastapi_resource_undelivered{{channel="{name}"}} {count}' for name, count in sorted(waiting.items())]
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
        os.fchmod(stream.fileno(), 0o644)
    os.replace(path + ".new", path)
