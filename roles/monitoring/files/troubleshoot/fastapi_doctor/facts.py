# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathers the facts. Each function reads one thing, and they run side by side; what takes too long is given up."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import glob
import grp
import hashlib
import http.client
import itertools
import json
import os
import platform
import pwd
import re
import socket
import ssl
import stat
import sys
import threading
import time

from fastapi_host import intact, upkeep
from fastapi_host.ask import connect_unix, get
from fastapi_host.build import SYSTEM_PYTHON
from fastapi_host.files import opened, read_bytes, read_json
from fastapi_host.info import damaged_of, holds_of, set_aside_of
from fastapi_host.order import held_by, named
from fastapi_host.release import ID, Layout

from fastapi_doctor import parse
from fastapi_doctor.host import read, run, side_by_side, tail
from fastapi_doctor.judge_orphans import orphans

# Seconds for all of them; what asks the network gives up before.
DEADLINE = 8.0
ASK = 3.0
# Bytes of a file that is compared with what was released.
LARGEST = 16 << 20
# For what is done for many apps side by side, each of which is given up before.
READ = 7.0
# More seconds for reading all files of the live releases: 10 GB from a disk.
DEEP = 120.0
# The exit code of a command that took too long.
LATE = 124
# Names in a release's source that are looked at.
NAMES = 500
JOURNAL_FIELDS = "MESSAGE,MESSAGE_ID,PRIORITY,SYSLOG_IDENTIFIER,UNIT,_COMM,_PID,_SYSTEMD_UNIT"
AGENT = "fastapi-troubleshoot"
PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,UnitFileState,Result,NRestarts,MainPID,ActiveEnterTimestampMonotonic,"
    "MemoryCurrent,MemoryMax,ControlGroup,ExecMainStatus,ConditionResult"
)
# Where struct timex has its maxerror, in microseconds, and from when on systemd and NTP call a clock unsynchronised.
MAXERROR, UNSYNCHRONISED = 3 * ctypes.sizeof(ctypes.c_long), 16_000_000
NGINX_MANIFEST = "/var/lib/fastapi/nginx/manifest.json"
NGINX_DIGESTS = "/var/lib/fastapi/nginx/digests.json"


def gather(host):
    """All facts by name. What failed is in `failed`, by name too."""
    collectors = {name: functools.partial(do, host) for name, do in COLLECTORS.items()}
    facts, failed = side_by_side(collectors, DEADLINE + DEEP * host.deep)
    # Of what was looked at for each app by itself.
    for name in ("apps", "journal"):
        failed.update(facts.get(name, {}).pop("failed", {}))
    if "apps" in facts:
        facts["apps"] = facts["apps"]["apps"]
    return {**facts, "failed": failed}


# -- the machine ------------------------------------------------------------------------------------------------------


def system(host):
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', read("/etc/os-release"), re.MULTILINE))
    return {
        "name": socket.getfqdn() if "." in socket.gethostname() else socket.gethostname(),
        "system": release.get("PRETTY_NAME", ""),
        "kernel": platform.release(),
        "container": bool(read("/run/systemd/container").strip()),
        "uptime": time.clock_gettime(time.CLOCK_BOOTTIME),
        "now": host.now,
        "cpus": len(os.sched_getaffinity(0)),
        "load": [float(word) for word in read("/proc/loadavg").split()[:3]],
        "memory": parse.meminfo(read("/proc/meminfo")),
    }


def filesystems(host):
    found = []
    for path, kind, _device in parse.mounts(read("/proc/self/mountinfo")):
        if not os.path.isdir(path):  # a single file, as containers have them
            continue
        with contextlib.suppress(OSError):
            info = os.statvfs(path)
            size, free = info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize
            # Of what users other than root may have.
            usable = size - (info.f_bfree - info.f_bavail) * info.f_frsize
            found.append(
                {
                    "path": path,
                    "type": kind,
                    "size": size,
                    "free": free,
                    "used": 1 - free / usable if usable else 0.0,
                    "inodes": 1 - info.f_favail / info.f_files if info.f_files else 0.0,
                    "readonly": bool(info.f_flag & os.ST_RDONLY),
                }
            )
    return found


def clock(host):
    """Whether the clock is set by somebody, and traces of it having been ahead."""
    # Asked of the kernel: timedatectl would have systemd start a service for the answer.
    timex = ctypes.create_string_buffer(256)
    known = ctypes.CDLL(None, use_errno=True).adjtimex(timex) >= 0
    error = int.from_bytes(timex[MAXERROR : MAXERROR + ctypes.sizeof(ctypes.c_long)], sys.byteorder)
    paths = [
        *(f"{app['base']}/history.jsonl" for app in host.apps),
        *glob.glob("/var/log/nginx/*.log"),
        "/var/log/journal",
        "/var/log/dpkg.log",
        "/etc/nginx/nginx.conf",
        NGINX_MANIFEST,
    ]
    future = []
    for path in paths:
        with contextlib.suppress(OSError):
            ahead = os.stat(path).st_mtime - time.time()
            if ahead > 60:
                future.append({"path": path, "seconds": round(ahead)})
    return {"synchronised": error < UNSYNCHRONISED if known else None, "future": future}


def descriptors(host):
    """Open files of the system, of nginx and of the apps' processes, against their limits."""
    used, _free, most = (int(word) for word in read("/proc/sys/fs/file-nr").split()[:3])
    processes = []
    for pid, what in _watched_processes():
        limit = re.search(r"^Max open files\s+(\d+)", read(f"/proc/{pid}/limits"), re.MULTILINE)
        with contextlib.suppress(OSError):
            # Linux 6.2 and later; before it they are counted, which in a container even root may not do for others.
            count = os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
            if limit:
                processes.append({"what": what, "pid": pid, "used": count, "limit": int(limit.group(1))})
    return {"used": used, "limit": most, "processes": processes}


def _watched_processes():
    release = ID.pattern.removeprefix("^").removesuffix(r"\Z")
    for path in glob.glob("/proc/[0-9]*/cgroup"):
        match = re.search(rf"/([^/\n]+@{release}|nginx)\.service", read(path, 4096))
        if match:
            yield int(path.split("/")[2]), match.group(1)


# -- units ------------------------------------------------------------------------------------------------------------


def units(host):
    """The units that matter as systemd sees them, and those that failed or are off although they are enabled."""
    failed = parse.first_column(run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--all").out)
    # The links of those that are enabled: to have systemctl list unit files takes seconds on a busy host.
    timers = sorted({os.path.basename(path) for path in glob.glob("/etc/systemd/system/*.wants/*.timer")})
    names = ["nginx.service", *parse.TIME_SERVICES, *failed, *timers]
    for app in host.apps:
        if app["live"]:
            names += [f"{app['name']}@{app['live']}.{kind}" for kind in ("service", "socket")]
    shown = run("systemctl", "show", f"--property={PROPERTIES}", "--", *dict.fromkeys(names))
    if shown.code:
        raise RuntimeError(f"systemctl show: {shown.err.strip()}")
    blocks = parse.unit_blocks(shown.out)
    # The property is as old as the first look at the unit, and releases are enabled without a reload.
    own = [f"{app['name']}@{app['live']}.{kind}" for app in host.apps if app["live"] for kind in ("service", "socket")]
    states = run("systemctl", "is-enabled", "--", *own).out.split() if own else []
    for name, state in zip(own, states, strict=False):
        if name in blocks:
            blocks[name]["UnitFileState"] = state
    return {
        "units": blocks,
        "failed": failed,
        "timers": timers,
        "memory": {name: _memory(unit) for name, unit in blocks.items() if parse.number(unit.get("MainPID"))},
    }


def _memory(unit):
    """What a unit's cgroup holds without what the kernel could give back, its limit, and how often that killed."""
    cgroup = read(f"/proc/{unit['MainPID']}/cgroup")
    one = re.search(r"^\d+:memory:(\S+)$", cgroup, re.MULTILINE)
    two = re.search(r"^0::(\S+)$", cgroup, re.MULTILINE)
    if one:
        top = "/sys/fs/cgroup/memory" + one.group(1)
        used, most = read(f"{top}/memory.usage_in_bytes"), read(f"{top}/memory.limit_in_bytes")
        kills = re.search(r"^oom_kill (\d+)$", read(f"{top}/memory.oom_control"), re.MULTILINE)
        cache = re.search(r"^total_inactive_file (\d+)$", read(f"{top}/memory.stat"), re.MULTILINE)
    else:
        top = "/sys/fs/cgroup" + (two.group(1) if two else "")
        used, most = read(f"{top}/memory.current"), read(f"{top}/memory.max")
        kills = re.search(r"^oom_kill (\d+)$", read(f"{top}/memory.events"), re.MULTILINE)
        cache = re.search(r"^inactive_file (\d+)$", read(f"{top}/memory.stat"), re.MULTILINE)
    current, limit = parse.number(used.strip()), parse.number(most.strip())
    if current is not None and cache:
        current = max(current - int(cache.group(1)), 0)
    return {"current": current, "limit": limit, "oom_kills": int(kills.group(1)) if kills else 0}


def journal(host):
    """What the apps and the system said in the last minutes."""
    base = (
        *("journalctl", "--quiet", "--no-pager", "--output=json", f"--since=@{int(host.now - host.window)}"),
        f"--output-fields={JOURNAL_FIELDS}",
    )

    def of_app(name):
        # By the unit's name, also of releases that are gone; and what systemd itself says about them.
        done = run(*base, "--lines=5000", f"--unit={name}@*.service")
        if done.code == LATE:
            raise RuntimeError(done.err)
        return parse.app_journal(parse.journal(done.out))

    def entries(*arguments):
        return parse.journal(run(*base, *arguments).out)

    # One that floods the journal takes only its own time.
    work = {app["name"]: functools.partial(of_app, app["name"]) for app in host.apps}
    work["/kernel"] = functools.partial(entries, "--lines=200", "--dmesg", "--grep=Out of memory|oom-kill")
    work["/errors"] = functools.partial(entries, "--lines=20", "--priority=err")
    apps, failed = side_by_side(work, READ)
    kernel = apps.pop("/kernel", [])
    errors = [
        {
            "time": entry["time"],
            "from": entry["unit"] or entry["source"],
            "text": " ".join(entry["message"].split())[:300],
        }
        for entry in apps.pop("/errors", [])
    ]
    killed = re.compile(r"(?:Killed process|killed process) \d+ \(([^)]+)\)")
    return {
        "apps": apps,
        "failed": {f"journal of {name}": why for name, why in failed.items()},
        "oom": sorted({name for entry in kernel for name in killed.findall(entry["message"])}),
        "errors": errors[-5:],
    }


# -- apps -------------------------------------------------------------------------------------------------------------


def apps(host):
    held = parse.locks(read("/proc/locks"))
    work = {app["name"]: functools.partial(_app, app, held, host.deep) for app in host.apps}
    found, failed = side_by_side(work, READ + DEEP * host.deep)
    return {
        "apps": [found[app["name"]] for app in host.apps if app["name"] in found],
        "failed": {f"app {name}": why for name, why in failed.items()},
    }


def _app(app, held, deep):
    name, base, id_ = app["name"], app["base"], app["live"]
    release = f"{base}/releases/{id_}"
    path = app["target"] or f"/run/{name}/{id_}.sock"
    lock = read_json(f"{base}/.lock")
    serve = app["manifest"].get("serve", {})
    found = {
        **{key: app[key] for key in ("name", "target", "live", "current")},
        "version": app["manifest"].get("version", ""),
        "socket": _socket(path),
        "answer": None,
        "owner": _account(name),
        "group": app["manifest"].get("inputs", {}).get("socket_group", "www-data"),
        "files": {},
        "owners": [],
        "lock": lock,
        "lock_held": _is_held(f"{base}/.lock", held) if lock else False,
        "lock_alive": bool(lock.get("pid")) and os.path.exists(f"/proc/{lock.get('pid')}"),
        "boot": read("/proc/sys/kernel/random/boot_id").strip(),
        "history": parse.history(_history(f"{base}/history.jsonl")),
        "damaged": damaged_of(name),
        "set_aside": set_aside_of(name),
        "holds": [f"{named(hold)} is held {held_by(hold)}" for hold in holds_of(name)],
        "damage": [],
        "interpreter": {},
        "directories": _directories(name, app["manifest"].get("inputs", {})),
        "noexec": upkeep.mounted_noexec(base),
        "release_there": bool(id_) and os.path.isdir(release),
        "maintenance": os.path.exists(f"/var/lib/fastapi/nginx/{name}.maintenance"),
        "host": serve.get("domain", ""),
        "readiness": (serve.get("health") or {}).get("readiness", ""),
    }
    if found["release_there"]:
        found["files"] = _files(release, app["manifest"].get("inputs", {}).get("files", {}), name, id_)
        found["owners"] = _owners(release, base)
        found.update(_intact(name, id_, deep, {*found["files"], *(item["path"] for item in found["owners"])}))
    if found["socket"]["exists"] and found["readiness"] and app.get("runs"):
        found["answer"] = ask(found["host"], found["readiness"], unix=path)
    return found


def _intact(name, id_, deep, said):
    """What else is damaged of the live release, and its interpreter."""
    layout = Layout(name)
    venv = intact.venv_of(layout, id_)
    problem = intact.interpreter_problem(venv) if os.path.isdir(venv) else None
    known = {*said, problem.path if problem else ""}
    damage = [str(item) for item in intact.check(layout, id_, deep) if item.path not in known]
    python = intact.interpreter(venv)
    # An app that asks for another Python keeps it; which one the distribution brings is no matter of its.
    given = (layout.manifest(id_) or {}).get("inputs", {}).get("python") != os.path.basename(python)
    return {
        "damage": damage[:20],
        "interpreter": {
            "path": python,
            "problem": str(problem) if problem else "",
            "default": "" if given or os.path.dirname(python) != "/usr/bin" else os.path.realpath(SYSTEM_PYTHON),
        },
    }


def _directories(name, inputs):
    """Directories of the app with another owner or mode than the role gives them."""
    shared = inputs.get("shared_paths", [])
    passable = any(f"{path}/".startswith(f"{kept}/") for path in inputs.get("static_paths", []) for kept in shared)
    try:
        wrong = upkeep.wrong_directories(Layout(name), passable)
    except KeyError:  # the build account: the next run makes it
        return []
    return [{"path": path, "found": found, "wanted": wanted} for path, (found, wanted) in sorted(wrong.items())]


def _history(path):
    try:
        return read_bytes(path, 1 << 16, end=True).decode("utf-8", "replace")
    except OSError:
        return ""


def _socket(path):
    try:
        with opened(path, os.O_PATH) as descriptor:
            info = os.fstat(descriptor)
    except OSError:
        return {"path": path, "exists": False, "is_socket": False, "user": "", "group": "", "mode": ""}
    return {
        "path": path,
        "exists": True,
        "is_socket": stat.S_ISSOCK(info.st_mode),
        "user": _user(info.st_uid),
        "group": _group(info.st_gid),
        "mode": f"{stat.S_IMODE(info.st_mode):04o}",
    }


def _files(release, digests, name, id_):
    """What of the release, and of its units, is not as it was released: missing or changed."""
    found = {}
    for path, digest in digests.items():
        real = os.path.join(release, path)
        if path.startswith("systemd/"):
            real = f"/etc/systemd/system/{name}@{id_}.{path.partition('/')[2]}"
        try:
            same = hashlib.sha256(read_bytes(real, LARGEST)).hexdigest() == digest
            found[real] = "" if same else "changed"
        except OSError:
            found[real] = "missing"
    env = os.path.join(release, "env")
    with contextlib.suppress(OSError), opened(env, os.O_PATH) as descriptor:
        info = os.fstat(descriptor)
        if info.st_uid != 0 or info.st_mode & 0o077:
            found[env] = (
                found.get(env) or f"readable by others ({_user(info.st_uid)}, {stat.S_IMODE(info.st_mode):04o})"
            )
    return {path: what for path, what in found.items() if what}


def _owners(release, base):
    """What of a release does not belong to root, though the app must not be able to change it."""
    paths = [base, os.path.dirname(release), release, *_names(release), *_names(release + "/src")]
    wrong = []
    for path in paths:
        with contextlib.suppress(OSError):
            info = os.lstat(path)
            if info.st_uid != 0:
                wrong.append({"path": path, "user": _user(info.st_uid)})
    return wrong[:5]


def _names(directory):
    """Paths of what is in a directory: of many the first ones."""
    with (
        contextlib.suppress(OSError),
        opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor,
        os.scandir(descriptor) as entries,
    ):
        return sorted(os.path.join(directory, entry.name) for entry in itertools.islice(entries, NAMES))
    return []


def _is_held(path, held):
    with contextlib.suppress(OSError):
        info = os.stat(path)
        return (os.major(info.st_dev), os.minor(info.st_dev), info.st_ino) in held or any(
            inode == info.st_ino for _major, _minor, inode in held
        )
    return False


def _account(name):
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        return ""


def _user(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid):
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


# -- asking -----------------------------------------------------------------------------------------------------------


def ask(name, path, unix="", port=0, tls=False):
    """Status and beginning of the answer to a GET, by a unix socket or from this host; of TLS also the certificate."""
    answer = {"status": 0, "body": "", "error": "", "seconds": 0.0, "fingerprint": ""}
    begun = time.monotonic()
    deadline = begun + ASK
    connection = None
    try:
        connection = connect_unix(unix, deadline) if unix else socket.create_connection(("127.0.0.1", port), ASK)
        if tls:
            # Whose certificate it is, is judged; that it be trusted would hide which one it is.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection = context.wrap_socket(connection, server_hostname=name)
            answer["fingerprint"] = hashlib.sha256(connection.getpeercert(binary_form=True)).hexdigest()
        headers = {"Host": name, "User-Agent": AGENT, "Accept": "*/*"}
        if unix:
            headers["X-Forwarded-Proto"] = "https"
        answer["status"], body = get(connection, path, headers, deadline, 400)
        answer["body"] = body.decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        answer["error"] = str(error) or type(error).__name__
    finally:
        if connection is not None:
            connection.close()
    answer["seconds"] = round(time.monotonic() - begun, 3)
    return answer


def edge(host):
    """How nginx answers for each site, asked from this host by its name."""
    questions = {}
    for site in host.sites:
        for server in site["servers"]:
            if not server["names"] or server["proxy_protocol"] or host.is_asleep(site["name"]):
                continue
            for port in server["tls_ports"][:1]:
                name = server["names"][0]
                path = next(
                    (
                        app["manifest"].get("serve", {}).get("health", {}).get("readiness", "/")
                        for app in host.apps
                        if app["name"] == site["name"]
                    ),
                    "/",
                )
                questions[site["name"], name, port] = functools.partial(ask, name, path, port=port, tls=True)
    answers, _failed = side_by_side(questions, READ)
    return [{"site": key[0], "name": key[1], "port": key[2], **answers[key]} for key in questions if key in answers]


# -- nginx ------------------------------------------------------------------------------------------------------------


def nginx(host):
    if not os.access("/usr/sbin/nginx", os.X_OK):
        return {"installed": False}
    master = parse.number(read("/run/nginx.pid").strip()) or 0
    return {
        "installed": True,
        "test": _nginx_test(host),
        "drift": _drift(),
        "changed": _newest_change(),
        "workers": _nginx_workers(master),
        "upstreams": _upstreams(host),
        "logs": _logs(host, master),
    }


# nginx -t opens its logs and makes directories and a pid file. In a mount namespace of its own that all goes to memory.
# The words are the places, a dash, and the directories that nginx's configuration wants there.
NGINX_TEST = """
set -eu
resolv=$(readlink -f /etc/resolv.conf || true)
kept=$(cat /etc/resolv.conf 2>/dev/null || true)
while [ "$1" != - ]; do mount -t tmpfs -o mode=0755,size=16m tmpfs "$1"; shift; done
shift
for folder do mkdir -p "$folder"; done
case "$resolv" in
    /run/*) mkdir -p "$(dirname "$resolv")"; printf '%s\\n' "$kept" >"$resolv" ;;
esac
exec /usr/sbin/nginx -e stderr -t -q
"""


def _nginx_test(host):
    """Whether nginx would load what is on disk: {ok, output}, or None in `ok` where that cannot be tried."""
    places = {"/run", "/var/log/nginx", "/var/lib/nginx"}
    places.update(os.path.dirname(path) for site in host.sites for path in site["logs"])
    there = sorted(place for place in places if os.path.isdir(place) and place not in {"/", "/dev"})
    there = [place for place in there if not any(place.startswith(other + "/") for other in there)]
    words = ["nginx-test", *there, "-", *_wanted_folders(there)]
    done = run("unshare", "--mount", "--propagation", "private", "sh", "-c", NGINX_TEST, *words)
    output = (done.out + done.err).strip()
    if done.code and not re.search(r"\[(emerg|alert|crit)\]|^nginx:", output, re.MULTILINE):
        return {"ok": None, "output": output}
    return {"ok": done.code == 0, "output": output}


def _wanted_folders(places):
    """Directories below the places that nginx's configuration names, and that are there. Not those that others made."""
    named = {path for file in _configuration() for path in parse.paths(read(file))}
    paths = {path for path in named if path.startswith(tuple(f"{place}/" for place in places))}
    folders = {path if os.path.isdir(path) else os.path.dirname(path) for path in paths}
    return sorted(folder for folder in folders if os.path.isdir(folder))


def _drift():
    """Files of the role's that are not as it wrote them, by the record that it keeps."""
    digests = read_json(NGINX_DIGESTS)
    found = []
    for path, digest in digests.items():
        real = os.path.join("/etc/nginx", path)
        try:
            if os.path.islink(real):
                now = hashlib.sha256(("link " + os.readlink(real)).encode()).hexdigest()
            else:
                with open(real, "rb") as stream:
                    now = hashlib.sha256(stream.read()).hexdigest()
        except OSError:
            found.append(f"{real} is missing")
            continue
        if now != digest:
            found.append(f"{real} was changed")
    return sorted(found)


def _configuration(root="/etc/nginx"):
    """Paths of nginx's files. Certificates are looked at by themselves."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name != "tls" and not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in files)


def _newest_change():
    """When something in the configuration was last changed."""
    newest, what = 0.0, ""
    for path in _configuration():
        with contextlib.suppress(OSError):
            moment = os.lstat(path).st_ctime
            if newest < moment <= time.time():
                newest, what = moment, path
    return {"time": newest, "path": what}


def _nginx_workers(master):
    """Start of each worker that takes connections, in seconds since the epoch."""
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        fields = read(path).rpartition(")")[2].split()
        title = read(os.path.dirname(path) + "/cmdline")
        if (
            len(fields) > 19
            and fields[1] == str(master)
            and title.startswith("nginx: worker")
            and "shutting" not in title
        ):
            found[path.split("/")[2]] = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return found


def _upstreams(host):
    """Whether somebody listens where each site sends its requests."""
    wanted = []
    for site in host.sites:
        if host.is_asleep(site["name"]):
            continue
        wanted += [(site["name"], name, server) for name, servers in site["upstreams"].items() for server in servers]
        targets = [target for target in site["proxies"] if "$" not in target and target not in site["upstreams"]]
        wanted += [(site["name"], "", target) for target in targets]
    errors, late = side_by_side({server: functools.partial(_connect, server) for _site, _name, server in wanted}, READ)
    return [
        {"site": site, "upstream": name, "server": server, "error": {**errors, **late}[server]}
        for site, name, server in wanted
    ]


def _connect(server):
    try:
        if server.startswith("unix:"):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(ASK)
            connection.connect(server.removeprefix("unix:").rstrip(":"))
        else:
            name, _colon, port = server.rpartition(":") if ":" in server.rpartition("]")[2] else (server, "", "80")
            connection = socket.create_connection((name.strip("[]"), int(port)), timeout=ASK)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    connection.close()
    return ""


def _logs(host, master):
    """Nginx's logs: whether they can be written, and whether nginx still has the right ones."""
    www = _ids("www-data")
    paths = sorted({path for site in host.sites for path in site["logs"]} | {"/var/log/nginx/error.log"})
    wrong = []
    for folder in sorted({os.path.dirname(path) for path in paths if not path.startswith("/dev/")}):
        try:
            info, space = os.stat(folder), os.statvfs(folder)
        except OSError as error:
            wrong.append(f"{folder}: {error.strerror}")
            continue
        if space.f_flag & os.ST_RDONLY:
            wrong.append(f"{folder} is on a file system that is mounted read-only")
        elif not _may(info, www, 0o1):
            wrong.append(
                f"{folder} cannot be entered by www-data ({_user(info.st_uid)}, {stat.S_IMODE(info.st_mode):04o})"
            )
    for path in paths:
        with contextlib.suppress(OSError):
            info = os.stat(path)
            if stat.S_ISREG(info.st_mode) and not _may(info, www, 0o2):
                wrong.append(
                    f"{path} cannot be written by www-data ({_user(info.st_uid)}, {stat.S_IMODE(info.st_mode):04o})"
                )
    deleted = []
    for link in glob.glob(f"/proc/{master}/fd/*") if master else []:
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if target.startswith("/var/log/") and target.endswith(" (deleted)"):
                deleted.append(target.removesuffix(" (deleted)"))
    return {"wrong": wrong, "deleted": sorted(set(deleted))}


def _ids(name):
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        return (0, {0})
    return account.pw_uid, set(os.getgrouplist(name, account.pw_gid))


def _may(info, ids, bit):
    """Whether a user has a permission (1 enter, 2 write, 4 read), by owner, group and the rest, in this order."""
    uid, groups = ids
    shift = 6 if info.st_uid == uid else 3 if info.st_gid in groups else 0
    return uid == 0 or bool(info.st_mode >> shift & bit)


def traffic(host):
    found = {}
    for site in host.sites:
        lines = [line for path in site["access_logs"] if path.startswith("/") for line in tail(path)]
        if site["access_logs"] and site["upstreams"]:
            found[site["name"]] = parse.traffic(lines, host.now - host.window, AGENT)
    # Of nginx's own errors those that name a limit of its own.
    said = [line for path in glob.glob("/var/log/nginx/*error.log") for line in tail(path, 1 << 18)]
    since = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(host.now - host.window))
    recent = [line for line in said if line[:19] >= since]
    limits = re.compile(r"worker_connections are not enough|Too many open files|no live upstreams")
    return {
        "sites": found,
        "limits": sorted({match.group(0) for line in recent for match in [limits.search(line)] if match}),
    }


# -- certificates -----------------------------------------------------------------------------------------------------


def certificates(host):
    """Each certificate that a site names: of the file what openssl reads, of the key whether it belongs to it."""
    wanted = {}
    for site in host.sites:
        for server in site["servers"]:
            if server["certificate"] and "$" not in server["certificate"]:
                entry = wanted.setdefault((server["certificate"], server["key"]), {"site": site["name"], "names": []})
                entry["names"] = sorted({*entry["names"], *server["names"]})
    return [_certificate(pair, entry) for pair, entry in wanted.items()]


def _certificate(pair, entry):
    path, key = (os.path.join("/etc/nginx", name) for name in pair)
    found = {
        **entry,
        "path": path,
        "key": key,
        "there": os.path.exists(path),
        "key_there": os.path.exists(key),
        "error": "",
    }
    found["key_mode"] = ""
    if found["key_there"]:
        mode = stat.S_IMODE(os.stat(key).st_mode)
        found["key_mode"] = f"{mode:04o}" if mode & 0o007 else ""
    if not found["there"]:
        return found
    # The file as it is served: its first certificate.
    shown = run(
        "openssl",
        "x509",
        "-in",
        path,
        "-noout",
        "-dates",
        "-issuer",
        "-subject",
        "-nameopt",
        "RFC2253",
        "-ext",
        "subjectAltName",
        "-pubkey",
    )
    if shown.code:
        return {**found, "error": (shown.err.strip().splitlines() or ["openssl cannot read it"])[0]}
    found.update(parse.certificate(shown.out))
    with contextlib.suppress(ValueError, IndexError):
        first = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", read(path), re.DOTALL)[0]
        found["fingerprint"] = hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()
    if found["key_there"]:
        public = run("openssl", "pkey", "-in", key, "-pubout")
        found["key_matches"] = public.code == 0 and public.out.strip() in shown.out
    return found


# -- network ----------------------------------------------------------------------------------------------------------


def network(host):
    return {
        "addresses": parse.addresses(run("ip", "-json", "address").out),
        "listeners": parse.listeners(run("ss", "-Hltnp").out),
        "ports": host.ports,
        "public": host.public_addresses,
    }


def firewall(host):
    shown = run("nft", "--json", "list", "ruleset")
    if shown.code == 127:
        return {"there": False, "closed": []}
    if shown.code:
        raise RuntimeError(shown.err.strip() or "nft failed")
    return {"there": True, "closed": parse.closed_ports(json.loads(shown.out or "{}"), host.outer_ports)}


def dns(host):
    """Where each domain leads: by the host's own resolver, side by side, since each may be slow."""
    found = {}

    def resolve(name):
        try:
            found[name] = sorted({info[4][0] for info in socket.getaddrinfo(name, 443, proto=socket.IPPROTO_TCP)})
        except OSError as error:
            found[name] = str(error)

    threads = [threading.Thread(target=resolve, args=(name,), daemon=True) for name in list(host.domains())[:50]]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + ASK
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return {name: found.get(name, f"no answer within {ASK:g} s") for name in host.domains()}


COLLECTORS = {
    "system": system,
    "filesystems": filesystems,
    "clock": clock,
    "descriptors": descriptors,
    "units": units,
    "journal": journal,
    "apps": apps,
    "edge": edge,
    "nginx": nginx,
    "traffic": traffic,
    "certificates": certificates,
    "network": network,
    "firewall": firewall,
    "dns": dns,
    "orphans": orphans,
}
