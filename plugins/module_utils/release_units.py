# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd units of an app's releases, as data. They name no release: `%i` is its id."""

from __future__ import annotations

from ansible_collections.daoman.fastapi.plugins.module_utils._host.systemd import apply_profile, escape, render

# Seconds between the end of the graceful timeout and SIGKILL, for the app's own shutdown code.
MARGIN = 10
# By these sockets an app could log under any name, and fields of any size.
JOURNAL = "-/run/systemd/journal"
# Of the sandbox: a file system of the unit's own.
OWN_MEMORY = "/dev/shm"


def socket_sections(app, socket_group):
    name = app["name"]
    return {
        "Unit": {"Description": f"Socket of {name}, release %i"},
        "Socket": {
            "ListenStream": f"/run/{name}/%i.sock",
            "SocketUser": name,
            "SocketGroup": socket_group,
            "SocketMode": "0660",
            "RemoveOnStop": True,
            "Backlog": app["gunicorn"]["backlog"],
        },
        "Install": {"WantedBy": "sockets.target"},
    }


def service_sections(app):
    name, gunicorn, service = app["name"], app["gunicorn"], app["service"]
    release = f"/srv/{name}/releases/%i"
    timeout_stop = int(gunicorn["graceful_timeout"] + app["release"]["linger"] + MARGIN)
    sections = {
        "Unit": {
            "Description": f"{name}, release %i",
            "Requires": f"{name}@%i.socket",
            "After": [f"{name}@%i.socket", "network.target"],
            # A limit that is hit would take the socket with it.
            "StartLimitIntervalSec": 0,
            # An app may tell systemd again and again that it needs more time to stop, and so keep a host from a reboot.
            "JobRunningTimeoutSec": max(service["timeout_start"], timeout_stop) + MARGIN,
        },
        "Service": {
            "Type": "notify",
            "NotifyAccess": "main",
            "User": name,
            "Group": name,
            "WorkingDirectory": f"{release}/src" + (f"/{escape(app['subdirectory'])}" if app["subdirectory"] else ""),
            "EnvironmentFile": f"{release}/env",
            "Environment": ["FASTAPI_RELEASE=%i", f"PATH={release}/venv/bin:/usr/local/bin:/usr/bin:/bin"],
            "ExecStart": f"{release}/venv/bin/python -m gunicorn --config {release}/gunicorn.conf.py",
            "KillMode": "mixed",
            "TimeoutStartSec": service["timeout_start"],
            "TimeoutStopSec": timeout_stop,
            "Restart": "always",
            "RestartSec": "200ms",
            # One worker killed for memory is replaced by the master; the others go on.
            "OOMPolicy": "continue",
            "MemoryMax": service["memory_max"],
            # Once a unit has a weight, all share the CPUs and disks as units: many workers get no more than one sshd.
            "CPUWeight": 100,
            "IOWeight": 100,
            # Of what is killed when the host's memory is short, the stack is the last.
            "OOMScoreAdjust": 200,
            # An app listens on its own socket. While Prometheus or sshd restarts, it must not answer in their place.
            # Needs BPF (Debian 13); 0, for any free port, stays.
            "SocketBindDeny": "1-32767",
            # gunicorn's own umask covers its temporary files only.
            "UMask": gunicorn["umask"],
            "LimitNOFILE": service["limit_nofile"],
            "LogRateLimitIntervalSec": service["log_rate_limit_interval"],
            "LogRateLimitBurst": service["log_rate_limit_burst"],
            # A line does not set its own priority: journald counts the lines of each priority apart.
            "SyslogLevelPrefix": service["journal_sockets"],
            "InaccessiblePaths": None if service["journal_sockets"] else JOURNAL,
            "ReadWritePaths": [f"/srv/{name}/shared", *map(escape, service["writable_paths"])],
        },
        "Install": {"WantedBy": "multi-user.target"},
    }
    sections = apply_profile(sections, service["sandbox"])
    for section, directives in service["overrides"].items():
        sections.setdefault(section, {}).update(directives)
    _give_runtime_directory(sections["Service"], f"{name}/%i")
    return sections


def _give_runtime_directory(service, otherwise):
    """Where the workers of a release coordinate: in memory of the unit's own where it has some.

    /run is one file system for all services of the host. An app that fills it keeps systemd from starting anything.
    """
    if OWN_MEMORY in str(service.get("TemporaryFileSystem")):
        service["Environment"] = [f"RUNTIME_DIRECTORY={OWN_MEMORY}", *_list(service.get("Environment"))]
    else:
        service.setdefault("RuntimeDirectory", otherwise)


def _list(value):
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def units(app, socket_group):
    """Text of both units of an app."""
    return {"service": render(service_sections(app)), "socket": render(socket_sections(app, socket_group))}
