# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host, to be read and never written: files, commands within a time, and what is where."""

from __future__ import annotations

import glob
import os
import threading
import time

from fastapi_host.files import apps, is_release, read_bytes, read_json, read_text
from fastapi_host.kit import KIT
from fastapi_host.redact import Redactor
from fastapi_host.release import Layout, env_values
from fastapi_host.run import run_bounded

from fastapi_doctor import parse

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
# Of a command: seconds, and bytes of its output.
TIMEOUT, MOST = 6, 16 << 20
# Files with secrets that are no app's: certbot's environment, and its credentials for DNS.
SECRET_ENVS = ("/etc/letsencrypt/fastapi.env",)
SECRET_SETTINGS = ("/etc/letsencrypt/fastapi-dns.ini",)


def run(*argv, timeout=TIMEOUT):
    """A command's exit code and output; 127 where it is not there, 124 where it took too long."""
    return run_bounded(argv, timeout, MOST, ENVIRONMENT)


# Of files that are root's: links in them are, too. What an app could lay elsewhere is read by fastapi_host.files.


def read(path, most=1 << 20):
    """Text of a file, or nothing."""
    try:
        return read_bytes(path, most, links=True).decode("utf-8", "replace")
    except OSError:
        return ""


def tail(path, most=4 << 20):
    """The last lines of a file: as many as fit."""
    try:
        text = read_bytes(path, most, end=True, links=True)
    except OSError:
        return []
    lines = text.decode("utf-8", "replace").splitlines()
    return lines[1:] if len(text) == most else lines


def side_by_side(work, seconds):
    """What functions without arguments return, by key, and why there is nothing of others: nobody waits for those.

    :arg work: {key: function}
    """
    found, failed = {}, {}

    def do(key, function):
        try:
            found[key] = function()
        except Exception as error:  # whatever it is, the others are still worth having
            failed[key] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=do, args=item, daemon=True) for item in work.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    late = f"it was not done within {seconds:g} s"
    return dict(found), {key: failed.get(key, late) for key in work if key not in found}


class Host:
    """What all checks start from: the settings, the apps and their live releases, the sites."""

    def __init__(self, window, config=CONFIG, deep=False):
        self.now = time.time()
        # Whether the contents of releases are read.
        self.deep = deep
        self.window = window
        given = read_json(config)
        self.thresholds = {**DEFAULTS["thresholds"], **given.get("thresholds", {})}
        self.public_addresses = given.get("addresses", [])
        self.secret_files = given.get("secret_files", [])
        self.apps = [self._app(name) for name in apps()]
        self._see_who_runs()
        self.sites = self._sites()
        servers = [server for site in self.sites for server in site["servers"]]
        self.ports = sorted({port for server in servers for port in server["ports"]})
        self.outer_ports = sorted({port for server in servers for port in server["outer_ports"]})

    def _app(self, name):
        layout = Layout(name)
        target = _link(layout.live)
        id_ = os.path.basename(target).removesuffix(".sock")
        current = os.path.basename(_link(layout.current))
        # Where the link is broken, `current` still tells which release it should be.
        wanted = id_ if is_release(id_) else current if is_release(current) else ""
        return {
            "name": name,
            "base": layout.base,
            "target": target,
            "live": wanted,
            "current": current if is_release(current) else "",
            "manifest": read_json(layout.release(wanted, "manifest.json")) if wanted else {},
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

    def redactor(self):
        """Hides what the report must not show: of all releases, for the journal tells of earlier ones."""
        public = [*self.domains(), *(app["name"] for app in self.apps)]
        redactor = Redactor()
        for app in self.apps:
            layout = Layout(app["name"])
            for id_ in layout.ids():
                redactor.add(env_values(read_text(layout.release(id_, "env"))), public)
            kept = read_json(os.path.join(KIT, app["name"] + ".json"))
            for key in ("build_env", "build_secrets"):
                redactor.add(kept.get(key) or {}, public)
        for path in SECRET_ENVS:
            redactor.add(env_values(read_text(path)), public)
        for path in (*self.secret_files, *SECRET_SETTINGS):
            redactor.add({os.path.basename(path) + "_secret": read_text(path).strip()})
        return redactor


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""
