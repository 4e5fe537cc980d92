"""Asks the host's nginx from the host itself, and runs the role again with other variables.

Each run takes seconds: tests share what they can.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import ansible_collections
import pytest
import yaml

SCENARIO = Path(__file__).resolve().parent.parent
ansible_collections.__path__ = [
    str(SCENARIO.parent.parent / "collections/ansible_collections"), *ansible_collections.__path__]
CERTIFICATES = "/var/lib/fastapi/placeholder"

# Packages are there since the scenario converged; to ask apt takes longer than all the rest.
VARIABLES = {**yaml.safe_load((SCENARIO / "vars.yml").read_text(encoding="utf-8")), "nginx_manage_packages": False}
ROLE = {"ansible.builtin.import_role": {"name": "daoman.fastapi.nginx"}}


@dataclass
class Response:
    """What nginx answered; status 0 where it closed the connection without an answer."""

    status: int
    text: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    error: int = 0

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name.lower()]

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, f"{name} is there {len(values)} times: {self}"
        return values[0]

    def json(self) -> dict:
        return json.loads(self.text)


class Nginx:
    def __init__(self, host, folder: Path):
        self.host = host
        self.folder = folder
        # Other than the scenario's, with which the role was last run. None: nobody knows.
        self.variables: dict | None = {}
        (folder / "templates").symlink_to(SCENARIO / "templates")

    # -- As a client ---------------------------------------------------------------------------------------------------

    def curl(self, url: str, *arguments: str, trust: str | None = "shop"):
        """What curl says, asking this host whatever the name. Trusts the named placeholder and nothing else."""
        words = ["curl", "--silent", "--path-as-is", "--max-time", "10", "--connect-to", "::127.0.0.1:",
                 *arguments, url]
        if trust:
            words += ["--cacert", f"{CERTIFICATES}/{trust}/fullchain.pem"]
        return self.host.run(shlex.join(words))

    def ask(self, url: str, *arguments: str, trust: str | None = "shop") -> Response:
        """One request."""
        done = self.curl(url, "--include", *arguments, trust=trust)
        head, _, text = done.stdout.replace("\r\n", "\n").partition("\n\n")
        while re.match(r"HTTP/\S+ 1\d\d", head):
            head, _, text = text.partition("\n\n")
        lines = head.split("\n")
        status = re.match(r"HTTP/\S+ (\d+)", lines[0])
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        return Response(int(status[1]) if status else 0, text, fields, done.rc)

    def seen_by_app(self, url: str, *arguments: str) -> dict[str, list[str]]:
        """The headers with which a request reaches the application."""
        response = self.ask(url, *arguments)
        assert response.status == 200, response
        headers: dict[str, list[str]] = {}
        for name, value in response.json()["headers"]:
            headers.setdefault(name, []).append(value)
        return headers

    def statuses(self, url: str, *arguments: str) -> Counter:
        """How often each status is among the answers to the requests that curl makes of a pattern."""
        words = ["--output", "/dev/null", "--write-out", "%{http_code}\\n", *arguments]
        return Counter(self.curl(url, "--insecure", *words, trust=None).stdout.split())

    def python(self, code: str) -> str:
        """Runs a client that curl cannot be."""
        return self.host.check_output(f"python3 -c {shlex.quote(code)}")

    # -- As an operator ------------------------------------------------------------------------------------------------

    def play(self, tasks: list[dict], *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        play = {"hosts": "all", "gather_facts": False, "become": True, "vars": VARIABLES, "tasks": tasks}
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
        return subprocess.run(
            ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "--limit", self.host.backend.hostname,
             *arguments, str(self.folder / "play.yml")],
            capture_output=True, text=True, check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", **environment},
        )

    def applied(self, *arguments: str, **variables) -> str:
        """What Ansible says of running the role with variables other than the scenario's."""
        before, self.variables = self.variables, None
        done = self.play([{**ROLE, "vars": variables}], *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        self.variables = before if "--check" in arguments else variables
        return done.stdout

    def having(self, **variables) -> Nginx:
        """Runs the role unless that is how it was last run."""
        if self.variables != variables:
            self.applied(**variables)
        return self

    def refusals(self, cases: dict[str, dict], predicted: dict[str, dict] | None = None) -> dict[str, str]:
        """What each of several runs with other variables fails with, all of them by one command.

        Those that are predicted run in check mode.
        """
        predicted = predicted or {}
        cases = {**cases, **predicted}
        done = self.play([
            {"name": name, "check_mode": name in predicted, "block": [{**ROLE, "vars": variables}],
             "rescue": [{"name": name, "ansible.builtin.debug": {
                 "msg": {"task": "{{ ansible_failed_task.name }}", "said": "{{ ansible_failed_result }}"}}}]}
            for name, variables in cases.items()
        ], ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")
        try:
            tasks = json.loads(done.stdout[done.stdout.index("{"):])["plays"][0]["tasks"]
        except ValueError:
            raise AssertionError(done.stdout + done.stderr) from None
        said = {task["task"]["name"]: json.dumps(result["msg"], indent=0).replace("\\n", "\n").replace('\\"', '"')
                for task in tasks for result in task["hosts"].values() if isinstance(result.get("msg"), dict)}
        assert said.keys() == cases.keys(), f"This was not refused: {cases.keys() - said.keys()}"
        return said

    def refused(self, **variables) -> str:
        return self.refusals({"refused": variables})["refused"]

    def tree(self) -> str:
        """Every path of /etc/nginx with its kind, owner, mode and content, and what staging left."""
        return self.host.check_output(
            "cd /etc/nginx && find . -printf '%p %y %l %u %g %m\\n' | sort"
            " && find . -type f -exec sha256sum {} + | sort && ls -d /etc/.nginx* 2>/dev/null || true")

    def master(self) -> str:
        return self.host.check_output("systemctl show --value --property MainPID nginx")

    def workers(self) -> set[str]:
        """Workers that do not drain."""
        lines = self.host.check_output("ps --no-headers -o pid,args --ppid %s", self.master()).splitlines()
        return {line.split()[0] for line in lines if "worker process" in line and "shutting" not in line}


@pytest.fixture(scope="module")
def operated(host, tmp_path_factory):
    """The host's nginx, however the test before left it: for tests that run the role anyway."""
    nginx = Nginx(host, tmp_path_factory.mktemp("nginx"))
    yield nginx
    nginx.having()


@pytest.fixture
def nginx(operated):
    """The host's nginx as the scenario has it."""
    return operated.having()


@pytest.fixture
def sites():
    """The scenario's sites, to be changed at will."""
    return json.loads(json.dumps(VARIABLES["nginx_sites"]))
