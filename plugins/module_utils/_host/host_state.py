# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host remembers of the last run of the playbook site: the collection's version, the inventory's apps."""

from __future__ import annotations

import json
import os
import pwd
import re

from . import accounts, places
from .files import read_json
from .release import APP_NAME, ID, Layout, ReleaseError
from .shell import write_file

PATH = "/var/lib/fastapi/host.json"
FORMAT = 1
UNIT = re.compile(r"([a-z][a-z0-9-]{0,30})@([^@]+)\.(?:service|socket)")


def recorded(path=PATH):
    """The dict of the last run; an empty one where there is none, or one of another shape."""
    found = read_json(path)
    shapes = {"format": int, "collection": str, "apps": list}
    return found if all(isinstance(found.get(key), kind) for key, kind in shapes.items()) else {}


def record(collection, names, path=PATH):
    places.make(os.path.dirname(path))
    state = {"format": FORMAT, "collection": collection, "apps": sorted(names)}
    if recorded(path) != state:
        write_file(path, json.dumps(state) + "\n", 0o644)


def refuse_downgrade(collection, allow=False, path=PATH):
    """ReleaseError where a newer version of the collection has set this host up."""
    there = recorded(path).get("collection", "")
    if not allow and there and collection and _order(collection) < _order(there):
        raise ReleaseError(
            "choose",
            f"this host was set up by version {there} of the collection daoman.fastapi, and this run is of "
            f"{collection}. Install the newer one: ansible-galaxy collection install --upgrade daoman.fastapi. To go "
            "back to the older one, give -e allow_downgrade=true.",
        )


def _order(version):
    """Comparable: 0.3.0-dev2 comes before 0.3.0."""
    numbers, _dash, pre = version.partition("-")
    return [int(part) for part in re.findall(r"\d+", numbers)], not pre, pre


def there(root="/"):
    """Names of the apps on this host, also of damaged ones: by their accounts, or the manifests of releases."""
    named = {entry.pw_name for entry in pwd.getpwall() if accounts.is_ours(entry, accounts.COMMENT)}
    named.update(_listed(os.path.join(root, "srv")))
    return sorted(name for name in named if APP_NAME.match(name) and accounts.is_app(Layout(name, root)))


def orphaned_units(names, root="/"):
    """Units of releases, of no app of this host."""
    found = [(unit, UNIT.fullmatch(unit)) for unit in _listed(os.path.join(root, "etc/systemd/system"))]
    return sorted(unit for unit, match in found if match and ID.match(match[2]) and match[1] not in names)


def _listed(path):
    try:
        return os.listdir(path)
    except OSError:
        return []


def describe(name, root="/"):
    """An app in a few words: its domain and what serves."""
    layout = Layout(name, root)
    manifest = layout.manifest(layout.live_id() or "") or {}
    serve = manifest.get("serve")
    domain = serve.get("domain") if isinstance(serve, dict) else None
    facts = [str(fact) for fact in (domain, manifest.get("version")) if fact]
    return f"{name} ({', '.join(facts)})" if facts else name


def orphans(names, root="/"):
    """Apps of this host that the inventory does not name."""
    return [name for name in there(root) if name not in names]


def refusal(found, root="/"):
    """What to do with apps that the inventory does not name."""
    several = len(found) > 1
    shown = ", ".join(describe(name, root) for name in found)
    return (
        f"{len(found)} {'apps' if several else 'app'} of this host {'are' if several else 'is'} not in fastapi_apps: "
        f"{shown}. Nothing was changed.\n"
        f"To remove it, add to fastapi_apps: {{name: {found[0]}, state: absent}}\n"
        "To leave it as it is, with its site, service and certificate: -e keep_orphans=true"
    )
