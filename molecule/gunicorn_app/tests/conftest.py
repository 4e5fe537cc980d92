"""Deploys tiny anew, with something changed, on the one host that a test looks at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
PLAY = """
- hosts: all
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.import_role:
        name: daoman.fastapi.gunicorn_app
        tasks_from: release
"""


def wait_for(condition, seconds: float = 10) -> float:
    """Seconds until the condition held."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - begun


class Tiny:
    """The app `tiny` on one host: its source in a directory of the test's own, its options, its answers."""

    def __init__(self, host, tmp_path: Path):
        self.host = host
        self.source = tmp_path / "tiny"
        shutil.copytree(SCENARIO / "files/tiny", self.source)
        self.play = tmp_path / "play.yml"
        self.play.write_text(PLAY, encoding="utf-8")
        self.options = {
            "name": "tiny",
            "domain": "tiny.example.com",
            "source": str(self.source),
            "app": "main:app",
            "static_paths": ["static"],
            "gunicorn": {"workers": 2},
            "health": {"timeout": 20},
        }

    def edit(self, old: str, new: str, file: str = "main.py") -> None:
        path = self.source / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def deploy(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        variables = {"gunicorn_app_apps": [{**self.options, **options}]}
        return subprocess.run(
            [
                "ansible-playbook",
                "-i",
                os.environ["MOLECULE_INVENTORY_FILE"],
                "--limit",
                self.host.backend.hostname,
                "-e",
                json.dumps(variables),
                *arguments,
                str(self.play),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )

    def deployed(self, **options) -> str:
        done = self.deploy(**options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, **options) -> str:
        """Output of a deploy that failed, whose failure changed nothing for users."""
        live, answer = self.live(), self.ask("/revision")
        done = self.deploy(**options)
        assert done.returncode != 0, done.stdout
        assert (self.live(), self.ask("/revision")) == (live, answer)
        units = self.host.check_output("ls /etc/systemd/system").split()
        assert sorted(unit for unit in units if unit.startswith("tiny@")) == [
            f"tiny@{live}.service",
            f"tiny@{live}.socket",
        ]
        return done.stdout + done.stderr

    def live(self) -> str:
        return self.host.check_output("readlink /srv/tiny/live.sock").removeprefix("/run/tiny/").removesuffix(".sock")

    def ask(self, path: str):
        return json.loads(
            self.host.check_output(
                f"curl -sS --fail --max-time 10 --unix-socket /srv/tiny/live.sock http://tiny.example.com{path}"
            )
        )


@pytest.fixture
def tiny(host, tmp_path: Path) -> Tiny:
    return Tiny(host, tmp_path)
