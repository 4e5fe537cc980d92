"""Applies units of a test's own to the one host that the test looks at."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import ansible_collections
import pytest

# The collection under its full name, as Ansible imports it.
HERE = str(Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "collections/ansible_collections"))
ansible_collections.__path__ = [HERE, *ansible_collections.__path__]

PLAY = """
- hosts: all
  gather_facts: false
  become: true
  roles: [daoman.fastapi.systemd_service]
"""


class Units:
    def __init__(self, host, directory: Path):
        self.host = host
        self.play = directory / "play.yml"
        self.play.write_text(PLAY, encoding="utf-8")
        self.names: set[str] = set()

    def run(self, *units: dict, arguments: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        self.names.update(unit["name"] for unit in units)
        return subprocess.run(
            ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "--limit", self.host.backend.hostname,
             "-e", json.dumps({"systemd_service_units": units}), *arguments, str(self.play)],
            capture_output=True, text=True, check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )

    def applied(self, *units: dict) -> str:
        done = self.run(*units)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, *units: dict, arguments: tuple[str, ...] = ()) -> str:
        """What a run said that changed nothing."""
        done = self.run(*units, arguments=arguments)
        said = done.stdout + done.stderr
        assert done.returncode == 2, said
        assert "nothing was changed" in said, said
        return said

    def taken_back(self, *units: dict) -> str:
        """What a run said whose units did not start."""
        done = self.run(*units)
        said = done.stdout + done.stderr
        assert done.returncode == 2, said
        assert "All units of this run are as they were before" in said, said
        return said

    def text(self, name: str) -> str | None:
        """The unit's file, or None where there is none."""
        file = self.host.file(f"/etc/systemd/system/{name}")
        return file.content_string if file.exists else None

    def show(self, name: str, key: str) -> str:
        return self.host.check_output(f"systemctl show --value --property={key} {name}")


@pytest.fixture
def units(host, tmp_path: Path):
    """Applies units, which are gone again after the test."""
    units = Units(host, tmp_path)
    yield units
    names = " ".join(name.replace("@.", "@*.") for name in units.names)
    # by hand, because it takes a tenth of the time of a run
    host.run(f"systemctl disable --now --quiet {names}; cd /etc/systemd/system && rm -rf {names} && "
             f"systemctl daemon-reload && systemctl reset-failed {names}")
