"""Makes all attacks that are deploys, once, on both hosts at a time; the tests look at what became of the hosts."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from attacks import attacks

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]
RUNNING = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_TASK_TIMEOUT": "120"}


@dataclass
class Outcome:
    """What became of an attack: why it was refused, or an empty string, and when it began and ended."""

    failure: str
    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


class Attacked:
    """A host after all attacks: their outcomes, and what has changed of what no app may change."""

    def __init__(self, name: str):
        found = json.loads((EPHEMERAL / f"results-{name}.json").read_text(encoding="utf-8"))
        self.changed = found["changed"]
        self.outcomes = {}
        log = (EPHEMERAL / f"attacks-{name}.log").read_text(encoding="utf-8")
        # When each item of a loop ended, by Ansible's log.
        ends = re.findall(r"^(\S+ \S+),\d+ .*?\(item=([\w.-]+)\)", log, re.MULTILINE)
        times = {item: datetime.fromisoformat(time).timestamp() for time, item in ends}
        before = min(times.values())
        for item in found["deploys"] + found["removals"]:
            attack = item.get("__gunicorn_app_name") or item["attack"]["name"]
            failure = item.get("msg", "") if item.get("failed") or "attack" in item else ""
            self.outcomes[attack] = Outcome(failure, before, times[attack])
            before = times[attack]

    def by_attack(self) -> dict[str, dict]:
        """Changes by the attack that was going on, by the time of the last change of each file."""
        found: dict[str, dict] = {}
        for path, change in self.changed.items():
            time = (change["now"] or [0])[-1] / 1e9
            during = [name for name, outcome in self.outcomes.items() if outcome.begun - 1 <= time <= outcome.ended + 1]
            found.setdefault(" or ".join(during) or "some attack", {})[path] = change
        return found


@pytest.fixture(scope="session")
def attacked(request) -> dict[str, Attacked]:
    """Each host by itself, and all at the same time."""
    found = [item.callspec.params.get("_testinfra_host") for item in request.session.items if hasattr(item, "callspec")]
    hosts = sorted({host.backend.hostname for host in found if host})
    variables = {"attacks": attacks(SCENARIO, EPHEMERAL / "attacks/sources")}
    running = []
    for name in hosts:
        log = EPHEMERAL / f"attacks-{name}.log"
        log.unlink(missing_ok=True)
        command = ["ansible-playbook", "-i", INVENTORY, "--limit", name, "-e", json.dumps(variables)]
        command += ["-e", f"results={EPHEMERAL}/results-{name}.json", str(SCENARIO / "attacks.yml")]
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_LOG_PATH": str(log)}
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env))
    for process in running:
        said = process.communicate()[0]
        assert process.returncode == 0, said[-5000:]
    return {name: Attacked(name) for name in hosts}


class Host:
    """A host with the eyes of root, and alpha's own hands on it."""

    def __init__(self, host):
        self.host = host
        self.name = host.backend.hostname

    def sh(self, script: str) -> str:
        return self.host.check_output(script)

    def log(self) -> list[dict]:
        """What the world outside has seen: requests, and reports of hostile code."""
        return [json.loads(line) for line in self.sh("cat /run/outside-server/log.jsonl").splitlines()]

    def reports(self, *places: str) -> list[dict]:
        found = [{**entry["body"], "time": entry["time"]} for entry in self.log() if entry["body"]]
        return [report for report in found if not places or report["place"] in places]

    def run(self, code: str, app: str = "alpha") -> str:
        """Output of Python code that is run by alpha's app, in its sandbox."""
        return self.sh(
            f"curl -sS --fail --max-time 60 --unix-socket /srv/{app}/live.sock --data-binary {shlex.quote(code)} "
            f"http://{app}.example.com/run"
        )

    def get(self, url: str, app: str) -> tuple[int, str]:
        """Status and body of an answer through nginx."""
        said = self.sh(
            f"curl -sS --max-time 20 --path-as-is --cacert /etc/nginx/tls/{app}/fullchain.pem "
            "--write-out '\\n%{http_code}' "
            f"--resolve {app}.example.com:443:127.0.0.1 https://{app}.example.com{url}"
        )
        body, _, status = said.rpartition("\n")
        return int(status), body


@pytest.fixture
def tenant(host) -> Host:
    return Host(host)


@pytest.fixture
def outcomes(attacked, host) -> dict[str, Outcome]:
    return attacked[host.backend.hostname].outcomes
