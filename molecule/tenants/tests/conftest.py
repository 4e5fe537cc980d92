"""Makes all attacks that are deploys, once, on both hosts at a time; the tests then look at what became of the hosts."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from attacks import accounts, attacks

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]
RUNNING = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_TASK_TIMEOUT": "120"}


@dataclass
class Outcome:
    """What became of an attack: why it was refused, or an empty string, and what of others it changed."""

    failure: str
    changed: dict
    seconds: float
    begun: float


def play(hosts: list[str], playbook: str, variables: dict) -> None:
    """The playbook on each host by itself, at the same time."""
    running = {}
    for name in hosts:
        command = ["ansible-playbook", "-i", INVENTORY, "--limit", name, "-e", json.dumps(variables)]
        command += ["-e", f"results={EPHEMERAL}/results-{name}.json", str(SCENARIO / playbook)]
        with (EPHEMERAL / f"attacks-{name}.log").open("w", encoding="utf-8") as log:
            running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=RUNNING)
    for name, process in running.items():
        assert process.wait() == 0, (EPHEMERAL / f"attacks-{name}.log").read_text(encoding="utf-8")[-5000:]


@pytest.fixture(scope="session")
def attacked(request) -> dict[str, dict[str, Outcome]]:
    """Outcomes by host and attack."""
    hosts = sorted({item.callspec.params["_testinfra_host"].backend.hostname for item in request.session.items})
    variables = {"accounts": accounts(SCENARIO), "attacks": attacks(SCENARIO, EPHEMERAL / "attacks/sources")}
    play(hosts, "attacks.yml", variables)
    return {name: {
        attack: Outcome(**outcome)
        for attack, outcome in json.loads((EPHEMERAL / f"results-{name}.json").read_text(encoding="utf-8")).items()
    } for name in hosts}


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
            f"curl -sS --max-time 20 --path-as-is --cacert /etc/nginx/tls/{app}/fullchain.pem --write-out '\\n%{{http_code}}' "
            f"--resolve {app}.example.com:443:127.0.0.1 https://{app}.example.com{url}"
        )
        body, _, status = said.rpartition("\n")
        return int(status), body


@pytest.fixture
def tenant(host) -> Host:
    return Host(host)


@pytest.fixture
def outcomes(attacked, host) -> dict[str, Outcome]:
    return attacked[host.backend.hostname]
