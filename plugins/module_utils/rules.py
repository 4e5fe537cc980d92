# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What argument specs cannot say, by role: names that collide, combinations that cannot work.

A rule is a generator of problems over values filled by the spec: of the right types and fit for where they end up (see
destinations), None where a required one is missing or wrong. ROLES lists the rules of each role; check_apps() applies
the same ones to fastapi_apps, with the paths that the user wrote.
"""

from __future__ import annotations

import posixpath
import re

from ansible_collections.daoman.fastapi.plugins.module_utils import (
    certificate_rules,
    destinations,
    hardening_rules,
    monitoring_rules,
    nginx_rules,
)
from ansible_collections.daoman.fastapi.plugins.module_utils._host import release
from ansible_collections.daoman.fastapi.plugins.module_utils.header_rules import headers
from ansible_collections.daoman.fastapi.plugins.module_utils.spec import join, nearest, problem

# Seconds for which nginx keeps an idle connection to an app by default. The app must keep it longer.
NGINX_KEEPALIVE = 2
NGINX_LETS_GO = "Otherwise the app closes connections that nginx is about to use"

# Seconds that the worker keeps of the graceful timeout for ending what is still open.
LAST_SECONDS = 2
# What an app cannot do without, unless it is to be removed.
NEEDED = (
    ("domain", "api.example.com"),
    ("source", "https://git.example.com/acme/api.git"),
    ("app", "app.main:app"),
)

UNIT_NAME = re.compile(r".+\.(?P<kind>[a-z]+)")

# An app's name becomes a system user, a template unit and the directories /srv/<name> and /run/<name>:
# names that Debian, systemd or the services of this collection already use for one of them.
# fmt: off
RESERVED = frozenset([
    "root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data",
    "backup", "list", "irc", "gnats", "nobody", "messagebus", "sshd", "adm", "tty", "disk", "sudo", "audio",
    "video", "staff", "users", "kmem", "shadow", "utmp", "dialout", "plugdev", "input", "render", "sgx", "kvm",
    "crontab", "polkitd", "adduser", "user", "getty", "serial-getty", "container-getty", "console-getty", "autovt",
    "modprobe", "ifup", "systemd", "udev", "dbus", "lock", "shm", "initctl", "log", "mount", "credentials", "motd",
    "cloud-init", "docker", "containerd", "network", "networkd", "resolvconf", "netns", "nginx", "certbot", "redis",
    "redis-server", "valkey", "valkey-server", "postgres", "postgresql", "mysql", "mariadb", "memcached",
    "rabbitmq", "prometheus", "alertmanager", "grafana", "fail2ban", "nftables", "chrony", "ntp", "ssh", "cron",
    "rsyslog", "uuidd",
])
# fmt: on

# The sections that each kind of unit has besides Unit and Install.
UNIT_SECTIONS = {
    "automount": "Automount",
    "mount": "Mount",
    "path": "Path",
    "service": "Service",
    "slice": "Slice",
    "socket": "Socket",
    "swap": "Swap",
    "target": None,
    "timer": "Timer",
}


# -- names ------------------------------------------------------------------------------------------------------------


def duplicates(items, path, what):
    """items: (where, value). One problem for each value after its first place."""
    first = {}
    for where, value in items:
        if not isinstance(value, str):
            continue
        key = value.lower()
        if key in first:
            yield problem(where, f"is a second {what} of that name", value, mend=f"The first is {first[key]}")
        else:
            first[key] = where


def unique_names(items, path):
    yield from duplicates([(f"{join(path, i)}.name", item.get("name")) for i, item in enumerate(items)], path, "entry")


def unique_domains(items, path):
    names = []
    for index, item in enumerate(items):
        where = join(path, index)
        if item.get("state") == "absent":
            continue
        names.append((f"{where}.domain", item.get("domain")))
        names += [(join(f"{where}.aliases", i), name) for i, name in enumerate(item.get("aliases") or [])]
    yield from duplicates(names, path, "domain or alias")


# -- applications -----------------------------------------------------------------------------------------------------


def app(value, path):
    """One element of gunicorn_app_apps, or of fastapi_apps as far as it is the same."""
    name = value["name"] or ""
    if name in RESERVED or name.startswith("systemd-"):
        yield problem(f"{path}.name", "is taken by the system", name, mend=f"For example: {name}-api")
    if value.get("state") == "absent":
        return
    for key, example in NEEDED:
        if value[key] is None:
            yield problem(f"{path}.{key}", "is required and missing", mend=f"For example: {example}")
    yield from source(value, path)
    yield from releases(value.get("release") or {}, f"{path}.release")
    yield from processes(value, path)
    for key in ("successes", "timeout"):
        yield from at_least(value, path, f"health.{key}", 1)


def releases(value, path):
    """How an app's releases are made and judged."""
    for key in ("keep", "build_timeout", "resolve_timeout", "build_tasks_max", "build_cpu_weight", "build_io_weight"):
        yield from at_least(value, path, key, 1)
    kept = value.get("shared_paths") or []
    for index, shared in enumerate(kept):
        where = join(f"{path}.shared_paths", index)
        if isinstance(shared, str) and posixpath.normpath(shared) == ".":
            yield problem(where, "is the whole source", shared, mend="Name a path inside it, for example: media")
        for other in kept[:index]:
            if isinstance(shared, str) and isinstance(other, str) and nested(shared, other):
                yield problem(where, f"and '{other}' lie in each other", shared, mend="Leave the inner one out")
    for point, entries in (value.get("hooks") or {}).items():
        for index, entry in enumerate(entries or []):
            where = join(f"{path}.hooks.{point}", index)
            if point == "after_failure" and release.is_task_file(entry or ""):
                yield problem(where, "cannot be a file of tasks", entry, mend="Give a command")
    for key, least in (("seconds", 0), ("baseline", 1), ("requests", 1), ("latency_floor", 0), ("latency", 1)):
        yield from at_least(value, path, f"guard.{key}", least)
    rate = (value.get("guard") or {}).get("error_rate")
    if rate is not None and not 0 <= rate < 1:
        yield problem(f"{path}.guard.error_rate", "must be at least 0 and less than 1", rate, mend="5 % is 0.05")


def nested(one, other):
    one, other = (f"{posixpath.normpath(path)}/" for path in (one, other))
    return one.startswith(other) or other.startswith(one)


def source(value, path):
    origin = value["source"]
    if origin is None:
        return
    kind = value.get("source_type") or "auto"
    kind = release.source_type(origin) if kind == "auto" else kind
    version = value.get("version") or "HEAD"
    if version != "HEAD" and kind != "git":
        yield problem(
            f"{path}.version",
            f"has no meaning for a source of type '{kind}'",
            version,
            mend={
                "requirement": "Put it into the source: name==version",
            }.get(kind, "It selects a commit of a git source: leave it out"),
        )
    checksum = value.get("checksum")
    if checksum and kind not in ("archive", "wheel"):
        yield problem(
            f"{path}.checksum",
            f"has no meaning for a source of type '{kind}'",
            checksum,
            mend="It is for an archive or a wheel: leave it out",
        )
    elif not checksum and kind in ("archive", "wheel") and release.is_url(origin):
        yield problem(
            f"{path}.checksum",
            "is required for a source fetched from a URL",
            origin,
            mend="sha256: and the digest that `sha256sum` prints",
        )
    if value.get("ssh_key_file") and kind != "git":
        yield problem(
            f"{path}.ssh_key_file",
            f"has no meaning for a source of type '{kind}'",
            value["ssh_key_file"],
            mend="It is for a git source: leave it out",
        )
    subdirectory = value.get("subdirectory")
    if subdirectory and kind in ("wheel", "requirement"):
        yield problem(f"{path}.subdirectory", f"has no meaning for a source of type '{kind}'", subdirectory)


def processes(value, path):
    gunicorn = value.get("gunicorn") or {}
    service = value.get("service") or {}
    for key, least in (
        ("workers", 0),
        ("worker_connections", 0),
        ("backlog", 1),
        ("timeout", 0),
        ("graceful_timeout", 1),
        ("max_requests", 0),
        ("max_requests_jitter", 0),
    ):
        yield from at_least(value, path, f"gunicorn.{key}", least)
    requests = gunicorn.get("max_requests")
    jitter = gunicorn.get("max_requests_jitter")
    if requests and jitter and jitter > requests:
        yield problem(
            f"{path}.gunicorn.max_requests_jitter",
            f"is greater than max_requests ({requests})",
            jitter,
            mend="Half of max_requests spreads the restarts well",
        )
    if gunicorn.get("preload_unsafe") and str(gunicorn.get("preload_app")).lower() != "true":
        yield problem(
            f"{path}.gunicorn.preload_unsafe",
            "takes effect only with preload_app true",
            gunicorn["preload_unsafe"],
            mend="Leave it out",
        )
    keepalive = gunicorn.get("keepalive")
    if keepalive is not None and keepalive <= NGINX_KEEPALIVE:
        yield problem(
            f"{path}.gunicorn.keepalive",
            f"must exceed nginx's own {NGINX_KEEPALIVE} s",
            keepalive,
            mend=NGINX_LETS_GO,
        )
    linger = (value.get("release") or {}).get("linger")
    if linger is not None and linger <= NGINX_KEEPALIVE:
        yield problem(
            f"{path}.release.linger",
            f"must exceed nginx's own {NGINX_KEEPALIVE} s",
            linger,
            mend=NGINX_LETS_GO,
        )
    yield from at_least(value, path, "service.limit_nofile", 64)
    yield from at_least(value, path, "service.timeout_start", 1)
    yield from at_least(value, path, "service.log_rate_limit_interval", 1)
    yield from at_least(value, path, "service.log_rate_limit_burst", 0)
    yield from limit(service.get("exposure_limit"), f"{path}.service.exposure_limit")
    overrides = service.get("overrides") or {}
    yield from sections(overrides, f"{path}.service.overrides", "service")
    stop = (
        _seconds((overrides.get("Service") or {}).get("TimeoutStopSec"))
        if isinstance(overrides.get("Service"), dict)
        else None
    )
    graceful = gunicorn.get("graceful_timeout")
    if graceful is not None and linger is not None and graceful < linger + LAST_SECONDS:
        yield problem(
            f"{path}.gunicorn.graceful_timeout",
            f"must be at least {LAST_SECONDS} s longer than release.linger ({linger:g} s)",
            graceful,
            mend="A worker that stops answers for so long what nginx still sends",
        )
    if stop is not None and graceful is not None and stop <= graceful + (linger or 0):
        yield problem(
            f"{path}.service.overrides.Service.TimeoutStopSec",
            "must exceed graceful_timeout and linger (%g s)" % (graceful + (linger or 0)),
            stop,
            mend="systemd would kill requests that still have time",
        )


def at_least(value, path, key, least):
    section, _dot, name = key.rpartition(".")
    number = (value.get(section) or {}).get(name) if section else value.get(name)
    if isinstance(number, (int, float)) and number < least:
        yield problem(f"{path}.{key}", f"must be at least {least}", number)


def limit(value, path):
    if value is not None and not 0 < value <= 10:
        yield problem(path, "must be more than 0 and at most 10", value)


# -- nginx ------------------------------------------------------------------------------------------------------------


def site(value, path):
    """One element of nginx_sites, or of fastapi_apps[].nginx."""
    seen = {}
    for index, entry in nginx_rules.entries(value.get("static")):
        where = join(f"{path}.static", index)
        url = entry.get("url")
        if isinstance(url, str):
            if url.rstrip("/") in seen:
                first = seen[url.rstrip("/")]
                yield problem(f"{where}.url", "is there twice", url, mend=f"The first is {first}")
            else:
                seen[url.rstrip("/")] = f"{where}.url"
    yield from nginx_rules.upstream(value.get("upstream") or {}, f"{path}.upstream")
    yield from nginx_rules.locations(value, path)
    yield from headers(value.get("headers"), f"{path}.headers")


def site_of_app(value, path):
    """The site of an app, which is part of it in fastapi_apps."""
    if value.get("state") == "absent":
        return
    nginx = value.get("nginx") or {}
    yield from site(nginx, f"{path}.nginx")
    idle = (nginx.get("upstream") or {}).get("keepalive_timeout")
    seconds = _seconds(idle)
    kept = [
        (name, (value.get(section) or {}).get(option))
        for name, section, option in (
            ("gunicorn.keepalive", "gunicorn", "keepalive"),
            ("release.linger", "release", "linger"),
        )
    ]
    for name, limit_ in kept:
        if seconds is not None and limit_ is not None and limit_ > NGINX_KEEPALIVE and seconds >= limit_:
            where = f"{path}.nginx.upstream.keepalive_timeout"
            yield problem(where, f"must be shorter than {name} ({limit_:g} s)", idle, mend=NGINX_LETS_GO)
            break
    tries_timeout = (nginx.get("upstream") or {}).get("tries_timeout")
    seconds = _seconds(tries_timeout)
    killed = (value.get("gunicorn") or {}).get("timeout")
    if seconds is not None and killed and seconds >= killed:
        yield problem(
            f"{path}.nginx.upstream.tries_timeout",
            f"must be shorter than gunicorn.timeout ({killed} s)",
            tries_timeout,
            mend="Otherwise a request that blocks a worker until it is killed goes on to block the next one",
        )


# -- certificates -----------------------------------------------------------------------------------------------------


def certificate(value, path):
    names = value.get("domains")
    if names == []:
        yield problem(f"{path}.domains", "is empty", names, mend="A certificate needs at least one name")
    seen = set()
    for index, name in enumerate(names or []):
        if name is None:
            continue
        where = join(f"{path}.domains", index)
        if name.lower() in seen:
            yield problem(where, "is there twice", name)
        seen.add(name.lower())


# -- units ------------------------------------------------------------------------------------------------------------


def sections(value, path, kind):
    """The names and shapes of a unit's sections; what is in them is for systemd-analyze to judge."""
    own = UNIT_SECTIONS.get(kind)
    known = [name for name in ("Unit", own, "Install") if name]
    for name, entries in value.items():
        where = join(path, name)
        if name not in known and not str(name).startswith("X-"):
            close = nearest(name, known)
            yield problem(
                where,
                f"is no section of a {kind}",
                entries,
                mend=f"Did you mean '{close}'?" if close else "There are: {}".format(", ".join(known)),
            )
        elif not isinstance(entries, dict):
            yield problem(where, "expected a dict of directives", entries)


def unit(value, path):
    """One element of systemd_service_units."""
    name = value["name"]
    if name is None:
        return
    kind = UNIT_NAME.fullmatch(name)["kind"]
    contents = value.get("sections") or {}
    state = value.get("state")
    if state == "absent":
        return
    yield from sections(contents, f"{path}.sections", kind)
    own = UNIT_SECTIONS[kind]
    if contents and own and not isinstance(contents.get(own), dict):
        yield problem(f"{path}.sections", f"a {kind} needs the section '{own}'", contents)
    if kind != "service":
        if value.get("profile") not in (None, "none"):
            yield problem(f"{path}.profile", "is for services only", value["profile"])
        if value.get("exposure_limit") is not None:
            yield problem(f"{path}.exposure_limit", "is for services only", value["exposure_limit"])
    yield from limit(value.get("exposure_limit"), f"{path}.exposure_limit")
    if name.partition(f".{kind}")[0].endswith("@") and state == "started":
        yield problem(
            f"{path}.state",
            "a template cannot be started",
            state,
            mend="Use state 'present' here, and start its instances as units of their own",
        )
    if value.get("enabled") and contents and not contents.get("Install"):
        yield problem(
            f"{path}.enabled",
            "needs a section 'Install' to say when the unit starts",
            True,
            mend="For example: Install: {WantedBy: multi-user.target}",
        )
    if kind == "socket":
        for key, item in (contents.get("Socket") or {}).items():
            if key in ("ListenStream", "ListenDatagram", "ListenSequentialPacket"):
                for address in item if isinstance(item, list) else [item]:
                    fault = destinations.socket_path(address) if str(address).startswith("/") else None
                    if fault:
                        yield problem(f"{path}.sections.Socket.{key}", fault.text, address, mend=fault.fix)


# -- which rules apply where ------------------------------------------------------------------------------------------

# variable -> (rules for each element, rules for the whole list)
ROLES = {
    "certbot_tls": {"certbot_tls_certificates": ((certificate,), (unique_names,))},
    "gunicorn_app": {"gunicorn_app_apps": ((app,), (unique_names,))},
    "nginx": {"nginx_sites": ((site,), (unique_names, unique_domains))},
    "systemd_service": {"systemd_service_units": ((unit,), (unique_names,))},
}

# rules for a role's other variables
SETTINGS = {
    "certbot_tls": (certificate_rules.variables,),
    "hardening": (hardening_rules.variables,),
    "monitoring": monitoring_rules.RULES,
    "nginx": (nginx_rules.variables,),
}


def check(role, variables, problems=(), is_secret=None):
    """The problems of a role's variables besides those that the spec found already.

    :arg variables: the values as the spec filled them
    :arg problems: what the spec found
    :arg is_secret: function(path) -> bool, for values that must not be shown
    """
    found = _shown([item for rule in SETTINGS.get(role, ()) for item in rule(variables)], problems, is_secret)
    for variable, (single, whole) in ROLES.get(role, {}).items():
        found += _check(variables.get(variable), variable, single, whole, problems, is_secret)
    return found


def check_apps(apps, problems=(), is_secret=None, path="fastapi_apps"):
    """The same for fastapi_apps."""
    return _check(apps, path, (app, site_of_app), (unique_names, unique_domains), problems, is_secret)


def _check(items, path, single, whole, problems, is_secret):
    found = []
    for index, item in nginx_rules.entries(items):
        for rule in single:
            found.extend(rule(item, join(path, index)))
    for rule in whole:
        found.extend(rule([item or {} for item in items or []], path))
    return _shown(found, problems, is_secret)


def _shown(found, problems, is_secret):
    """What the spec did not report already, without secrets."""
    wrong = {item.path for item in problems}
    found = [item for item in found if item.path not in wrong]
    return [item.hidden() if is_secret and is_secret(item.path) else item for item in found]


def _seconds(value):
    """Seconds of a systemd time span as far as it is a plain number of seconds, else None."""
    match = re.match(r"^(\d+(?:\.\d+)?)\s*(s|sec|seconds?|min|minutes?|m)?$", str(value)) if value is not None else None
    if not match:
        return None
    return float(match.group(1)) * (60 if (match.group(2) or "s").startswith("m") else 1)
