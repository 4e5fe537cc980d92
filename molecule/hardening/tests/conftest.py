"""Both hosts as their operator reaches them: over SSH, with a connection that is new each time."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

KEYS = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "ssh")
SCENARIO = Path(__file__).parent.parent
HOSTS = ("fastapi-hardening-debian12", "fastapi-hardening-debian13")
PROBE = "fastapi-hardening-probe"
STATE = "/var/lib/fastapi/hardening"
# What a change might leave behind: files, units, rules, and the record of a change that is not settled.
SNAPSHOT = f"""
    cd /etc; find ssh fastapi sudoers.d systemd/system login.defs pam.d ! -type d | sort | xargs sha256sum 2>&1
    nft -s -t list table inet fastapi
    sshd -T | sort
    ls {STATE}/pending 2>&1
"""
PLAY = """
- hosts: all
  gather_facts: false
  become: true
  roles: [daoman.fastapi.hardening]
  tasks:
    - name: The run goes on
      ansible.builtin.command: id -un
      changed_when: false
"""


def merged(base: dict, changes: dict) -> dict:
    result = copy.deepcopy(base)
    for key, value in changes.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and key in result else value
    return result


def run(container: str, script: str) -> subprocess.CompletedProcess:
    command = ["docker", "exec", "-i", container, "bash", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Fleet:
    def __init__(self, directory: Path):
        self.directory = directory
        self.settings = {
            key: value for key, value in
            yaml.safe_load((SCENARIO / "group_vars/fastapi_app.yml").read_text(encoding="utf-8")).items()
            if key.startswith("hardening_")
        }
        (directory / "play.yml").write_text(PLAY, encoding="utf-8")

    def address(self, host: str) -> str:
        return subprocess.run(
            ["docker", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", host],
            capture_output=True, text=True, check=True).stdout.strip()

    def apps(self, changes: dict) -> list[dict]:
        """The app of the scenario, with changes."""
        settings = yaml.safe_load((SCENARIO / "group_vars/fastapi_app.yml").read_text(encoding="utf-8"))
        return [merged(settings["fastapi_apps"][0], changes)]

    def play(self, playbook: str, variables: dict, **how) -> subprocess.CompletedProcess:
        command = [*self.command({}, **how)[:3], "-e", json.dumps(variables), playbook]
        return self._started(command)

    def command(self, changes: dict, port: int = 22, hosts=HOSTS, connection: dict | None = None) -> list[str]:
        """The command that hardens, and the inventory that it takes."""
        inventory = {"fastapi_app": {"hosts": {
            host: {
                "ansible_connection": "ssh", "ansible_host": self.address(host), "ansible_port": port,
                "ansible_become": True, "ansible_user": "operator", "ansible_ssh_private_key_file": str(KEYS / "key"),
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={KEYS}/known_hosts -o IdentitiesOnly=yes "
                                           "-o HostKeyAlias=" + host,
                # A directory of its own, so that no connection from before hides what a new one meets.
                "ansible_control_path_dir": str(self.directory / "cp"),
                "ansible_python_interpreter": "/usr/bin/python3",
                **(connection or {}),
            } for host in hosts}}}
        # Runs for one host each may go on at once.
        inventory_file = str(self.directory / f"{'-'.join(hosts)}.yml")
        Path(inventory_file).write_text(yaml.safe_dump(inventory), encoding="utf-8")
        variables = {**merged(self.settings, changes), "hardening_manage_packages": False}
        return ["ansible-playbook", "-i", inventory_file, "-e", json.dumps(variables), str(self.directory / "play.yml")]

    @property
    def environment(self) -> dict:
        return {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}

    def run(self, changes: dict | None = None, **how) -> subprocess.CompletedProcess:
        return self._started(self.command(changes or {}, **how))

    def _started(self, command: list[str]) -> subprocess.CompletedProcess:
        # No input: what ssh does to a shared one (O_NONBLOCK) is refused by Ansible.
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              env=self.environment)

    def hardened(self, changes: dict | None = None, **how) -> str:
        done = self.run(changes, **how)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def refused(self, changes: dict, **how) -> str:
        """What a run said that failed on all hosts, and left nothing of it on them."""
        before = self.snapshots()
        started = time.monotonic()
        done = self.run(changes, **how)
        said = done.stdout + done.stderr
        assert done.returncode == 2, said
        for host in HOSTS:
            assert f"fatal: [{host}]" in said, said
        assert time.monotonic() - started < 90, said
        assert self.snapshots() == before
        return said

    def killed(self, changes: dict, host: str) -> None:
        """A run whose controller dies as soon as the change is made."""
        mark = str(uuid.uuid4())
        process = subprocess.Popen(self.command(changes, hosts=(host,)), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env={**self.environment, "RUN_TO_BE_KILLED": mark})
        try:
            until(lambda: self.inside(host, f"test -e {STATE}/pending/applied").returncode == 0, 180)
        finally:
            # Ansible's workers are in sessions of their own and would go on, and so would the connections of ssh.
            while kill_marked(mark.encode()):
                process.wait()

    def inside(self, host: str, script: str) -> subprocess.CompletedProcess:
        return run(host, script)

    def output(self, host: str, script: str) -> str:
        done = self.inside(host, script)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def snapshots(self) -> list[str]:
        return each(lambda host: self.inside(host, SNAPSHOT).stdout)

    def outcome(self, host: str) -> dict:
        return json.loads(self.output(host, f"cat {STATE}/outcome.json"))

    def copy(self, host: str, name: str, path: str) -> None:
        """A file of the scenario, for anybody to read."""
        done = subprocess.run(["docker", "exec", "-i", host, "sh", "-c", f"umask 022; cat >{path}"], check=False,
                              input=(SCENARIO / "files" / name).read_bytes(), capture_output=True)
        assert done.returncode == 0, done.stderr

    def ssh(self, host: str, script: str, port: int = 22) -> str:
        """What a command of the operator prints, over a connection of its own; nothing where there is none."""
        command = [
            "ssh", "-F", "none", "-o", f"UserKnownHostsFile={KEYS}/known_hosts", "-o", f"HostKeyAlias={host}",
            "-o", "ConnectTimeout=3", "-o", "BatchMode=yes", "-i", str(KEYS / "key"), "-p", str(port),
            f"operator@{self.address(host)}", script]
        try:
            # One that is cut while it is made hangs until it is no longer.
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                                  timeout=8)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout

    def gets_in(self, host: str, port: int = 22) -> bool:
        """Whether the operator does, and becomes root."""
        return self.ssh(host, "sudo -n id -un", port).strip() == "root"


def each(function) -> list:
    """What it returns for each host, all at once."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, HOSTS))


def kill_marked(mark: bytes) -> int:
    """Kill the processes that have this in their environment; how many there were."""
    killed = 0
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environment.read_bytes():
                os.kill(int(environment.parent.name), signal.SIGKILL)
                killed += 1
    return killed


def until(condition, seconds: float) -> float:
    """Waits for a condition; how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not so within {seconds} s"
        time.sleep(0.3)
    return time.monotonic() - started


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    # Paths of sockets are short.
    fleet = Fleet(tmp_path_factory.mktemp("f"))
    keys = []
    for host in HOSTS:
        for line in fleet.output(host, "cat /etc/ssh/ssh_host_*_key.pub").splitlines():
            keys.append(f"{host} {line}\n")
    (KEYS / "known_hosts").write_text("".join(keys), encoding="utf-8")
    return fleet


class Probe:
    """Another machine of the network."""

    def run(self, script: str) -> subprocess.CompletedProcess:
        return run(PROBE, script)

    def reaches(self, address: str, port: int) -> bool:
        return self.run(f"timeout 1 bash -c '</dev/tcp/{address}/{port}'").returncode == 0


@pytest.fixture(scope="session")
def probe():
    subprocess.run(["docker", "rm", "--force", PROBE], capture_output=True, check=False)
    subprocess.run(["docker", "run", "--detach", "--name", PROBE, "--entrypoint", "sleep", "fastapi-test:debian13",
                    "infinity"], capture_output=True, check=True)
    probe = Probe()
    done = probe.run("apt-get install -qq -y --no-install-recommends openssh-client >/dev/null")
    assert done.returncode == 0, done.stderr
    yield probe
    subprocess.run(["docker", "rm", "--force", PROBE], capture_output=True, check=True)
