# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host, to be read and never written: files, commands within a time, and what is where."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import time
from collections import namedtuple

from fastapi_doctor import parse
from fastapi_doctor.redact import env_values, secrets_of

CONFIG = "/etc/fastapi/troubleshoot.json"
DEFAULTS = {
    # Of what they are shares of: 0 to 1. `load` is by CPU, times are seconds.
    "thresholds": {
        "disk": 0.9,
        "inodes": 0.9,
        "memory": 0.95,
        "swap": 0.8,
        "load": 4.0,
        "descriptors": 0.8,
        "errors": 0.05,
        "slow": 2.0,
        "certificate": 0.2,
        "lock": 3600,
    },
    "addresses": [],
    "secret_files": [],
}
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
RELEASE_ID = re.compile(r"^\d{8}T\d{6}Z-[0-9a-f]{12}$")
TIMEOUT = 6

Result = namedtuple("Result", "code out err")


def run(*argv, timeout=TIMEOUT):
    """A command's exit code and output; 127 where it is not there, 124 where it took too long."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
    except FileNotFoundError as error:
        return Result(127, "", str(error))
    except subprocess.TimeoutExpired:
        return Result(124, "", f"{argv[0]} took more than {timeout} s")
    return Result(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def read(path, most=1 << 20):
    """Text of a file, or nothing."""
    try:
        with open(path, "rb") as stream:
            return stream.read(most).decode("utf-8", "replace")
    except OSError:
        return ""


def tail(path, most=4 << 20):
    """The last lines of a file: as many as fit."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - most, 0))
            lines = stream.read(most).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return lines[1:] if size > most else lines


def read_json(path):
    try:
        found = json.loads(read(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class Host:
    """What all checks start from: the settings, the apps and their live releases, the sites."""

    def __init__(self, window, config=CONFIG):
        self.now = time.time()
        self.window = window
        given = read_json(config)
        self.thresholds = {**DEFAULTS["thresholds"], **given.get("thresholds", {})}
        self.public_addresses = given.get("addresses", [])
        self.secret_files = given.get("secret_files", [])
        self.apps = [self._app(path) for path in sorted(glob.glob("/srv/*/releases"))]
        self._see_who_runs()
        self.sites = self._sites()
        servers = [server for site in self.sites for server in site["servers"]]
        self.ports = sorted({port for server in servers for port in server["ports"]})
        self.outer_ports = sorted({port for server in servers for port in server["outer_ports"]})

    def _app(self, releases):
        base = os.path.dirname(releases)
        name = os.path.basename(base)
        try:
            target = os.readlink(f"{base}/live.sock")
        except OSError:
            target = ""
        id_ = os.path.basename(target).removesuffix(".sock")
        current = os.path.basename(os.path.realpath(f"{base}/current"))
        # Where the link is broken, `current` still tells which release it should be.
        wanted = id_ if RELEASE_ID.match(id_) else current if RELEASE_ID.match(current) else ""
        return {
            "name": name,
            "base": base,
            "target": target,
            "live": wanted,
            "current": current if RELEASE_ID.match(current) else "",
            "manifest": read_json(f"{releases}/{wanted}/manifest.json") if wanted else {},
        }

    def _see_who_runs(self):
        """A request to the socket of an app that is stopped would have systemd start it: it is not asked then."""
        units = [f"{app['name']}@{app['live']}.service" for app in self.apps]
        states = run("systemctl", "is-active", "--", *units).out.split() if units else []
        for app, state in zip(self.apps, states, strict=False):
            app["runs"] = state in {"active", "activating", "reloading", "deactivating", "refreshing"}

    def is_asleep(self, name):
        """Whether a site is that of an app that does not run."""
        return any(app["name"] == name and not app.get("runs") for app in self.apps)

    def _sites(self):
        found = []
        paths = (
            glob.glob("/etc/nginx/sites-enabled/*") + glob.glob("/etc/nginx/conf.d/*.conf") + ["/etc/nginx/nginx.conf"]
        )
        for path in sorted(paths):
            name = os.path.basename(path).removesuffix(".conf")
            found.append({"name": name, "file": path, **parse.nginx_site(read(path))})
        return found

    def domains(self):
        """Names that users ask for, each once, with the site it belongs to."""
        return {name: site["name"] for site in self.sites for server in site["servers"] for name in server["names"]}

    def secrets(self):
        """What the report must not show: of all releases, for the journal tells of earlier ones, and of the monitor."""
        public = [*self.domains(), *(app["name"] for app in self.apps)]
        found = {}
        for path in sorted(glob.glob("/srv/*/releases/*/env")):
            found.update(secrets_of(env_values(read(path)), public))
        for path in self.secret_files:
            text = read(path).strip()
            if len(text) >= 4:
                found[text] = f"<{os.path.basename(path)}>"
        return found
