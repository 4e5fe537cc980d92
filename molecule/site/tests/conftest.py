"""How the tests of this scenario ask the sites, and run the playbook again with something broken."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import testinfra
import yaml

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
APPS = yaml.safe_load((SCENARIO / "group_vars/fastapi_app.yml").read_text(encoding="utf-8"))["fastapi_apps"]


@dataclass
class Response:
    """What curl got. Its repr is what a failed assertion prints."""

    status: int
    headers: dict[str, str]
    body: str
    error: str

    def json(self):
        return json.loads(self.body)


class Web:
    """Asks the sites by their names, at the host's own address, and trusts their placeholder certificates only."""

    def __init__(self, host) -> None:
        self.host = host

    @property
    def address(self) -> str:
        """Asked for each time: a restarted container may have another."""
        return self.host.check_output("hostname -I").split()[0]

    def get(self, url: str, *options: str, cert: str = "shop") -> Response:
        command = [
            "curl", "--silent", "--show-error", "--include", "--path-as-is", "--max-time", "20",
            "--cacert", f"/etc/nginx/tls/{cert}/fullchain.pem",
            "--connect-to", f"::{self.address}:", *options, url,
        ]  # fmt: skip
        result = self.host.run(" ".join(["%s"] * len(command)), *command)
        head, _, body = result.stdout.replace("\r\n", "\n").partition("\n\n")
        first, *lines = head.split("\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Response(int(first.split()[1]) if first else 0, headers, body, result.stderr.strip())


@pytest.fixture
def web(host) -> Web:
    return Web(host)


# What a refused change must leave as it was.
STATE = """
find /etc/nginx -type f -exec md5sum {} + | sort
readlink /srv/*/current /srv/*/live.sock
systemctl list-units --plain --no-legend --state=active 'shop@*' 'blog@*' | sort
systemctl show --property MainPID nginx
"""


@dataclass
class Rerun:
    """A run of the scenario's playbook over all hosts, and each host's state before and after it."""

    returncode: int
    output: str = field(repr=False)
    before: dict[str, str] = field(repr=False)
    after: dict[str, str] = field(repr=False)


@pytest.fixture(scope="session")
def rerun():
    """Runs the playbook with the apps as `change` leaves them. Hosts run side by side, so that costs only once."""
    hosts = testinfra.get_hosts(["ansible://all"], ansible_inventory=os.environ["MOLECULE_INVENTORY_FILE"])

    def states() -> dict[str, str]:
        return {host.backend.hostname: host.check_output("sh -c %s", STATE) for host in hosts}

    def run(change, *arguments: str) -> Rerun:
        apps = copy.deepcopy(APPS)
        change({app["name"]: app for app in apps})
        before = states()
        result = subprocess.run(
            ["ansible-playbook", "--inventory", str(Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent),
             "--extra-vars", json.dumps({"fastapi_apps": apps}), *arguments,
             str(SCENARIO / "converge.yml")],
            capture_output=True, text=True, check=False, env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
        )  # fmt: skip
        return Rerun(result.returncode, result.stdout + result.stderr, before, states())

    return run
