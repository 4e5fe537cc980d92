"""The hosts under test: deploys to them, breaks things on them, and says what is live there."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
APP = "shop"
# Seconds that the longest requests take; only the tests in which they matter take them so long as the promise says.
SHORT, LONG = 5, 20
DOMAIN = "shop.example.com"
# The same app in the long form and in Molecule's short one.
APPS = yaml.safe_load((ROOT / "molecule/deploy/group_vars/fastapi_app.yml").read_text(encoding="utf-8"))["fastapi_apps"]


def wait_for(condition: Callable, seconds: float = 30, what: str = ""):
    """What `condition` returns, once that is true."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.02)
    return result


class Reached:
    """A script that waits on a host until a deploy is in a phase. `True` once it was, and the script has run."""

    def __init__(self, host: str, phase: str, script: str) -> None:
        lock = f"/srv/{APP}/.lock"
        watch = f"""
            until grep -q '"phase": "{phase}"' {lock} 2>/dev/null; do sleep 0.005; done
            pid=$(grep -o '"pid": [0-9]*' {lock} | grep -o '[0-9]*$')
            {script}
            echo reached
        """
        self.process = subprocess.Popen(
            ["docker", "exec", host, "timeout", "40", "bash", "-c", watch],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait(self, seconds: float = 40) -> bool:
        try:
            return "reached" in self.process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            return False


class Host:
    """One container. Asked through the engine, so that nothing of Ansible is in the way."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, script: str, check: bool = True) -> str:
        done = subprocess.run(
            ["docker", "exec", "-i", self.name, "bash", "-euo", "pipefail", "-c", script],
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{self.name}: {script}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def address(self) -> str:
        """Asked for each time: a restarted container may have another."""
        return self.run("hostname -I").split()[0]

    def live(self) -> str:
        """Id of the release that nginx sends users to."""
        return self.run(f"basename $(readlink /srv/{APP}/live.sock) .sock")

    def version(self) -> str:
        """What the release that users are sent to says that it is."""
        url = f"http://{DOMAIN}/whoami"
        return json.loads(
            self.run(f"curl -sS --fail --max-time 20 --unix-socket /srv/{APP}/live.sock {url}")
        )["version"]  # fmt: skip

    def releases(self) -> list[str]:
        return self.run(f"ls /srv/{APP}/releases").split()

    def state(self, release: str) -> str:
        text = self.run(f"cat /srv/{APP}/releases/{release}/state.json", check=False)
        return json.loads(text)["state"] if text else ""

    def history(self) -> list[dict]:
        return [json.loads(line) for line in self.run(f"cat /srv/{APP}/history.jsonl").splitlines()]

    def running(self) -> list[str]:
        lines = self.run(f"systemctl list-units --plain --no-legend --state=active,activating,deactivating '{APP}@*'")
        return sorted(line.split()[0] for line in lines.splitlines())

    def units(self) -> list[str]:
        """The units of the app that are installed or run."""
        return sorted({*self.run(f"ls /etc/systemd/system | grep '^{APP}@' || true").split(), *self.running()})

    def main_pid(self) -> int:
        return int(self.run(f"systemctl show --property MainPID --value {APP}@{self.live()}.service"))

    def workers(self) -> list[int]:
        return [int(pid) for pid in self.run(f"pgrep --parent {self.main_pid()}", check=False).split()]

    def journal(self) -> str:
        # Every module that Ansible runs leaves a line too; they would crowd out what matters.
        return self.run("journalctl --no-pager --no-hostname --lines 600 | grep -v ' ansible-'", check=False)

    def when_phase(self, phase: str, script: str = "true") -> Reached:
        """Wait, on the host, for a deploy to be in a phase; then run the script, which gets its process as $pid."""
        return Reached(self.name, phase, script)

    def is_busy(self) -> bool:
        """Whether a process works on the app."""
        return self.run(f"flock --nonblock /srv/{APP}/.lock true && echo free", check=False) != "free"

    def served_alone(self, release: str) -> bool:
        return self.units() == [f"{APP}@{release}.service", f"{APP}@{release}.socket"]


@dataclass
class Run:
    """A run of a playbook."""

    returncode: int
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)
    began: float  # by time.monotonic()
    ended: float

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Fleet:
    """All hosts of the inventory, and the app as the next deploy wants it: its source, which `edit` changes."""

    def __init__(self, inventory: Path, work: Path, long: bool) -> None:
        self.inventory, self.long = inventory, long
        listing = json.loads(self._ansible("ansible-inventory", "--list").stdout)
        self.hosts = [Host(name) for name in sorted(listing["fastapi_app"]["hosts"])]
        self.source = work / "app"
        self.options = copy.deepcopy(APPS[0])
        self.options["source"] = str(self.source)
        del self.options["version"]  # has no meaning for a directory
        self.patience(SHORT)
        self.guard(0)
        self.number = 0
        self.reset()

    def patience(self, seconds: float) -> None:
        """How long the longest requests take; a release that is replaced is given that time, and a little more."""
        self.slow_seconds = seconds
        self.options["gunicorn"]["graceful_timeout"] = int(seconds) + 7

    def guard(self, seconds: float, **settings) -> None:
        self.options["release"] = {"guard": {"seconds": seconds, "baseline": 20, **settings}}

    # the app's source

    def reset(self) -> None:
        """The example app as it lies in this repository, with a version of its own that no deploy has seen."""
        shutil.rmtree(self.source, ignore_errors=True)
        ignore = shutil.ignore_patterns("tests", ".*", "__pycache__")
        shutil.copytree(ROOT / "examples/app", self.source, ignore=ignore)
        self.next_version()

    def next_version(self) -> str:
        self.number += 1
        self.version = f"v{self.number}"
        file = self.source / "app/__init__.py"
        file.write_text(f'"""The app under test."""\n\n__version__ = "{self.version}"\n', encoding="utf-8")
        return self.version

    def edit(self, old: str, new: str, file: str = "main.py") -> None:
        path = self.source / "app" / file
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {path}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    # playbooks

    def _command(self, playbook: str, *arguments: str, **options) -> list[str]:
        app = merged(self.options, options)
        variables = json.dumps({"fastapi_apps": [app]})
        return [
            "ansible-playbook", "--inventory", str(self.inventory), "--extra-vars", variables, *arguments,
            f"daoman.fastapi.{playbook}",
        ]  # fmt: skip

    def _ansible(self, *command: str) -> Run:
        if command[0] == "ansible-inventory":
            command = (*command, "--inventory", str(self.inventory))
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, errors="replace", check=False
        )
        return Run(done.returncode, done.stdout, done.stderr, began, time.monotonic())

    def play(self, playbook: str, *arguments: str, **options) -> Run:
        """Run a playbook, with the app's options changed as given."""
        return self._ansible(*self._command(playbook, *arguments, **options))

    def start(self, playbook: str, *arguments: str, **options) -> subprocess.Popen:
        """Begin a playbook, in a process group of its own."""
        return subprocess.Popen(
            self._command(playbook, *arguments, **options), cwd=ROOT, env=environment(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip

    def deployed(self, *arguments: str, playbook: str = "deploy", **options) -> Run:
        run = self.play(playbook, *arguments, **options)
        assert run.returncode == 0, run.output
        return run

    def refused(self, *arguments: str, playbook: str = "deploy", **options) -> Run:
        """A run that fails; the release that served before serves after it, alone."""
        before = self.serving()
        run = self.play(playbook, *arguments, **options)
        assert run.returncode != 0, run.output
        assert self.serving() == before, run.output
        for host in self.hosts:
            assert host.served_alone(host.live()), f"{host.name}: {host.units()}\n{run.output}"
        return run

    # all hosts

    def serving(self) -> dict[str, tuple[str, str]]:
        """Release and version of each host."""
        return {host.name: (host.live(), host.version()) for host in self.hosts}

    def versions(self) -> set[str]:
        return {host.version() for host in self.hosts}

    def live(self) -> list[str]:
        return [host.live() for host in self.hosts]


def merged(base: dict, change: dict) -> dict:
    """The options of an app with some of them changed, however deep."""
    result = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def long_but(short, cases):
    """Parameters of a test, of which only some are part of the short form."""
    return [case if case in short else pytest.param(case, marks=pytest.mark.long) for case in cases]


def environment() -> dict[str, str]:
    return {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}


def killed(process: subprocess.Popen) -> str:
    """Kill a playbook with all its processes on this machine; what it had said."""
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]
