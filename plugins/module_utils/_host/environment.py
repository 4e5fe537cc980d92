# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environments of an app's releases: what differs, an old release with today's, and forgetting old ones.

A release keeps its environment, so that it can be started again as it ran. Where a password was changed outside as
well, such as a database's, that of an old release is of no use any more.
"""

from __future__ import annotations

import json
import os

from . import intact, kit
from .lock import now
from .release import MANIFEST_FORMAT, ReleaseError, digest, env_values, fresh_id, read_text, sha256
from .shell import make_directory, write_file
from .switch import remove_release
from .systemd import env_file

# What of a release is the same in one with another environment.
PARTS = tuple(name for name in intact.PARTS if name != "env")


def of(layout, id_):
    """The text of a release's environment."""
    return read_text(layout.release(id_, "env"))


def names(one, other):
    """Names of the variables in which two environments differ."""
    before, after = env_values(one), env_values(other)
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def todays(layout, live):
    """The environment that the next release would have: as Ansible gave it last, or that of what serves; or None."""
    kept, _damaged = kit.load(layout.name)
    return env_file(kept["env"]) if kept else of(layout, live) if live else None


def changed(layout, id_, text):
    """What a release is made of with another environment; and the release that is that already, or None."""
    inputs = json.loads(json.dumps(layout.manifest(id_)["inputs"]))
    inputs.setdefault("files", {})["env"] = sha256(text)
    wanted = digest(inputs)
    same = [item["id"] for item in layout.releases_by_age() if item["digest"] == wanted and item["state"] != "failed"]
    return inputs, next((each for each in reversed(same) if of(layout, each) == text), None)


def with_environment(layout, id_, text, shell, by, number):
    """Make a release that is another one with this environment; its id.

    :arg number: gives the new release its place in the order
    """
    manifest = layout.manifest(id_)
    inputs, _same = changed(layout, id_, text)
    wanted = digest(inputs)
    made = fresh_id(layout, wanted)
    old, new = layout.release(id_), layout.release(made)
    try:
        status = os.stat(old)
        make_directory(new, status.st_uid, status.st_gid, status.st_mode & 0o7777)
        parts = [path for name in PARTS if os.path.lexists(path := os.path.join(old, name))]
        shell.run(["cp", "-a", "--reflink=auto", "--", *parts, new], "build", "cannot copy the release")
        write_file(os.path.join(new, "env"), text, 0o600)
        facts = {"id": made, "digest": wanted, "created": now(), "by": by, "inputs": inputs}
        facts.update(format=MANIFEST_FORMAT, sequence=number())
        intact.seal(layout, made)
        complete = json.dumps({**manifest, **facts}, indent=2, sort_keys=True) + "\n"
        write_file(os.path.join(new, "manifest.json"), complete, 0o600)
    except (OSError, ReleaseError) as exc:
        remove_release(layout, made)
        raise exc if isinstance(exc, ReleaseError) else ReleaseError("build", str(exc)) from exc
    return made


def outdated(layout, live):
    """Ids of the releases whose environment is not that of the one that serves."""
    text = of(layout, live) if live else ""
    return [id_ for id_ in layout.ids() if live and id_ != live and of(layout, id_) != text]
