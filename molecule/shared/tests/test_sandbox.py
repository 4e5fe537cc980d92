"""What docs/hardening.md promises of sandboxes holds for every unit of the collection, and from the inside of an app's.

A unit is the collection's by its file: one of its names, a release of an app, or a package's with a drop-in of a role.
"""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

import pytest

# The promises, as `systemctl show` prints them.
PROMISES = {
    "AmbientCapabilities": "", "CapabilityBoundingSet": "", "DevicePolicy": "closed",
    "InaccessiblePaths": "-/run/dbus", "KeyringMode": "private", "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes", "NoNewPrivileges": "yes", "PrivateDevices": "yes", "PrivateIPC": "yes",
    "PrivateTmp": "yes", "PrivateUsers": "yes", "ProcSubset": "pid", "ProtectClock": "yes",
    "ProtectControlGroups": "yes", "ProtectHome": "yes", "ProtectHostname": "yes", "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes", "ProtectKernelTunables": "yes", "ProtectProc": "invisible",
    "ProtectSystem": "strict", "RemoveIPC": "yes", "RestrictNamespaces": "yes", "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes", "SystemCallArchitectures": "native",
    "TemporaryFileSystem": "/dev/shm:mode=1777,nosuid,nodev",
}
FAMILIES = {"AF_UNIX", "AF_INET", "AF_INET6"}
FORBIDDEN_CALLS = {"mount", "ptrace", "bpf", "init_module", "reboot", "swapon", "chroot"}
MOUNTS = [  # what a file system of its own brings
    "DevicePolicy", "InaccessiblePaths", "PrivateDevices", "PrivateIPC", "PrivateTmp", "PrivateUsers", "ProcSubset",
    "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs",
    "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem", "RemoveIPC", "TemporaryFileSystem",
]
# Reads /proc/stat for the time of its own start.
GO = ["ProcSubset", "TemporaryFileSystem"]
# What a unit is let off, and why. Properties, or "families" and "calls" for the last two tests.
EXCEPTIONS = {
    "fastapi-resources.service": (["ProcSubset", "ProtectProc", "ProtectHome"], "is there to see the whole machine"),
    "fastapi-apps-exporter.service": (["PrivateUsers"], "has to know which user sent a datagram"),
    "fastapi-local.service": (["AmbientCapabilities", "CapabilityBoundingSet", "PrivateUsers", "families"],
                              "holds rules of the host's own network"),
    "fastapi-edge-exporter.service": (["InaccessiblePaths"], "asks systemd how the renewal ended"),
    "prometheus-node-exporter.service": ([*MOUNTS, "families"], "is there to see the host's mounts and network"),
    "prometheus-nginx-exporter.service": (GO, "its metrics of itself"),
    "prometheus.service": ([*GO, "DevicePolicy", "ProtectSystem"], "its metrics of itself; the package's state"),
    "prometheus-alertmanager.service": ([*GO, "DevicePolicy", "ProtectSystem"], "its metrics of itself; its state"),
    "grafana-server.service": (["*"], "has the sandbox of its package"),
    "nginx.service": (["CapabilityBoundingSet", "PrivateUsers", "TemporaryFileSystem"],
                      "starts as root, to listen on 80 and 443 and to change to www-data"),
    # Root's own, which ends at once.
    "certbot.service": ([*set(MOUNTS) - {"PrivateTmp", "ProtectControlGroups", "ProtectKernelModules",
                                         "ProtectKernelTunables"},
                         "CapabilityBoundingSet", "MemoryDenyWriteExecute", "RestrictNamespaces",
                         "families", "calls"], "runs as root, and the hooks of its administrator"),
    "fastapi-firewall.service": ([*MOUNTS, "CapabilityBoundingSet", "families", "calls"],
                                 "loads rules before there are mounts"),
    "fastapi-mounts.service": ([*MOUNTS, "CapabilityBoundingSet", "calls"], "changes the host's mounts"),
    "fastapi-fail2ban.service": ([*set(MOUNTS) - {"DevicePolicy", "PrivateDevices", "PrivateTmp", "ProtectHome",
                                                  "ProtectSystem"}, "calls"], "tells fail2ban to read its logs"),
    "systemd-journald.service": (["*"], "has the sandbox of its package"),
    "logrotate.service": (["*"], "has the sandbox of its package"),
}
OTHERWISE = "ExecStart|Type|NotifyAccess|Restart|RestartSec|Requires|After|RuntimeDirectory|WantedBy|EnvironmentFile"
PROBE = Path(__file__).parent.parent / "files/probe"


def units_of_ours(host) -> list[str]:
    """The services, those of releases included."""
    found = host.check_output(r"""
        cd /etc/systemd/system
        ls -d fastapi-*.service certbot.service 2>/dev/null
        ls -d *.service.d/*fastapi*.conf 2>/dev/null | sed 's/\.d\/.*//'
        ls -d *@????????T??????Z-*.service 2>/dev/null
        true
    """).split()
    return [name for name in dict.fromkeys(found) if host.run(f"systemctl cat {name}").succeeded]


def shown(host, unit: str) -> dict[str, str]:
    names = ",".join([*PROMISES, "RestrictAddressFamilies", "SystemCallFilter"])
    output = host.check_output(f"systemctl show --property={names} {unit}")
    return dict(line.split("=", 1) for line in output.splitlines())


def test_every_unit_keeps_the_promises(host):
    broken, stale = [], []
    for unit in units_of_ours(host):
        excepted = next((names for pattern, (names, _why) in EXCEPTIONS.items() if fnmatch(unit, pattern)), [])
        if "*" in excepted:
            continue
        have = shown(host, unit)
        differ = {name for name, value in PROMISES.items() if have.get(name, "") != value}
        if PROMISES["InaccessiblePaths"] in have["InaccessiblePaths"].split():
            differ.discard("InaccessiblePaths")
        if not set(have["RestrictAddressFamilies"].split()) <= FAMILIES or not have["RestrictAddressFamilies"]:
            differ.add("families")
        calls = have["SystemCallFilter"]
        if not calls or calls.startswith("~") or set(calls.split()) & FORBIDDEN_CALLS:
            differ.add("calls")
        broken += [f"{unit}: {name} is '{have.get(name, '')}'" for name in sorted(differ - set(excepted))]
        stale += [f"{unit}: {name}" for name in sorted(set(excepted) - differ)]
    assert not broken, "\n".join(broken)
    assert not stale, "these exceptions are no longer needed:\n" + "\n".join(stale)


@pytest.fixture
def app(host):
    """The unit of a release."""
    found = [unit for unit in units_of_ours(host) if "@" in unit]
    if not found:
        pytest.skip("no app runs here")
    return found[0]


def test_an_app_gets_at_nothing_of_others(host, app):
    """By a unit like the app's, in which another program runs: as the same user, with every other line the same."""
    name = app.partition("@")[0]
    others = host.check_output(f"ls -d /srv/*/ | grep --invert-match '^/srv/{name}/$'; true").split()
    settings = {
        "address": "127.0.0.1",
        "pid": 1,
        "closed": host.check_output(
            "for path in /etc/shadow /etc/fastapi/credentials/* /etc/fastapi/alertmanager/* /etc/letsencrypt/live "
            "/etc/ssh/ssh_host_ed25519_key /var/lib/fastapi/*/*.key /var/lib/fastapi/hardening/* "
            f"/var/lib/fastapi/deploy/* {' '.join(f'{other}releases/*/env' for other in others)}; "
            "do test -f $path && echo $path; done; true").split(),
        "hidden": ["/var/lib/fastapi/hardening", "/var/lib/fastapi/deploy", *(f"{other}shared" for other in others)],
        "sockets": ["/run/systemd/private", "/run/fail2ban/fail2ban.sock", "/run/docker.sock",
                    *host.check_output(f"ls /run/*/*.sock | grep --invert-match --extended-regexp "
                                       f"'^/run/({name}|fastapi-metrics)/'; true").split()],
        "ports": [9090, 9093, 9100, 9102, 4040, 2222],
    }
    host.check_output(f"""
        echo '{json.dumps(settings)}' >/run/probe.json
        cat >/usr/local/bin/fastapi-probe <<'END'\n{PROBE.read_text(encoding="utf-8")}\nEND
        chmod 755 /usr/local/bin/fastapi-probe; install -m 4755 /usr/bin/id /usr/local/bin/probe-id
        touch /tmp/of-the-host /dev/shm/of-the-host
        systemctl cat {app} | grep --invert-match --extended-regexp '^({OTHERWISE})=' \\
            >'/run/systemd/system/probe-{app}'
        printf '[Service]\\nType=oneshot\\nStandardOutput=truncate:/run/probe-said\\n%s\\n%s\\n' \\
            'Environment=STATE_DIRECTORY=/srv/{name}/shared' \\
            'ExecStart=/usr/bin/python3 -I /usr/local/bin/fastapi-probe' >>'/run/systemd/system/probe-{app}'
        systemctl daemon-reload
    """)
    unit = f"probe-{app}"
    try:
        started = host.run(f"systemctl start {unit}")
        assert started.succeeded, host.file("/run/probe-said").content_string
        could = json.loads(host.file("/run/probe-said").content_string)
    finally:
        host.run(f"rm -f /run/systemd/system/probe-{app} /usr/local/bin/probe-id "
                 "/usr/local/bin/fastapi-probe /run/probe.json /run/probe-said /tmp/of-the-host "
                 f"/dev/shm/of-the-host /srv/{name}/shared/probe-was-here; systemctl daemon-reload; "
                 f"systemctl reset-failed {unit}")
    for fine in ("temporary file", "shared memory", "write /tmp", "any free port", "write its state"):
        assert could.pop(fine), fine
    # Of its profile, and of programs that are not here.
    for name in ("unix socket", "loopback", "network"):
        del could[name]
    listening = could.pop("listen on a service's port")
    assert not any(could.values()), {what: got for what, got in could.items() if got}
    if "+BPF_FRAMEWORK" in host.check_output("systemctl --version"):
        assert listening == []
