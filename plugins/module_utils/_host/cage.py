# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs what an app's author wrote: each command in a systemd unit of its own, as a user of the host, never as root.

There are two kinds of units. A *build* unit fetches and builds as the build account `_<app>`, which neither the running
app nor another app shares. It writes only where it is told to, and ends with all that it started. An *app* unit runs
the check and the later hooks as the app's user, with the settings and the sandbox of the app's own service.

A unit is a file below /run/systemd/system and not `systemd-run`: that would show the environment in its arguments, and
does not know every directive that a service may have.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import select
import threading
from contextlib import ExitStack, contextmanager

from . import accounts
from .lock import BREAK, exclusive
from .release import APP_NAME, ReleaseError
from .shell import not_done, read_bounded, write_file
from .systemd import CONTROL, SANDBOX, env_file, escape, quote, render
from .tree import remove

UNITS = "/run/systemd/system"
# One directory for each unit that runs: its environment, its output, and what it is given to read.
WORK = "/run/fastapi/units"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON = "/usr/bin/python3"
# With these a unit ends before its command runs (systemd.exec(5), "Process Exit Codes").
SYSTEMD_STATUS = range(200, 245)
# What a shell ends with whose command was killed; with cgroup v1 that is all that is seen of a limit of memory.
KILLED = 128 + 9
# Of what a command says: its beginning is seldom of use, its end always.
OUTPUT = 256 << 10
# Files of a unit that name others of it.
NAMING = ("ssh_config", "gitconfig")
# Of a file that it is to leave behind.
COLLECTED = 64 << 10

# A build may use just-in-time compilers, as node does, and may ask how many processors and how much memory there are.
# PrivateUsers beside ProtectProc needs CAP_SYS_PTRACE, which containers do not have.
BUILD_SANDBOX = {
    **SANDBOX,
    "MemoryDenyWriteExecute": False,
    "PrivateUsers": False,
    "ProcSubset": "all",
    "ProtectProc": "invisible",
    # And not True: a source that lies below it can be shown to the unit that fetches.
    "ProtectHome": "tmpfs",
    "SystemCallFilter": ["@system-service", "~@privileged"],
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "UMask": "0022",
    "LimitCORE": 0,
}
# What units do that are given the key of the source, by their names.
FETCH = ("resolve", "fetch")
# Seconds that a build waits for one.
LONGEST_FETCH = 900
# Sockets by which a build could ask services of the host to do something for it.
HIDDEN = ("/run/dbus", "/run/systemd/private", "/run/systemd/journal", "/run/fastapi-metrics", "/run/docker.sock")

# Of an app's service, what belongs to its life as a service and not to how its code runs.
SERVICE_ONLY = re.compile(
    r"^(Type|NotifyAccess|Exec.*|Restart.*|KillMode|KillSignal|SendSIGHUP|SendSIGKILL|Timeout.*|WatchdogS.*|RuntimeDirectory.*"
    r"|RuntimeMaxSec|RemainAfterExit|PIDFile|BusName|Sockets|OOMPolicy|Standard.*|TTY.*|SuccessExitStatus|FinalKillSignal"
    r"|NonBlocking|GuessMainPID|FileDescriptorStore.*|Slice|Delegate|WorkingDirectory)$"
)


class Cage:
    """Runs commands in units. `layout` is the app's, `shell` runs systemctl as root."""

    def __init__(self, layout, shell, limits=None):
        self.layout = layout
        self.shell = shell
        self.limits = limits or {}
        # What the last unit left in the file that it was told to.
        self.collected = ""
        self._count = 0

    # -- the two kinds

    def build(
        self, argv, phase, message,
        cwd="/", env=None, writable=(), readable=(), packages=False, fetches=False, **options,
    ):  # fmt: skip
        """Run a command of a build as the build account.

        :arg writable: paths that it may write beside its own /tmp
        :arg packages: whether it may read the virtual environment, which is closed to all but the app's group
        :arg fetches: whether it reads the source, by a key or a password, and runs nothing of it
        """
        limits = self.limits
        service = {
            "User": self.layout.build_account,
            "Group": self.layout.build_account,
            "SupplementaryGroups": self.layout.name if packages else None,
            # Beside the services of the host, or the weights would count in a slice of the unit's own only.
            "Slice": "system.slice",
            "CPUWeight": limits.get("cpu_weight", 10),
            "IOWeight": limits.get("io_weight", 10),
            "MemoryMax": limits.get("memory_max", "75%"),
            "TasksMax": limits.get("tasks_max", 1024),
            "OOMPolicy": "kill",
            "OOMScoreAdjust": 500,
            **BUILD_SANDBOX,
            "InaccessiblePaths": [quote("-" + path) for path in [*HIDDEN, self.layout.shared, *self._others()]],
            # Also what lies below a home directory, which is hidden otherwise.
            "BindReadOnlyPaths": [quote(path) for path in readable],
            "ReadWritePaths": [quote(path) for path in writable],
            "WorkingDirectory": escape(cwd),
        }
        with self._apart(fetches):
            return self._run("build", service, argv, phase, message, env, **options)

    @contextmanager
    def _apart(self, fetches):
        """Keep units that are given the key of the source from running beside those that run what is in the source.

        They have one account: what a build starts could read the files, and the memory, of the other. The lock of the
        app is not enough, because a run asks the source for its revision before it takes that, also in check mode.
        """
        make_work(WORK)
        path = os.path.join(os.path.dirname(WORK), f"keys-{self.layout.name}")
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive(path, wait=0 if fetches else LONGEST_FETCH, shared=fetches))
            except BlockingIOError as exc:
                raise ReleaseError(
                    "lock",
                    "another run is building it just now. The source is not asked meanwhile, because a build must not "
                    f"see its key or password. Try again when that run has ended. {BREAK}",
                ) from exc
            if fetches:
                # What an interrupted run left.
                accounts.end_builds(self.layout, [f"/fastapi-build-{self.layout.name}@{what}-" for what in FETCH])
            yield

    def app(self, id_, argv, phase, message, cwd="/", env=None, writable=(), **options):
        """Run a command of a release as the app's user, with the settings of the release's own service."""
        service = app_service(self.layout, id_)
        service["WorkingDirectory"] = escape(cwd)
        service["ReadWritePaths"] = _list(service.get("ReadWritePaths")) + [quote(path) for path in writable]
        return self._run("run", service, argv, phase, message, env, **options)

    def program(self, module, job, phase, message, **options):
        """Run the text of a module as the build account over a job; its answer. ReleaseError with its own sentence."""
        text = module.__spec__.loader.get_source(module.__name__)
        argv = [PYTHON, "-I", "-B", "{work}/program.py", "{work}/job.json", "{out}/answer"]
        files = {"program.py": text, "job.json": json.dumps(job), **options.pop("files", {})}
        output, code = self.build(argv, phase, message, check=False, files=files, collect="answer", **options)
        answer = read_answer(self.collected)
        if code or "failed" in answer:
            raise ReleaseError(phase, answer.get("failed") or f"{message} (ended with {code})", output)
        return answer.get("answer", "")

    def _others(self):
        """Directories of other apps: even their names are no business of a build."""
        found = []
        for releases in glob.glob("/srv/*/releases"):
            base = os.path.dirname(releases)
            name = os.path.basename(base)
            if name != self.layout.name and APP_NAME.match(name):
                found += [base, f"/run/{name}", f"/var/cache/{name}"]
        return found

    # -- how a unit runs

    def _run(
        self, kind, service, argv, phase, message,
        env=None, timeout=None, check=True, shown="", files=None, collect="", label="",
    ):  # fmt: skip
        """Run argv; its output and exit code. ReleaseError with `message` and the output when it fails.

        :arg files: texts to be put beside it, by name, mode 0400 and the unit's user's own
        :arg label: what the unit's name says it does, by default its phase
        :arg collect: file in a directory of the unit's user's own, that goes into `collected`
        `{work}` and `{out}` in argv are these directories. The second is on the app's disk, where it fills no memory.
        """
        timeout = timeout or self.shell.timeout
        self._count += 1
        what = (label or phase).replace("_", "-")
        name = f"fastapi-{kind}-{self.layout.name}@{what}-{os.getpid()}-{self._count}.service"
        work = os.path.join(WORK, name)
        out = os.path.join(self.layout.build, name)
        argv = [word.replace("{work}", work).replace("{out}", out) for word in argv]
        if collect:
            service = {**service, "ReadWritePaths": [*_list(service.get("ReadWritePaths")), quote(out)]}
        sections = {
            "Unit": {"Description": f"{phase} of {self.layout.name}"},
            "Service": {
                **service,
                "Type": "exec",
                "ExecStart": ":" + " ".join(quote(word) for word in argv),
                "EnvironmentFile": [*_list(service.get("EnvironmentFile")), os.path.join(work, "env")],
                "StandardInput": "null",
                "StandardOutput": f"file:{work}/output",
                "StandardError": "inherit",
                "RuntimeMaxSec": timeout,
                # Whatever it started ends with it.
                "KillMode": "control-group",
                "KillSignal": "SIGKILL",
                "TimeoutStopSec": 10,
            },
        }
        env = {key: str(value).replace("{work}", work) for key, value in (env or {}).items()}
        environment = {"PATH": PATH, "LANG": "C.UTF-8", **env}
        if kind == "run":  # those are of the service
            environment = env
        path = os.path.join(UNITS, name)
        ended = False
        try:
            make_work(work)
            write_file(os.path.join(work, "env"), env_file(_printable(environment)), 0o600)
            for file, text in (files or {}).items():
                text = text.replace("{work}", work) if file in NAMING else text
                give(os.path.join(work, file), text, service["User"])
            if collect:
                make_out(out, service["User"])
            write_file(path, render(sections), 0o644)
            with Output(os.path.join(work, "output")) as said:
                _out, failed = self.shell.run(
                    ["systemctl", "start", "--wait", name], phase, message, check=False, timeout=timeout + 60
                )
                result = self._result(name) if failed else {"Result": "success"}
                ended = True
            output = said.text()
            self.collected = read_bounded(os.path.join(out, collect), COLLECTED) if collect else ""
        finally:
            self._forget(name, path, work, ended)
            remove(out)
        if result["Result"] == "success":
            return output, 0
        if int(result["ExecMainStatus"] or 0) in SYSTEMD_STATUS and not output:
            raise ReleaseError(
                phase,
                f"{message}: systemd cannot set up the unit and its sandbox (status {result['ExecMainStatus']}). "
                "In a container it may need further capabilities, such as SYS_PTRACE.",
                self._journal(name),
            )
        return self._failed(result, service, argv, phase, message, output, timeout, check, shown)

    def _journal(self, name):
        """What systemd says about a unit."""
        command = ["journalctl", "--no-pager", "--quiet", "--output", "cat", "--lines", "10", "--unit", name]
        return self.shell.run(command, "cage", "", check=False)[0]

    def _result(self, name):
        shown, _code = self.shell.run(
            ["systemctl", "show", "--property=Result,ExecMainCode,ExecMainStatus", name], "cage", "", check=False
        )
        self.shell.run(["systemctl", "reset-failed", name], "cage", "", check=False)
        found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return {"Result": "unknown", "ExecMainStatus": "1", **found}

    def _forget(self, name, path, work, ended=False):
        if not ended:
            for verb in (["kill", "--signal=KILL"], ["stop"], ["reset-failed"]):
                self.shell.run(["systemctl", *verb, name], "cage", "", check=False)
        for each in (path, work):
            remove(each)

    def _failed(self, result, service, argv, phase, message, output, timeout, check, shown):
        reason, status = result["Result"], int(result["ExecMainStatus"] or 1)
        if reason == "timeout":
            raise ReleaseError(phase, f"{message}: {not_done(phase, timeout)}", output)
        if reason == "oom-kill":
            raise ReleaseError(
                phase,
                f"{message}: it was killed because it used more memory than {service.get('MemoryMax') or 'there is'}. "
                "Raise release.build_memory_max for a build, service.memory_max for the app.",
                output,
            )
        if check:
            how = f"ended with {status}" if reason == "exit-code" else f"ended by {reason}"
            if status == KILLED:
                how += f", which is a kill: its limit of memory is {service.get('MemoryMax') or 'that of the host'}"
            raise ReleaseError(phase, f"{message} ({shown or ' '.join(argv[:3]) + ' ...'} {how})", output)
        return output, status or 1

    def end_leftovers(self):
        """End the units that an interrupted run of this app left, and all processes of its build account."""
        for kind in ("build", "run"):
            pattern = f"fastapi-{kind}-{self.layout.name}@*.service"
            listing = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", pattern]
            listed, _code = self.shell.run(listing, "cage", "", check=False)
            for name in (line.split()[0] for line in listed.splitlines() if line.strip()):
                if name.startswith(f"fastapi-{kind}-{self.layout.name}@"):
                    self._forget(name, os.path.join(UNITS, name), os.path.join(WORK, name))
        for name in os.listdir(self.layout.build) if os.path.isdir(self.layout.build) else ():
            if name.startswith("fastapi-"):
                remove(os.path.join(self.layout.build, name))


class Output:
    """What a unit prints, for use in a with statement.

    It goes through a pipe, of which the beginning and the end are kept: in a file it could fill /run.
    """

    def __init__(self, path):
        self.path = path
        self.first = self.last = b""
        self.cut = False

    def __enter__(self):
        os.mkfifo(self.path, 0o600)
        self.pipe = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.ended = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        return self

    def __exit__(self, *unused):
        self.ended.set()
        self.reader.join()
        os.close(self.pipe)

    def _read(self):
        # Before anybody writes there is nothing to read; after the end, no more than a pipe holds.
        left = 32
        while left:
            over = self.ended.is_set()
            left -= over
            ready, _writable, _broken = select.select([self.pipe], [], [], 0.1)
            try:
                block = os.read(self.pipe, 1 << 16) if ready else b""
            except BlockingIOError:
                block = b""
            if block:
                self._keep(block)
            elif over:
                return
            elif ready:
                self.ended.wait(0.02)

    def _keep(self, block):
        room = OUTPUT // 2 - len(self.first)
        self.first += block[:room]
        self.last += block[room:]
        if len(self.last) > OUTPUT // 2:
            self.cut = True
            self.last = self.last[-OUTPUT // 2 :]

    def text(self):
        between = b"\n[...]\n" if self.cut else b""
        return (self.first + between + self.last).decode("utf-8", "replace")


def app_service(layout, id_):
    """Directives of the section Service of a release's own unit which say how its code runs."""
    text = read_bounded(layout.release(id_, "systemd", "service"), 1 << 20)
    found = {}
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = line.strip()
        elif section == "[Service]" and "=" in line and not line.startswith(("#", ";")):
            key, value = line.split("=", 1)
            value = value.strip().replace("%i", id_)
            # An empty value resets a list.
            found.setdefault(key.strip(), []).append(value)
    return {key: values for key, values in found.items() if not SERVICE_ONLY.match(key)} | {
        "User": found.get("User", [layout.name])[-1]
    }


def read_answer(text):
    """What a program of a unit answers, as far as it is one: texts by name."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    found = found if isinstance(found, dict) else {}
    # JSON can name halves of characters, which no file and no terminal takes.
    return {
        name: value.encode("utf-8", "replace").decode("utf-8")
        for name, value in found.items()
        if name in {"answer", "failed"} and isinstance(value, str)
    }


def make_work(path):
    """A directory that others may pass through and not list; what lies in it says for itself who reads it."""
    for directory in dict.fromkeys((os.path.dirname(WORK), WORK, path)):
        if not os.path.isdir(directory):
            os.mkdir(directory)
        os.chmod(directory, 0o711)


def give(path, text, user):
    """Write a file that one user reads and nobody else. The directory is root's, so nobody is there before."""
    account = pwd.getpwnam(user)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o400), "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
        os.fchown(stream.fileno(), account.pw_uid, account.pw_gid)


def make_out(path, user):
    """A directory that one user writes and nobody else enters."""
    account = pwd.getpwnam(user)
    os.mkdir(path, 0o700)
    os.chown(path, account.pw_uid, account.pw_gid)


def _printable(env):
    """The environment without the control characters with which systemd would drop a variable."""
    return {name: CONTROL.sub("?", str(value)) for name, value in env.items()}


def _list(value):
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
