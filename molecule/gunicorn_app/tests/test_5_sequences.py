"""Deploys, rollbacks, kills and damage in a random order, against a model of what must serve and where a rollback goes.

FASTAPI_MODEL_SEED=<n> repeats a sequence that failed, FASTAPI_MODEL_STEPS=<n> makes more.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import sys
from pathlib import Path

import pytest
from conftest import SCENARIO

sys.path.append(str(Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "tests")))
from release_model import Model

pytestmark = pytest.mark.either_host

SEED = int(os.environ.get("FASTAPI_MODEL_SEED", 0)) or random.SystemRandom().randrange(1, 10**6)
STEPS = int(os.environ.get("FASTAPI_MODEL_STEPS", 24))
REPOSITORY, KEPT = "/srv/git/walk.git", "/var/lib/fastapi/deploy"
REVISIONS = [f"r{number}" for number in range(1, 6)]
# Revisions that fail when they start, and when they are asked whether they are ready.
BROKEN = ("crashes", "is-not-ready")
# A deploy or a rollback is killed within its first two seconds, which is before, amid or after its switch.
KILLED = "timeout --signal=KILL {} fastapictl {}"
LOOK = """
import json, sys
sys.path.insert(0, "/usr/local/lib/fastapi")
from fastapi_host.order import OFFERED, Order
from fastapi_host.release import Layout, ReleaseError
layout = Layout("walk")
releases = layout.releases_by_age()
order = Order(layout)
try:
    target = order.target(releases)
except ReleaseError:
    target = ""
print(json.dumps({
    "live": layout.live_id(), "target": target, "held": [hold["version"] for hold in order.holds()],
    "versions": {item["id"]: item["version"] for item in releases},
    "refused": [item["version"] for item in releases if item["state"] not in OFFERED],
}))
"""
# What is done to a host, none of which may cost a user a request, or the app its way back.
DAMAGE = {
    "current is gone": "rm /srv/walk/current",
    "live.sock is gone": "rm /srv/walk/live.sock",
    "previous leads nowhere": "ln -sfn releases/none /srv/walk/previous",
    "the app's directory is closed": "chmod 700 /srv/walk; chown nobody /srv/walk/releases",
    "the environment of packages is gone": "rm -r $(readlink -f /srv/walk/current/venv)",
    "the environment file is gone": "rm /srv/walk/current/env",
    "a source is gone": "rm /srv/walk/current/src/main.py",
    "a half line ends the history": "printf '{\"time' >>/srv/walk/history.jsonl",
    "the lock is damaged": "printf '[' >/srv/walk/.lock",
}


@pytest.fixture
def walk(host, tiny):
    """The app `walk`, released once from a repository on its host, with settings that are kept for fastapictl."""
    source = (SCENARIO / "files/tiny/main.py").read_text(encoding="utf-8")
    commands = [f"rm -rf {REPOSITORY} /root/walk", "git init --quiet /root/walk", "cd /root/walk",
                "git config user.email a@b.c; git config user.name a; printf '' >requirements.txt"]  # fmt: skip
    for name in (*REVISIONS, *BROKEN):
        text = source.replace('REVISION = "1"', f'REVISION = "{name}"').replace("tiny.example", "walk.example")
        if name == "crashes":
            first = '    if scope["type"] == "lifespan":\n'
            text = text.replace(first, first + "        os._exit(1)\n")
        if name == "is-not-ready":
            text = text.replace('"/health/ready": ', '"/health/other": ')
        commands += [f"printf %s {shlex.quote(text)} >main.py", "git add -A", f"git commit -q -m {name}"]
        commands.append(f"git tag {name}")
    host.check_output("; ".join([*commands, f"git clone --quiet --bare . {REPOSITORY}", f"mkdir -p {KEPT}"]))
    tiny.options = {
        "name": "walk", "domain": "walk.example.com", "source": f"file://{REPOSITORY}", "version": "r1",
        "app": "main:app", "gunicorn": {"workers": 1}, "health": {"timeout": 4}, "release": {"linger": 0.5, "keep": 4},
    }  # fmt: skip
    tiny.deployed()
    yield Walk(host, random.Random(SEED))
    tiny.options = {"name": "walk", "state": "absent"}
    host.check_output(f"rm -rf {REPOSITORY} /root/walk {KEPT}/walk.json")
    tiny.deployed()


class Walk:
    def __init__(self, host, chance):
        self.host, self.chance, self.log = host, chance, []
        self.model = Model()
        self.model.deployed("r1")

    def told(self):
        return f"FASTAPI_MODEL_SEED={SEED}: " + "\n".join(map(str, self.log[-8:]))

    def run(self, words, killed=False):
        command = f"fastapictl {words}"
        if killed:
            command = KILLED.format(round(self.chance.uniform(0.05, 2), 2), words)
        done = self.host.run(command)
        self.log.append((command, done.rc, done.stderr[-300:]))
        return done.rc

    def look(self):
        return json.loads(self.host.check_output("python3 -c %s", LOOK))

    def step(self):
        chance = self.chance
        doing = chance.choices((self.deploy, self.break_, self.back, self.back_to, self.damage), (7, 2, 4, 2, 5))[0]
        killed = doing is not self.damage and chance.random() < 0.2
        doing(killed)
        self.compare()

    def after_kill(self, key, to):
        """What serves tells whether the run had switched; what serves no more may be neither good nor bad."""
        found = self.look()
        live = found["versions"][found["live"]]
        assert live in {self.model.live, key}, self.told()
        if live == key != self.model.live:
            to(key)
        self.model.refused |= set(found["refused"]) - {live}

    def deploy(self, killed):
        key = self.chance.choice(REVISIONS)
        again = self.chance.random() < 0.3
        held = key in self.model.held and not again and key != self.model.live
        code = self.run(f"deploy walk {key}" + (" --again" if again else ""), killed)
        if held:
            return
        if killed:
            self.after_kill(key, self.model.deployed)
        else:
            assert code == 0, self.told()
            self.model.deployed(key)

    def break_(self, killed):
        assert self.run(f"deploy walk {self.chance.choice(BROKEN)}", killed) != 0, self.told()

    def back(self, killed):
        key = self.model.back[0] if self.model.back else None
        self.roll_back("", key, killed)

    def back_to(self, killed):
        found = self.look()["versions"]
        id_ = self.chance.choice([id_ for id_, version in found.items() if version not in BROKEN])
        self.roll_back(" " + id_, found[id_], killed)

    def roll_back(self, name, key, killed):
        code = self.run(f"rollback walk{name}", killed)
        if killed:
            if key:
                self.after_kill(key, self.model.rolled_back)
        elif key is None:
            assert code != 0, self.told()
        else:
            assert code == 0, self.told()
            self.model.rolled_back(key)

    def damage(self, _killed):
        """And then the same version once more, as the next run does."""
        what = self.chance.choice(sorted(DAMAGE))
        self.log.append(what)
        self.host.check_output(DAMAGE[what])
        held = self.model.live in self.model.held
        assert self.run(f"deploy walk {self.model.live}") == 0, self.told()
        assert not held, self.told()

    def compare(self):
        found, model = self.look(), self.model
        versions = found["versions"]
        assert versions[found["live"]] == model.live, self.told()
        answer = self.host.check_output(
            "curl -sS --fail --max-time 5 --unix-socket /srv/walk/live.sock http://walk.example.com/revision"
        )
        assert json.loads(answer) == model.live, self.told()
        back = [key for key in model.back if key in versions.values()]
        assert versions.get(found["target"]) == (back[0] if back else None), (found, model.way, self.told())
        assert found["held"] == model.held, (found, self.told())
        # What a killed run leaves is taken away by the next one.
        if "KILL" not in self.log[-1][0]:
            units = self.host.check_output("ls /etc/systemd/system | grep ^walk@").split()
            assert units == [f"walk@{found['live']}.service", f"walk@{found['live']}.socket"], self.told()
        model.way = [key for key in model.way if key in versions.values()]


def test_any_sequence_ends_where_the_model_says(walk):
    print(f"FASTAPI_MODEL_SEED={SEED}")
    for _ in range(STEPS):
        walk.step()
