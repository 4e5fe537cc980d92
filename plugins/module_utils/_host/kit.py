# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps so that its deploy user can release another version: an app's settings, and the code that does it.

Only where the role hardening has made the directory, for root alone: there are the app's secrets in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile

from .shell import write_file

KIT = "/var/lib/fastapi/deploy"
# Of one run, and no matter of the app.
PASSING = ("break_lock", "migrate", "previous", "reason", "release", "run", "until", "upload", "who")
# As old as a zip file can say, so that the same code is the same file.
NO_TIME = (1980, 1, 1, 0, 0, 0)


def save(prepared, check=False, kit=KIT, archive=None):
    """Keep what a release was made with; whether that is something new.

    :arg prepared: parameters of release_apply, as JSON
    :arg archive: the zip file that this code runs from; None for the one it does run from
    """
    if not os.path.isdir(kit):
        return False
    archive = archive or getattr(__loader__, "archive", None)
    if archive is None:  # unpacked, for debugging
        return False
    params = {key: value for key, value in json.loads(prepared).items() if key not in PASSING}
    settings = json.dumps(params, indent=1, sort_keys=True) + "\n"
    code = _same(archive)
    changed = False
    for name, content in ((params["name"] + ".json", settings.encode()), ("code.zip", code)):
        path = os.path.join(kit, name)
        if _digest(path) != hashlib.sha256(content).hexdigest():
            changed = True
            if not check:
                write_file(path, content.decode("latin-1"), 0o600, "latin-1")
    return changed


def _same(archive):
    """The zip file without its times."""
    target = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as result:
        for name in sorted(source.namelist()):
            result.writestr(zipfile.ZipInfo(name, NO_TIME), source.read(name), zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _digest(path):
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except FileNotFoundError:
        return None
