"""Runs the roles on all hosts at once, breaks certificates on them, and looks at what their nginx serves meanwhile."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import testinfra
import yaml

SCENARIO = Path(__file__).resolve().parent.parent
BASE = yaml.safe_load((SCENARIO / "group_vars/fastapi_app.yml").read_text(encoding="utf-8"))["certbot_tls_certificates"]
ACME = "https://acme.test"
MAIN, DAYS45, BRIEF, BOUND = (f"{ACME}:{port}/dir" for port in (14000, 14045, 14001, 14002))
# Where nothing listens.
CLOSED = f"{ACME}:9/dir"
# What the tests of failures and of repair add to those of the scenario; the last lives for 15 s.
ADDED = [
    {"name": "closed", "domains": ["closed.{{ os }}.test"], "server": MAIN},
    {"name": "new", "domains": ["new.{{ os }}.test"]},
    {"name": "brief", "domains": ["brief.{{ os }}.test"], "server": BRIEF},
]


@dataclass
class Run:
    code: int
    output: str

    def changed(self, host) -> int:
        return int(re.search(rf"^{host.backend.hostname}\s.*changed=(\d+)", self.output, re.M)[1])

    def failed(self, host) -> int:
        return int(re.search(rf"^{host.backend.hostname}\s.*failed=(\d+)", self.output, re.M)[1])

    def of(self, host) -> str:
        """What the task that failed said of a host, on one line."""
        _before, _fatal, said = self.output.partition(f"fatal: [{host.backend.hostname}]: FAILED!")
        said, *_more = re.split(r"^(?:fatal:|ok:|changed:|PLAY|TASK|\[ERROR\])", said, maxsplit=1, flags=re.M)
        return " ".join(said.split())


class Fleet:
    def __init__(self):
        self.inventory = os.environ["MOLECULE_INVENTORY_FILE"]
        self.hosts = {
            name: testinfra.get_host(f"ansible://fastapi-certbot_tls-{name}", ansible_inventory=self.inventory)
            for name in ("debian12", "debian13")
        }

    def run(self, *arguments: str, certificates: list | None = None, playbook: Path | None = None, **variables) -> Run:
        variables = {"certbot_tls_manage_packages": False, "nginx_manage_packages": False, **variables}
        if certificates is not None:
            variables["certbot_tls_certificates"] = certificates
        done = subprocess.run(
            [
                "ansible-playbook",
                "-i",
                self.inventory,
                "-e",
                json.dumps(variables),
                *arguments,
                str(playbook or SCENARIO / "converge.yml"),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )
        return Run(done.returncode, done.stdout + done.stderr)

    def part(self, part: str, **variables) -> Run:
        """One part of the role alone: faster, and without a role of nginx that might help."""
        return self.run(playbook=SCENARIO / "part.yml", part=part, **variables)

    def on_all(self, work) -> dict:
        """What a function of (name, host) returns for each host, all at once."""
        results: dict = {}

        def one(name, host):
            try:
                results[name] = work(name, host)
            except BaseException as error:  # shown where the result is used
                results[name] = error

        threads = [threading.Thread(target=one, args=item) for item in self.hosts.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results.values():
            if isinstance(result, BaseException):
                raise result
        return results

    @contextmanager
    def watched(self, *sites: str, pause: float = 0.02):
        """Users on some sites of all hosts; afterwards the dict that this gives holds what they saw."""
        file, seen = "/run/watch", {}

        def watch(name, host):
            names = " ".join(f"{site}.{name}.test" for site in sites)
            seen[name] = json.loads(host.check_output(f"python3 /usr/local/bin/watch.py {file} {pause} {names}"))

        thread = threading.Thread(target=lambda: self.on_all(watch))
        thread.start()
        try:
            for host in self.hosts.values():
                host.check_output(f"timeout 20 sh -c 'until test -e {file}; do sleep 0.05; done'")
            yield seen
        finally:
            self.on_all(lambda _name, host: host.check_output(f"rm -f {file}"))
            thread.join()

    @contextmanager
    def without_acme(self):
        """The ACME server cannot be reached by the hosts. It is never stopped itself: all it knows is in its memory."""
        self.on_all(
            lambda _name, host: host.check_output(
                "cp /etc/hosts /run/hosts && sed 's/.* acme.test/127.0.0.9 acme.test/' /run/hosts > /etc/hosts"
            )
        )
        try:
            yield
        finally:
            self.on_all(lambda _name, host: host.check_output("cat /run/hosts > /etc/hosts"))


def changed(**changes) -> list:
    """The certificates of the scenario with some changed, by name."""
    return [{**item, **changes.get(item["name"], {})} for item in copy.deepcopy(BASE)]


def disk(host, name: str) -> str:
    """The serial of the certificate that nginx is to serve."""
    return (
        host.check_output(f"openssl x509 -noout -serial -in /etc/nginx/tls/{name}/fullchain.pem")
        .strip()
        .partition("=")[2]
        .lower()
        .lstrip("0")
    )


def served(host, domain: str) -> str:
    """The serial of the certificate that nginx serves."""
    out = host.run(
        f"echo | openssl s_client -connect 127.0.0.1:443 -servername {domain} 2>/dev/null | openssl x509 -noout -serial"
    ).stdout
    return out.strip().partition("=")[2].lower().lstrip("0")


def describe(host, name: str) -> str:
    return host.check_output(f"openssl x509 -noout -text -in /etc/nginx/tls/{name}/fullchain.pem")


def os_name(host) -> str:
    return host.backend.hostname.rpartition("-")[2]


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    return Fleet()
