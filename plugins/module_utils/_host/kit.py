# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of an app's last release by Ansible, from which `fastapictl deploy` releases another version.

They are kept only where the role hardening has made the directory, for root alone: the app's secrets are in them.
"""

from __future__ import annotations

import contextlib
import json
import os

from . import records
from .files import read_text
from .shell import write_file

KIT = "/var/lib/fastapi/deploy"
# Of the settings' meaning: one more where this package cannot use those of before. fastapictl refuses others.
VERSION = 2
SHAPE = {"name": str, "kit?": int, "source_type": str, "source": str, "env": dict}
# Of one run, and no matter of the app.
PASSING = (
    *("allow_downgrade", "break_lock", "collection", "forget_secrets", "lock_wait", "migrate", "previous", "reason"),
    *("rebuild", "release", "release_again", "resolved", "run", "set_up", "until", "upload", "who"),
)
# Collection 0.2.0 kept its own code here too, which its fastapi-deploy needs until the package is there.
FORMER, PACKAGE = "code.zip", "/usr/local/lib/fastapi/fastapi_host"


def save(prepared, check=False, kit=KIT, package=PACKAGE):
    """Keep what a release was made with; whether that is something new.

    :arg prepared: parameters of release_apply, as JSON
    """
    if not os.path.isdir(kit):
        return False
    params = {key: value for key, value in json.loads(prepared).items() if key not in PASSING}
    settings = json.dumps({**params, "kit": VERSION}, indent=1, sort_keys=True) + "\n"
    path, former = os.path.join(kit, params["name"] + ".json"), os.path.join(kit, FORMER)
    differs = read_text(path, len(settings) + 1) != settings
    if not check:
        if differs:
            damaged = records.read(path, SHAPE, VERSION)[1]
            if damaged:
                records.set_aside(path, damaged)
            write_file(path, settings, 0o600)
        if os.path.isdir(package):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(former)
    return differs


def load(app, kit=KIT):
    """The settings of an app as save() kept them, or None; and why what is there does not fit."""
    return records.read(os.path.join(kit, app + ".json"), SHAPE, VERSION)
