"""Asks the host's nginx from the host itself, and runs the role again with other variables."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import ansible_collections
import pytest
import yaml

SCENARIO = Path(__file__).resolve().parent.parent
ansible_collections.__path__ = [
    str(SCENARIO.parent.parent / "collections/ansible_collections"), *ansible_collections.__path__]
VARIABLES = yaml.safe_load((SCENARIO / "vars.yml").read_text(encoding="utf-8"))
CERTIFICATES = "/var/lib/fastapi/placeholder"

PLAY = f"""
- hosts: all
  gather_facts: false
  become: true
  vars_files: ['{SCENARIO}/vars.yml']
  roles: [daoman.fastapi.nginx]
"""


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
    def __init__(self, host, play: Path):
        self.host = host
        self.play = play
        self.changed = False

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

    def python(self, code: str) -> str:
        """Runs a client that curl cannot be."""
        return self.host.check_output(f"python3 -c {shlex.quote(code)}")

    # -- As an operator ------------------------------------------------------------------------------------------------

    def run(self, *arguments: str, **variables) -> subprocess.CompletedProcess:
        self.changed = self.changed or (bool(variables) and "--check" not in arguments)
        return subprocess.run(
            ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "--limit", self.host.backend.hostname,
             "-e", json.dumps(variables), *arguments, str(self.play)],
            capture_output=True, text=True, check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )

    def applied(self, *arguments: str, **variables) -> str:
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, *arguments: str, **variables) -> str:
        done = self.run(*arguments, **variables)
        assert done.returncode != 0, done.stdout
        return done.stdout + done.stderr

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


def at(host, folder: Path) -> Nginx:
    play = folder / "play.yml"
    play.write_text(PLAY, encoding="utf-8")
    (folder / "templates").symlink_to(SCENARIO / "templates")
    return Nginx(host, play)


@pytest.fixture
def nginx(host, tmp_path: Path):
    """The host's nginx; what a test changes by running the role again is put back afterwards."""
    nginx = at(host, tmp_path)
    yield nginx
    if nginx.changed:
        nginx.applied()


@pytest.fixture(scope="module")
def edge(host, tmp_path_factory):
    """The same with other settings of the whole nginx, for the tests of a file that come one after the other."""
    nginx = at(host, tmp_path_factory.mktemp("edge"))
    nginx.applied(nginx_real_ip_from=["127.0.9.0/24"], nginx_tls_policy="modern", nginx_http3=True)
    yield nginx
    nginx.applied()


@pytest.fixture
def sites():
    """The scenario's sites, to be changed at will."""
    return json.loads(json.dumps(VARIABLES["nginx_sites"]))
