# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The accounts of an app: its own, and the one that fetches and builds."""

from __future__ import annotations

import pwd


def refuse_foreign(layout):
    pass


def ensure(layout, run):
    for name, comment in ((layout.name, "FastAPI app"), (layout.builder, "FastAPI build")):
        try:
            pwd.getpwnam(name)
        except KeyError:
            argv = ["useradd", "--system", "--user-group", "--home-dir", "/nonexistent", "--no-create-home"]
            run([*argv, "--shell", "/usr/sbin/nologin", "--comment", comment, "--", name], check_rc=True)
