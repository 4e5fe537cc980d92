# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the apps: their releases, units, sockets, files, locks, and what they say."""

from __future__ import annotations

import shlex

from fastapi_host.lock import AWAY

from fastapi_doctor import parse
from fastapi_doctor.finding import critical, warning
from fastapi_doctor.show import duration, size

# Restarts after which an app is not just unlucky, and the seconds in which they count.
RESTARTS, RECENT = 3, 900
CRASHES = 3
# Corrects in place what it can, and rebuilds a damaged release beside the one that serves.
DEPLOY = "ansible-playbook daoman.fastapi.deploy"


def judge(facts, thresholds):
    for app in facts.get("apps", []):
        unit = f"{app['name']}@{app['live']}"
        known = facts.get("units", {}).get("units", {})
        service, socket = known.get(f"{unit}.service", {}), known.get(f"{unit}.socket", {})
        if not app["live"]:
            yield critical(
                "app-not-live",
                app["name"],
                "no release is live",
                f"{app['target'] or 'live.sock is missing'}: it is no release's socket, and 'current' leads to none",
                DEPLOY,
            )
            yield from _around(app)
            continue
        yield from _live(app, unit, service, socket)
        yield from _unit(app, unit, service, socket, facts)
        yield from _socket_owner(app, unit)
        yield from _answer(app, unit, service)
        yield from _files(app, unit)
        yield from _damage(app)
        yield from _around(app)
        yield from _said(app, facts)
        yield from _memory(app, unit, facts)
        yield from _lock(app, facts, thresholds)
        yield from _history(app)
        yield from _records(app)


def _live(app, unit, service, socket):
    name, wanted = app["name"], f"/run/{app['name']}/{app['live']}.sock"
    link = f"/srv/{name}/live.sock"
    if not app["release_there"]:
        yield critical(
            "app-not-live",
            name,
            "the live release is gone",
            f"{link} points to {app['target']}, and there is no /srv/{name}/releases/{app['live']}",
            DEPLOY,
        )
    elif app["target"] != wanted:
        yield critical(
            "app-not-live",
            name,
            "live.sock points nowhere",
            f"{link} points to {app['target'] or 'nothing'}, where no release listens",
            f"ln -sfn {wanted} {link}.new && mv -T {link}.new {link}",
        )
    elif app["current"] != app["live"]:
        yield warning(
            "app-links-differ",
            name,
            "two releases are called the live one" if app["current"] else "the link to the live release is missing",
            f"live.sock leads to {app['live']}, current to {app['current'] or 'none'}",
            f"ln -sfn releases/{app['live']} /srv/{name}/current",
        )


def _is_up(unit):
    return unit.get("ActiveState") in {"active", "reloading", "activating", "refreshing", "deactivating"}


def _restarts(service, facts):
    """How often systemd has just restarted it; 0 where that was long ago."""
    restarts = parse.number(service.get("NRestarts")) or 0
    entered = (parse.number(service.get("ActiveEnterTimestampMonotonic")) or 0) / 1e6
    young = facts.get("system", {}).get("uptime", 0) - entered < RECENT
    return restarts if service.get("SubState") == "auto-restart" or not _is_up(service) or young else 0


def _unit(app, unit, service, socket, facts):
    name = app["name"]
    if service and not _is_up(service):
        yield critical(
            "app-stopped",
            name,
            "the app does not run",
            f"{unit}.service is {service.get('ActiveState', 'unknown')} ({service.get('Result', '')})",
            f"systemctl start {unit}.socket {unit}.service; journalctl -u {unit}.service -n 50",
        )
    restarts = _restarts(service, facts)
    if restarts >= RESTARTS:
        yield critical(
            "app-restarting",
            name,
            "the app starts again and again",
            f"systemd has restarted {unit}.service {restarts} times",
            f"journalctl -u {unit}.service -n 100; ansible-playbook daoman.fastapi.rollback -e app={name}",
            _errors(app, facts),
        )
    off = [
        f"{unit}.{kind}"
        for kind, shown in (("service", service), ("socket", socket))
        if shown.get("UnitFileState") in {"disabled", "masked", "masked-runtime", "linked"}
    ]
    if off:
        yield warning(
            "app-disabled",
            name,
            "the app will not start at the next boot",
            f"not enabled: {', '.join(off)}",
            f"systemctl enable {' '.join(off)}",
        )


def _errors(app, facts):
    return facts.get("journal", {}).get("apps", {}).get(app["name"], {}).get("errors", [])[-3:]


def _socket_owner(app, unit):
    socket, name = app["socket"], app["name"]
    if not socket["exists"]:
        return
    wanted = (name, app["group"], "0660")
    found = (socket["user"], socket["group"], socket["mode"])
    if socket["is_socket"] and found != wanted:
        yield critical(
            "app-socket-owner",
            name,
            "the socket belongs to somebody else",
            f"{socket['path']} is {found[0]}:{found[1]} {found[2]}, and should be {wanted[0]}:{wanted[1]} {wanted[2]}",
            f"chown {wanted[0]}:{wanted[1]} {socket['path']} && chmod 0660 {socket['path']}",
        )


def _answer(app, unit, service):
    name, socket, answer = app["name"], app["socket"], app["answer"]
    again = f"systemctl restart {unit}.socket {unit}.service"
    # Where live.sock leads elsewhere, that is said already.
    if not _is_up(service) or app["target"] != f"/run/{name}/{app['live']}.sock":
        return
    if not socket["exists"] or not socket["is_socket"]:
        yield critical(
            "app-socket-dead", name, "the app's socket is gone", f"there is no socket at {socket['path']}", again
        )
        return
    if not answer:
        return
    status, said = answer["status"], " ".join(answer["body"].split())[:160]
    question = f"GET {app['readiness']} with Host: {app['host']}"
    if status == 0 and "refused" in answer["error"]:
        yield critical(
            "app-socket-dead", name, "nobody listens on the app's socket", f"{socket['path']}: {answer['error']}", again
        )
    elif status == 0:
        yield critical(
            "app-not-ready",
            name,
            "the app does not answer",
            f"{question}: {answer['error']}",
            f"journalctl -u {unit}.service -n 50; {again}",
        )
    elif status == 400:
        yield critical(
            "app-host-refused",
            name,
            "the app refuses its own domain",
            f"{question} is answered 400: {said}",
            f"allow {app['host']} in the app's TrustedHostMiddleware (fastapi_apps[].env), and deploy",
        )
    elif not 200 <= status < 300:
        yield critical(
            "app-not-ready",
            name,
            "the app says it is not ready",
            f"{question} is answered {status}: {said}",
            f"journalctl -u {unit}.service -n 50",
        )


def _files(app, unit):
    name = app["name"]
    for path, what in sorted(app["files"].items()):
        if path.endswith("/env"):
            make = critical if what == "missing" else warning
            yield make(
                "app-environment",
                name,
                f"the environment file is {what}",
                f"{path}: a restart would {'fail' if what == 'missing' else 'not run with what was released'}",
                f"chown root:root {path} && chmod 0600 {path}" if what.startswith("readable") else DEPLOY,
            )
        else:
            yield warning(
                "app-files-changed",
                name,
                f"a file of the live release is {what}",
                f"{path} is not as it was released",
                DEPLOY,
            )
    if app["owners"]:
        # Whoever laid out the source has named them.
        paths = shlex.join(item["path"] for item in app["owners"])
        yield warning(
            "app-release-owner",
            name,
            "the release can be changed by others than root",
            "; ".join(f"{item['path']} belongs to {item['user']}" for item in app["owners"]),
            f"chown -h root {paths}",
        )


def _damage(app):
    """What is missing or was changed, and is not named by its path already."""
    name, python = app["name"], app["interpreter"]
    if python.get("problem"):
        yield critical(
            "app-interpreter",
            name,
            "the Python of the live release is gone",
            f"{python['problem']}: the next restart would fail",
            DEPLOY,
        )
    elif python.get("default") and python["path"] != python["default"]:
        yield warning(
            "app-interpreter",
            name,
            "the live release runs with a Python that this distribution no longer brings",
            f"it runs with {python['path']}, and the distribution's is {python['default']} now: an upgrade may remove "
            "it, and the next restart would fail",
            DEPLOY,
        )
    if app["damage"]:
        more = f", and {len(app['damage']) - 3} more" if len(app["damage"]) > 3 else ""
        yield critical(
            "release-damaged",
            name,
            "the live release is damaged",
            ", ".join(app["damage"][:3]) + more + ": the next restart, or a rarely used part of the app, would fail",
            DEPLOY,
        )


def _around(app):
    """Directories of the app, and the file system that they are on."""
    name, base = app["name"], f"/srv/{app['name']}"
    if app["directories"]:
        wrong = app["directories"]
        taken = any(item["path"] == base and not item["found"].startswith("root:") for item in wrong)
        yield critical(
            "app-directories",
            name,
            "directories of the app have another owner or mode",
            "; ".join(f"{item['path']} is {item['found']}, not {item['wanted']}" for item in wrong[:4]),
            (f"chown root:root {base}; " if taken else "") + DEPLOY,
        )
    if app["noexec"]:
        yield critical(
            "mounted-noexec",
            name,
            "its files are on a file system that is mounted noexec",
            f"{app['noexec']}: Python cannot load compiled modules from there, and the next restart would fail",
            f"mount -o remount,exec {shlex.quote(app['noexec'])}; remove noexec from its line in /etc/fstab",
        )


def _said(app, facts):
    name = app["name"]
    said = facts.get("journal", {}).get("apps", {}).get(name)
    if not said:
        return
    if said["timeouts"]:
        yield warning(
            "worker-timeouts",
            name,
            "workers hang until gunicorn kills them",
            f"{said['timeouts']} x WORKER TIMEOUT: something blocks the event loop for longer than gunicorn.timeout",
            f"journalctl -u '{name}@*' | grep -A 30 'WORKER TIMEOUT'",
            said["errors"][-2:],
        )
    # Those that the kernel killed for memory are a matter of their own.
    if said["crashes"] - _kills(app, facts) >= CRASHES:
        yield critical(
            "worker-crashes",
            name,
            "workers end again and again",
            f"{said['crashes']} workers ended by themselves",
            f"journalctl -u '{name}@*' -n 200",
            said["errors"][-3:],
        )
    if said["missing"]:
        yield critical(
            "app-environment",
            name,
            "the app misses a variable of its environment",
            "the journal names: " + ", ".join(said["missing"]),
            f"set it in fastapi_apps[].env of {name}, and deploy",
        )


def _kills(app, facts):
    """How often the kernel has killed processes of the app: by its own count, or by what systemd said of it."""
    memory = facts.get("units", {}).get("memory", {}).get(f"{app['name']}@{app['live']}.service", {})
    said = facts.get("journal", {}).get("apps", {}).get(app["name"], {})
    return max(memory.get("oom_kills", 0), said.get("oom_kills", 0))


def _memory(app, unit, facts):
    memory = facts.get("units", {}).get("memory", {}).get(f"{unit}.service")
    kills = _kills(app, facts)
    if kills:
        yield critical(
            "oom-kills",
            app["name"],
            "processes of the app were killed for memory",
            f"{kills} by the kernel, since the unit's start or in the last minutes",
            "raise service.memory_max, or have fewer gunicorn.workers; gunicorn.max_requests helps against leaks",
        )
    if not memory or not memory["limit"] or memory["current"] is None:
        return
    share = memory["current"] / memory["limit"]
    if share >= 0.9:
        yield warning(
            "memory-limit",
            app["name"],
            "the app is close to its memory limit",
            f"{size(memory['current'])} of MemoryMax {size(memory['limit'])} ({share:.0%})",
            "raise service.memory_max, or have fewer gunicorn.workers",
        )


def is_stale(lock, now, boot):
    """Whether what is written in a lock that no process holds has lost its owner; as the releases judge it."""
    if lock.get("until"):
        return now > (parse.utc(lock["until"]) or now)
    if lock.get("held"):
        return False
    away = parse.utc(lock.get("away"))
    return not away or lock.get("boot") != boot or now - away > AWAY


def _lock(app, facts, thresholds):
    lock, name = app["lock"], app["name"]
    if not lock:
        return
    now = facts.get("system", {}).get("now", 0)
    since = parse.utc(lock.get("since"))
    whose = f"{lock.get('owner', 'somebody')} since {lock.get('since', '?')}, for: {lock.get('reason', '')}"
    busy = app["lock_held"] or (not lock.get("held") and not lock.get("away") and app["lock_alive"])
    if not busy and is_stale(lock, now, app["boot"]):
        yield warning(
            "lock-stale",
            name,
            "an earlier run did not end",
            f"it left its lock: {whose}",
            "none needed: the next deploy takes the lock over and cleans up",
        )
    elif since and now - since > thresholds["lock"]:
        mend = f"ansible-playbook daoman.fastapi.unlock -e app={name} -e break_lock=true"
        yield warning(
            "lock-held",
            name,
            f"it is locked for {duration(now - since)}",
            f"no release is possible: {whose}",
            mend if lock.get("held") else f"see whether that run still works (pid {lock.get('pid', '?')}); then {mend}",
        )


def _records(app):
    for path, why in app.get("damaged", []):
        yield warning(
            "state-damaged", app["name"], "a state file is damaged", f"{path}: {why}", f"fastapictl tidy {app['name']}"
        )
    if app.get("set_aside"):
        paths = " ".join(map(shlex.quote, app["set_aside"]))
        cause = "the next runs went on without them, and nobody has looked at them yet"
        yield warning("state-set-aside", app["name"], "damaged state files were set aside", cause, f"rm {paths}")
    for held in app.get("holds", []):
        yield warning(
            "release-held",
            app["name"],
            "a release is held",
            f"{held}: deploys that ask for it keep what serves",
            "ask for another revision, or: ansible-playbook daoman.fastapi.deploy -e release_again=true",
        )


def _history(app):
    if not app["history"]:
        return
    last = app["history"][-1]
    if last.get("outcome") == "failed":
        yield warning(
            "deploy-failed",
            app["name"],
            f"the last {last.get('action', 'deploy')} failed",
            f"{last.get('version', '')}, {last.get('time', '?')}, phase {last.get('phase', '?')}: "
            + " ".join(str(last.get("message", "")).split())[:160],
            f"tail -n 1 /srv/{app['name']}/history.jsonl",
        )
