# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left on the host: apps that the inventory does not name, units and accounts of none, maintenance."""

from __future__ import annotations

import glob
import os
import pwd

from fastapi_host import accounts, host_state

from fastapi_doctor.finding import warning
from fastapi_doctor.show import duration

MAINTENANCE = "/var/lib/fastapi/nginx/*.maintenance"


def orphans(host):
    """The facts. `recorded` is None on a host on which no run has noted the apps of the inventory."""
    there = host_state.there()
    comments = {accounts.COMMENT: "", accounts.BUILD_COMMENT: "_"}
    owned = [
        (entry.pw_name, comment)
        for entry in pwd.getpwall() for comment in comments if accounts.is_ours(entry, comment)]
    return {
        "recorded": host_state.recorded().get("apps"),
        "apps": there,
        "units": host_state.orphaned_units(there),
        "accounts": sorted(name for name, comment in owned if name.removeprefix(comments[comment]) not in there),
        "maintenance": [
            {"site": os.path.basename(path).removesuffix(".maintenance"), "seconds": host.now - os.lstat(path).st_mtime}
            for path in sorted(glob.glob(MAINTENANCE))],
    }


def judge(facts, _thresholds):
    found = facts.get("orphans")
    if not found:
        return
    for name in found["apps"] if found["recorded"] is not None else ():
        if name not in found["recorded"]:
            yield warning(
                "orphaned-app",
                name,
                "the app is not in the inventory",
                "the last run of daoman.fastapi.site did not name it, and no run releases it or changes its site",
                f"add it to fastapi_apps again, or {{name: {name}, state: absent}}, and run daoman.fastapi.site",
            )
    for unit in found["units"]:
        yield warning(
            "orphaned-unit",
            unit,
            "the unit is of an app that is not on this host",
            f"/etc/systemd/system/{unit} is the unit of a release, and there is no such app",
            f"systemctl disable --now {unit}; rm /etc/systemd/system/{unit}; systemctl daemon-reload",
        )
    for name in found["accounts"]:
        yield warning(
            "orphaned-account",
            name,
            "the account is of an app that is not on this host",
            "its comment says that this collection made it",
            f"ps -u {name}; find / -xdev -user {name}; userdel {name}",
        )
    for item in found["maintenance"]:
        yield warning(
            "maintenance-on",
            item["site"],
            "its site is in maintenance",
            f"for {duration(item['seconds'])}; clients get 503",
            f"ansible-playbook daoman.fastapi.maintenance -e app={item['site']} -e maintenance=false",
        )
