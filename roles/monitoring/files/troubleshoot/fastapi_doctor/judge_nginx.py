# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with nginx: its process, its configuration, its ports, its logs, its traffic and its certificates."""

from __future__ import annotations

import os
import re
import time

from fastapi_doctor import parse
from fastapi_doctor.finding import critical, warning
from fastapi_doctor.show import duration

# The kernel counts a process's start in ticks of 10 ms.
CLOCK_TICKS = 0.05
# Requests below which a share says nothing, and failures below which it is chance.
FEWEST, FEWEST_FAILED = 20, 3
SITE = "ansible-playbook daoman.fastapi.site"
ENABLED, MISSING = "/etc/nginx/sites-enabled/", " is missing"
# A file of users in what nginx says about its configuration: the role has none there.
FOREIGN = re.compile(r" in (/etc/nginx/conf\.d/\S+\.conf):\d+")


def judge(facts, thresholds):
    if not facts.get("nginx", {}).get("installed"):
        return
    yield from _process(facts)
    yield from _configuration(facts)
    yield from _ports(facts)
    yield from _upstreams(facts)
    yield from _logs(facts)
    yield from _traffic(facts, thresholds)
    for entry in facts.get("certificates", []):
        yield from _certificate(entry, facts, thresholds)


def _service(facts):
    return facts.get("units", {}).get("units", {}).get("nginx.service", {})


def is_running(facts):
    return _service(facts).get("ActiveState") in {"active", "reloading"}


def _process(facts):
    service = _service(facts)
    if service and not is_running(facts):
        yield critical(
            "nginx-stopped",
            "nginx",
            "nginx does not run",
            f"nginx.service is {service.get('ActiveState')} ({service.get('Result')})",
            "nginx -t && systemctl start nginx; journalctl -u nginx -n 30",
        )
    if service.get("UnitFileState") in {"disabled", "masked", "masked-runtime"}:
        yield warning(
            "nginx-disabled",
            "nginx",
            "nginx will not start at the next boot",
            f"nginx.service is {service['UnitFileState']}",
            "systemctl unmask nginx; systemctl enable nginx"
            if "masked" in service["UnitFileState"]
            else "systemctl enable nginx",
        )


def _configuration(facts):
    nginx = facts["nginx"]
    test = nginx["test"]
    if test["ok"] is False:
        yield critical(
            "nginx-config-broken",
            "nginx",
            "nginx would not load what is on disk",
            "the running process goes on with what it has; a restart, or a reboot, would take the sites down",
            _mend_configuration(test["output"], nginx["drift"]),
            [line for line in test["output"].splitlines() if line.strip()][:3],
        )
    off = [line for line in nginx["drift"] if line.startswith(ENABLED) and line.endswith(MISSING)]
    for line in off:
        path = line.removesuffix(MISSING)
        yield critical(
            "nginx-site-off",
            os.path.basename(path).removesuffix(".conf"),
            "the site is switched off",
            f"the link {line}: nginx does not serve this site, or will not from its next reload on",
            SITE,
        )
    drift = [line for line in nginx["drift"] if line not in off]
    if drift:
        yield warning(
            "nginx-drift",
            "nginx",
            "the configuration was changed by hand",
            "; ".join(drift[:5]),
            "ansible-playbook daoman.fastapi.site --check --diff shows what; without --check it is put back",
        )
    started = min(nginx["workers"].values(), default=None)
    if is_running(facts) and started is not None and started + CLOCK_TICKS < nginx["changed"]["time"]:
        when = time.strftime("%H:%M:%S", time.localtime(nginx["changed"]["time"]))
        yield warning(
            "nginx-not-loaded",
            "nginx",
            "nginx has not loaded what is on disk",
            f"{nginx['changed']['path']} was changed at {when}, after nginx had loaded its configuration",
            "nginx -t && systemctl reload nginx",
        )


def _mend_configuration(said, drift):
    """A file of the user's own is the user's to correct; all others are brought back."""
    match = FOREIGN.search(said)
    if match and not any(line.startswith(match[1]) for line in drift):
        return f"correct or remove {match[1]}; nginx -t"
    return SITE


def _ports(facts):
    network = facts.get("network")
    if network is None:
        return
    for port in network["ports"]:
        found = [item for item in network["listeners"] if item["port"] == port]
        others = sorted({name for item in found for name in item["processes"] if name != "nginx"})
        ours = any("nginx" in item["processes"] for item in found)
        if others:
            yield critical(
                "port-taken",
                f"port {port}",
                "another program listens where nginx should",
                f"{', '.join(others)} has port {port}",
                f"ss -ltnp 'sport = :{port}'; stop it, then: systemctl restart nginx",
            )
        elif not ours and not any(item["port"] == port for item in found) and is_running(facts):
            yield critical(
                "port-closed",
                f"port {port}",
                "nobody listens",
                f"nginx runs, and does not listen on port {port}",
                "systemctl reload nginx; tail /var/log/nginx/error.log",
            )


def _upstreams(facts):
    apps = {app["name"]: app for app in facts.get("apps", [])}
    sick = set()
    for item in facts["nginx"]["upstreams"]:
        app, live = apps.get(item["site"]), f"unix:/srv/{item['site']}/live.sock"
        where = f"{item['site']} passes requests to {item['server']}"
        if app and item["upstream"] == item["site"] and item["server"] != live:
            sick.add(item["site"])
            yield critical(
                "upstream-elsewhere",
                item["site"],
                "nginx sends the app's requests elsewhere",
                f"{where}, and the app listens at {live}" + (f" ({item['error']})" if item["error"] else ""),
                "ansible-playbook daoman.fastapi.site",
            )
        elif item["error"] and not app:
            sick.add(item["site"])
            yield critical(
                "upstream-dead",
                item["site"],
                "nobody listens behind a site",
                f"{where}: {item['error']}",
                "start what should listen there, or correct nginx_sites[].upstream",
            )
    for item in facts.get("edge", []):
        app = apps.get(item["site"])
        # What is wrong with the app or its upstream is said already, and maintenance is no fault.
        if item["site"] in sick or not is_running(facts) or (app and (app["maintenance"] or not _is_well(app))):
            continue
        if item["status"] in {502, 503, 504} or (item["error"] and not item["status"]):
            said = f"https://{item['name']}/ asked from this host: {item['status'] or item['error']}"
            yield critical(
                "edge-fails",
                item["site"],
                "nginx does not pass requests on",
                said + ("; the app itself answers" if app else ""),
                f"tail /var/log/nginx/{item['site']}.error.log",
            )


def _is_well(app):
    return bool(app["answer"]) and 200 <= app["answer"]["status"] < 300


def _logs(facts):
    logs = facts["nginx"]["logs"]
    if logs["wrong"]:
        folder = logs["wrong"][0].split()[0].rstrip(":")
        yield critical(
            "logs-not-writable",
            "nginx",
            "nginx cannot write its logs",
            "; ".join(logs["wrong"][:4]),
            f"ls -ld {folder}; a directory is root:adm 0755, a file www-data:adm 0640",
        )
    if logs["deleted"]:
        yield warning(
            "logs-deleted",
            "nginx",
            "nginx writes to a log that was deleted",
            ", ".join(logs["deleted"]),
            "nginx -s reopen",
        )


def _traffic(facts, thresholds):
    traffic = facts.get("traffic", {"sites": {}, "limits": []})
    for site, seen in traffic["sites"].items():
        if seen["requests"] >= FEWEST and seen["failed"] >= FEWEST_FAILED:
            share = seen["failed"] / seen["requests"]
            if share >= thresholds["errors"]:
                make = critical if share >= 5 * thresholds["errors"] else warning
                yield make(
                    "errors-5xx",
                    site,
                    f"{share:.0%} of the requests fail",
                    f"{seen['failed']} of {seen['requests']} were answered 5xx: {', '.join(seen['worst'])}",
                    f"journalctl -u '{site}@*' -p err -n 50; tail /var/log/nginx/{site}.error.log",
                )
        if seen["upstream_requests"] >= FEWEST and (seen["p95"] or 0) >= thresholds["slow"]:
            yield warning(
                "slow-upstream",
                site,
                "the app answers slowly",
                f"one request in twenty waited {seen['p95']:.1f} s or more for the app",
                f"jq -r 'select(.request_time > 1) | .uri' /var/log/nginx/{site}.access.log | sort | uniq -c",
            )
    if traffic["limits"]:
        yield warning(
            "nginx-limits",
            "nginx",
            "nginx has run into a limit",
            "its error log says: " + ", ".join(traffic["limits"]),
            "raise nginx_worker_connections; see /var/log/nginx/*error.log",
        )


def _certificate(entry, facts, thresholds):
    site, name = entry["site"], os.path.basename(os.path.dirname(entry["path"]))
    for what, path, there in (
        ("certificate", entry["path"], entry["there"]),
        ("key", entry["key"], entry["key_there"]),
    ):
        if not there:
            yield critical(
                "certificate-missing",
                site,
                f"the {what} is missing",
                f"nginx.conf names {path}, which is not there",
                "ansible-playbook daoman.fastapi.site puts one there; do not restart nginx before",
            )
    if entry["error"]:
        yield critical(
            "certificate-missing",
            site,
            "the certificate cannot be read",
            f"{entry['path']}: {entry['error']}",
            "ansible-playbook daoman.fastapi.site",
        )
    if not entry["there"] or entry["error"]:
        return
    if entry["key_there"] and not entry.get("key_matches", True):
        yield critical(
            "certificate-key",
            site,
            "the key does not belong to the certificate",
            f"{entry['key']} and {entry['path']}",
            f"certbot renew --cert-name {name} --force-renewal, or put the right key there",
        )
    if entry["key_mode"]:
        yield warning(
            "certificate-key",
            site,
            "the key can be read by everybody",
            f"{entry['key']} has mode {entry['key_mode']}",
            f"chmod 0600 {entry['key']}",
        )
    yield from _dates(entry, facts, thresholds, name)
    missing = [wanted for wanted in entry["names"] if not parse.is_for(wanted, entry["names_of"])]
    if missing:
        yield critical(
            "certificate-names",
            site,
            "the certificate is for other names",
            f"{entry['path']} is for {', '.join(entry['names_of']) or 'no name'}, not for {', '.join(missing)}",
            "ansible-playbook daoman.fastapi.site",
        )
    served = [item for item in facts.get("edge", []) if item["site"] == site and item["name"] in entry["names"]]
    if entry.get("fingerprint") and any(item["fingerprint"] not in {"", entry["fingerprint"]} for item in served):
        yield warning(
            "certificate-not-loaded",
            site,
            "nginx still serves an older certificate",
            f"what nginx sends is not what is in {entry['path']}",
            "nginx -t && systemctl reload nginx",
        )


def _dates(entry, facts, thresholds, name):
    now, site = facts.get("system", {}).get("now", time.time()), entry["site"]
    begins, ends = entry["begins"], entry["ends"]
    if ends is None or begins is None:
        return
    left, whole = ends - now, max(ends - begins, 1)
    renew = f"certbot renew --cert-name {name}; systemctl list-timers certbot.timer"
    if left <= 0:
        yield critical(
            "certificate-expired",
            site,
            "the certificate has expired",
            f"{entry['path']} ended {duration(-left)} ago: browsers refuse the site",
            renew,
        )
    elif begins > now:
        yield critical(
            "certificate-expired",
            site,
            "the certificate is not valid yet",
            f"{entry['path']} begins in {duration(begins - now)}: is this host's clock right?",
            "timedatectl",
        )
    elif left / whole < thresholds["certificate"]:
        yield warning(
            "certificate-expiring",
            site,
            "the certificate should have been renewed by now",
            f"{entry['path']} ends in {duration(left)}, of {duration(whole)}",
            renew,
        )
