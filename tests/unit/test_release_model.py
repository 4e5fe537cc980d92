# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random sequences of what happens to an app, on the real engine, against a small model.

The model says what must serve, where a rollback must go, and what is held. Systemd, git and builds are stood in for;
files, links, locks and states are real, below a temporary directory. A run may be killed before anything that it does.

FASTAPI_MODEL_SEED=<n> repeats a sequence that failed, FASTAPI_MODEL_STEPS=<n> makes more.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import random
import shutil
import tempfile
import time
from types import SimpleNamespace

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import (
    accounts,
    cutover,
    deploy,
    environment,
    intact,
    order,
    rollback,
    shell,
    upkeep,
)
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError
from release_model import Model

SEED = int(os.environ.get("FASTAPI_MODEL_SEED", 0)) or random.SystemRandom().randrange(1, 10**6)
STEPS = int(os.environ.get("FASTAPI_MODEL_STEPS", 2000))
# After so many steps a sequence begins anew, with nothing.
LENGTH = 60
POINTS = ("before_build", "after_build", "migrate", "before_switch", "after_switch", "after_failure")
FAILURES = (
    *("fetch", "build", "check", "migrate", "start", "readiness", "before_switch", "enable", "after_switch"),
    *("guard", "disk"),
)
GUARD = {"seconds": 10, "baseline": 60, "access_log": ""}


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, and the lock keeps what it wrote."""


class World:
    """What stands for the host: its clock, its units, its repository, and what is to go wrong in the next run."""

    def __init__(self, top):
        self.layout = Layout("shop", root=top)
        self.clock = 1_800_000_000.0
        self.running, self.enabled = set(), set()
        self.revision, self.setting, self.keep = "r1", "s1", 3
        # Revisions that fail in the guard.
        self.bad = set()
        self.fails = ""
        self.kill_in = 0
        for path in (self.layout.units, self.layout.releases, self.layout.venvs, self.layout.build):
            os.makedirs(path)

    def effect(self, what=""):
        """Something is about to be done."""
        if self.kill_in:
            self.kill_in -= 1
            if not self.kill_in:
                with open(self.layout.lock, encoding="utf-8") as stream:
                    self.left = stream.read()
                raise Killed
        if what and what == self.fails:
            raise OSError(28, "No space left on device") if what == "disk" else ReleaseError(what, "it was to fail")

    def reboot(self):
        self.running = set(self.enabled)

    def params(self, **more):
        return {
            "name": "shop", "uv_hashes": [], "env": {"SETTING": self.setting}, "build_timeout": 5, "build_limits": {},
            "build_env": {}, "build_secrets": {}, "who": "me@here", "reason": "", "run": "", "until": "done",
            "break_lock": False, "source_type": "git", "source": "git@host:shop", "version": self.revision,
            "subdirectory": "", "extras": [], "groups": [], "shared_paths": [], "static_paths": [], "files": {},
            "build_hooks": {}, "server_requirements": [], "socket_group": "www-data", "python": "3.13",
            "units": {"service": "", "socket": ""}, "keep": self.keep, "guard": GUARD, "migrate": True,
            "domain": "shop.example.com", "health": {}, "hook_timeout": 5, "timeout_start": 5, "timeout_stop": 5,
            "hooks": {point: ["true"] for point in POINTS}, "upload": "", "release": "", "previous": "",
            "forget_secrets": False, "release_again": False,
        } | more  # fmt: skip


class Unit:
    """One release's pair of units."""

    def __init__(self, world, layout, id_):
        self.world, self.layout, self.id, self.service = world, layout, id_, f"shop@{id_}.service"

    def start(self, _timeout):
        for path in self.layout.unit_paths(self.id):
            self.world.effect()
            with open(path, "w", encoding="utf-8"):
                pass
        self.world.effect("start")
        self.world.running.add(self.id)

    def wait_ready(self, *_arguments):
        self.world.effect("readiness")

    def enable(self):
        self.world.effect("enable")
        self.world.enabled.add(self.id)

    def disable(self):
        self.world.effect()
        self.world.enabled.discard(self.id)

    def switch(self, previous):
        names = {self.layout.live: self.layout.socket(self.id), self.layout.current: "releases/" + self.id}
        if previous and previous != self.id:
            names[self.layout.previous] = "releases/" + previous
        for link, target in names.items():
            self.world.effect()
            shell.point(link, target)

    def stop(self):
        self.world.effect()
        self.world.running.discard(self.id)
        self.world.enabled.discard(self.id)
        for path in self.layout.unit_paths(self.id):
            self.world.effect()
            if os.path.exists(path):
                os.unlink(path)

    discard = stop

    def serves(self):
        return self.id in self.world.running & self.world.enabled

    def journal(self):
        return ""

    def cut(self, _since):
        return {}


class Units:
    def __init__(self, world, _layout, _shell):
        self.world = world

    def app(self, _id, argv, phase, *_arguments, **_options):
        self.world.effect(phase)
        return "", 0

    def build(self, argv, phase, *_arguments, **_options):
        self.world.effect(phase)
        return "", 0

    def end_leftovers(self):
        self.world.effect()


class Shell:
    """Runs what root runs, which is cp alone."""

    def __init__(self, world):
        self.world = world

    def run(self, argv, *_arguments):
        self.world.effect()
        *parts, target = argv[argv.index("--") + 1 :]
        for part in parts:
            there = os.path.join(target, os.path.basename(part))
            if os.path.islink(part) or not os.path.isdir(part):
                shutil.copy2(part, there, follow_symlinks=False)
            else:
                shutil.copytree(part, there, symlinks=True)


class Git:
    type, location, login, is_local = "git", "git@host:shop", "", False

    def __init__(self, world):
        self.world = world

    def revision(self):
        return self.world.revision

    def fetch(self, *_arguments):
        self.world.effect("fetch")


@pytest.fixture
def world(monkeypatch):
    top = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    made = SimpleNamespace(now=None)

    def anew():
        shutil.rmtree(top)
        os.mkdir(top)
        made.now = World(top)
        return made.now

    def effect_before(module, name, what=""):
        real = getattr(module, name)

        def wrapped(*arguments, **options):
            made.now.effect(what)
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, wrapped)

    gmtime = time.gmtime
    monkeypatch.setattr(time, "time", lambda: made.now.clock)
    monkeypatch.setattr(time, "gmtime", lambda seconds=None: gmtime(made.now.clock if seconds is None else seconds))
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    for module in (deploy, rollback):
        monkeypatch.setattr(module, "Layout", lambda _name: made.now.layout)
        monkeypatch.setattr(module, "clean_environment", lambda: None)
    for module in (cutover, deploy, rollback):
        monkeypatch.setattr(module, "Instance", lambda layout, id_, _shell: Unit(made.now, layout, id_))
    monkeypatch.setattr(cutover, "Cage", lambda *arguments: Units(made.now, *arguments))
    monkeypatch.setattr(cutover.Cutover, "guard", lambda self, id_, *_rest: watched(made.now, id_))
    monkeypatch.setattr(cutover.Cutover, "evidence", lambda self, _guard: (seen(made.now, self.layout.live_id()), ""))
    monkeypatch.setattr(rollback, "Shell", lambda _run: Shell(made.now))
    monkeypatch.setattr(environment.kit, "load", lambda _app: (None, ""))
    monkeypatch.setattr(deploy, "Source", lambda *_arguments: Git(made.now))
    monkeypatch.setattr(deploy, "python_name", lambda _python: "python3.13")
    monkeypatch.setattr(deploy, "grp", SimpleNamespace(getgrnam=lambda _name: SimpleNamespace(gr_gid=os.getgid())))
    monkeypatch.setattr(accounts, "refuse_foreign", lambda _layout: None)
    # Damage has tests of its own.
    for module, name, instead in (
        *((intact, "check", []), (intact, "seal", None), (intact, "adopt", None), (intact, "refuse", None)),
        *((upkeep, "problems", []), (upkeep, "running", None)),
    ):
        monkeypatch.setattr(module, name, lambda *_arguments, instead=instead: instead)
    monkeypatch.setattr(deploy.release_kit, "save", lambda *_arguments: False)
    for name, instead in (
        *(("_directories", None), ("_empty_scratch", None), ("_nobody_builds", None), ("_close", None)),
        *(("_share", None), ("_check_units", 1.0), ("_check_app", None)),
    ):
        monkeypatch.setattr(deploy.Deploy, name, lambda *_arguments, instead=instead: instead)
    monkeypatch.setattr(deploy.Deploy, "_fetch", fetch)
    monkeypatch.setattr(deploy.Deploy, "_build", build)
    for module in (cutover, order, environment):
        effect_before(module, "write_file")
    effect_before(deploy, "write_file", "disk")
    effect_before(cutover, "append")
    effect_before(cutover, "remove_release")
    effect_before(cutover, "set_aside")
    yield anew
    shutil.rmtree(top)


def fetch(self):
    with self.cutover.phase("fetch"):
        os.makedirs(self._source)
        self.source.fetch(self._source)


def build(self):
    with self.cutover.phase("build"):
        self.cage.build([], "build")
        os.symlink("../../venvs/x", self.layout.release(self.id, "venv"))


def key_of(layout, id_):
    """What the model calls a release: its revision and its setting. It never changes."""
    if id_ is None:
        return None
    path = layout.release(id_, "env")
    return _key(layout.release(id_, "manifest.json"), path, os.stat(path).st_ino, os.stat(path).st_mtime_ns)


@functools.lru_cache(1000)
def _key(manifest, env, *_file):
    with open(manifest, encoding="utf-8") as stream:
        revision = json.load(stream)["inputs"]["source"]["revision"]
    return revision, deploy.env_values(deploy.read_text(env))["SETTING"]


def seen(world, id_):
    return "it fails" if key_of(world.layout, id_) in world.bad else ""


def watched(world, id_):
    world.effect("guard")
    if seen(world, id_):
        raise ReleaseError("guard", "it fails.")


class Walk:
    """One sequence."""

    def __init__(self, world, chance):
        self.world, self.layout, self.chance = world, world.layout, chance
        self.model, self.log = Model(), []
        # Whether what serves was left by a run that was killed before it was judged, and the model before that run.
        self.unjudged, self.before_unjudged = False, None

    # -- what is on the disk

    def releases(self):
        return self.layout.releases_by_age()

    def on_disk(self, releases=None):
        releases = self.releases() if releases is None else releases
        return [key_of(self.layout, item["id"]) for item in releases if item["state"] != "failed"]

    # -- what may happen

    def step(self):
        chance, world = self.chance, self.world
        world.clock += chance.choice((0, 0, 1, 60, 86400, -3600, -10_000_000, 10_000_000))
        world.fails = chance.choice(FAILURES) if chance.random() < 0.25 and not self.unjudged else ""
        world.kill_in = chance.randint(1, 60) if chance.random() < 0.25 else 0
        what = chance.choices((self.deploy, self.back, self.back_to, self.repeat, self.other), (8, 4, 3, 2, 1))[0]
        what()
        world.fails, world.kill_in = "", 0
        self.compare()

    def other(self):
        """What happens to a host beside releases."""
        chance = self.chance.random()
        if chance < 0.4:
            self.world.reboot()
            self.note("reboot")
        elif chance < 0.7:
            self.world.keep = self.chance.randint(1, 5)
            self.note("keep", self.world.keep)
        else:
            self.damage()

    def damage(self):
        """The order is lost. What serves stays; the way back is told by the releases, as well as they can."""
        if os.path.exists(self.layout.order) and not self.unjudged:
            with open(self.layout.order, "w", encoding="utf-8") as stream:
                stream.write(self.chance.choice(("", "{}", "[", '{"format": 99}', "null")))
            self.note("damage")
            releases = self.releases()
            states = {item["id"]: item["state"] for item in releases}
            way = [id_ for id_ in order.Order(self.layout).served() if id_ in states]
            self.model.way = [key_of(self.layout, id_) for id_ in way]
            # What was not settled when it was lost is told by the states alone.
            self.model.refused |= {key_of(self.layout, id_) for id_ in way if states[id_] not in order.OFFERED}
            self.model.held = []

    def deploy(self):
        world, chance = self.world, self.chance
        if chance.random() < 0.6:
            world.revision = f"r{chance.randint(1, 7)}"
        if chance.random() < 0.3:
            world.setting = f"s{chance.randint(1, 3)}"
        if chance.random() < 0.2:
            world.bad ^= {(world.revision, world.setting)}
        self.repeat(again=chance.random() < 0.2)

    def repeat(self, again=False):
        """The same settings once more, as `site` of a colleague does."""
        world, was = self.world, copy.deepcopy(self.model)
        before, sent_back = was.live, self.unjudged and was.live in world.bad
        key = was.wanted(world.revision, world.setting, again)
        fails = world.fails
        ended = self.run(lambda: deploy.Deploy(world.params(release_again=again), None), "deploy", key, again)
        after = key_of(self.layout, self.layout.live_id())
        if ended == "killed" and after == before:
            self.killed(was, before, key)
            return
        base = self.sent_back() if sent_back else was
        if ended == "killed":
            if after == base.live:
                self.killed(base, before, key)
            else:
                assert after == key, self.told()
                self.killed(base, before, key, switched=True)
            return
        model = self.model = base
        self.unjudged = False
        if sent_back and key == before:
            assert ended == "guard", self.told()
        elif ended == "done":
            model.deployed(key)
        elif key == model.live:
            # It serves already, so there is no other to go to.
            assert after == key, self.told()
        elif model.live is None and after == key:
            # The first release of all failed after the switch: better than nothing.
            model.deployed(key)
        else:
            assert fails or key in world.bad, self.told()
            model.refused.add(key)

    def sent_back(self):
        """The model once a run has judged what an earlier one left."""
        base = copy.deepcopy(self.before_unjudged)
        base.refused = self.model.refused | {self.model.live}
        return base

    def killed(self, base, before, key, switched=False, instead_of=None):
        """A run was killed. What serves tells whether it had switched; of what it was about, states tell the rest."""
        was, self.model = base, copy.deepcopy(base)
        if switched:
            if self.log[-1][0] == "deploy":
                self.model.deployed(key)
            else:
                self.model.rolled_back(key, instead_of)
        unjudged = bool(order.Order(self.layout).unjudged)
        if unjudged and switched:
            self.before_unjudged = was
        self.unjudged = unjudged
        for item in self.releases():
            name = key_of(self.layout, item["id"])
            if name in {key, before} - {self.model.live}:
                refused = item["state"] not in order.OFFERED
                (self.model.refused.add if refused else self.model.refused.discard)(name)

    def back(self):
        self.roll_back(self.model.back[0] if self.model.back else None)

    def back_to(self):
        """A rollback that names a release: any that is there, also one that was rolled back or did not start."""
        found = [(item["id"], key_of(self.layout, item["id"])) for item in self.releases()]
        if found:
            id_, key = self.chance.choice(found)
            state = self.layout.state(id_)["state"]
            self.roll_back(key if state != "failed" or id_ == self.layout.live_id() else None, id_)

    def roll_back(self, key, name=""):
        """With the environment of the release, or with that of today: that is another release of its revision."""
        was, before = copy.deepcopy(self.model), self.model.live
        fails = self.world.fails
        env = "current" if self.chance.random() < 0.2 else ""
        target, key = key, (key[0], before[1]) if key and env and before else key
        was_there = key in self.on_disk()
        if env and key == before != target:
            key = None  # what serves is that already
        params = {"name": "shop", "release": name, "reason": "", "break_lock": False, "who": "me@here"}
        params |= {"env": env if before else "", "forget_secrets": False}
        ended = self.run(lambda: rollback.Rollback(params, None), "rollback", name and "named", env, key)
        after = key_of(self.layout, self.layout.live_id())
        if ended == "killed":
            assert after in {before, key}, self.told()
            self.killed(was, before, key, switched=after == key != before, instead_of=target)
            return
        self.unjudged = bool(order.Order(self.layout).unjudged)
        if ended == "done" or (before is None and after == key is not None):
            # Where nothing served, a release that fails after the switch is better than nothing.
            self.model.rolled_back(key, instead_of=target)
        elif key is None:
            assert ended == "choose" and after == before, self.told()
        else:
            assert fails and after == before, self.told()
            assert was_there or key not in self.on_disk(), self.told()
            if key != before and was_there and ended in cutover.OWN_FAULTS:
                self.model.refused.add(key)

    # -- running, and looking

    def note(self, *what):
        self.log.append(what)

    def told(self):
        return f"FASTAPI_MODEL_SEED={SEED}: " + "\n".join(map(str, self.log[-12:]))

    def run(self, make, *what):
        self.note(*what, "fails " + self.world.fails if self.world.fails else "", self.world.kill_in)
        try:
            work = make()
            work.run()
            ended = "done"
        except ReleaseError as exc:
            ended = exc.phase
        except Killed:
            with open(self.layout.lock, "w", encoding="utf-8") as stream:
                stream.write(self.world.left)
            ended = "killed"
        self.log[-1] += (ended,)
        self.log[-1] += (key_of(self.layout, self.layout.live_id()),)
        return ended

    def compare(self):
        model, layout = self.model, self.layout
        live = layout.live_id()
        assert key_of(layout, live) == model.live, self.told()
        releases, found = self.releases(), order.Order(layout)
        disk = self.on_disk(releases)
        back = model.back[0] if model.back else None
        target = key_of(layout, next(iter(found.way_back(releases)), None))
        assert target == back, f"a rollback goes to {target} and not to {back}\n{self.told()}"
        assert back is None or back in disk, self.told()
        held = [(hold["revision"], hold["digest"]) for hold in found.holds()]
        assert [revision for revision, _digest in held] == [revision for revision, _setting in model.held], self.told()
        # What was pruned is no choice any more.
        model.way = [key for key in model.way if key == model.live or key in disk]
        assert list(layout.damaged()) == [], self.told()


def test_what_serves_and_where_a_rollback_goes_is_as_the_model_says(world):
    chance = random.Random(SEED)
    print(f"FASTAPI_MODEL_SEED={SEED}")
    done = 0
    while done < STEPS:
        walk = Walk(world(), chance)
        for _ in range(LENGTH):
            walk.step()
            done += 1


# -- what people do ---------------------------------------------------------------------------------------------------


class Days:
    """What people do with one app, and what they are told."""

    def __init__(self, world):
        self.world, self.layout = world, world.layout
        self.world.keep = 9

    def run(self, work):
        work.run()
        self.said = "\n".join(work.cutover.warnings)
        self.result = work.result
        return self.live

    @property
    def live(self):
        return key_of(self.layout, self.layout.live_id())

    def deploy(self, revision, setting="s1", **options):
        self.world.revision, self.world.setting = revision, setting
        return self.run(deploy.Deploy(self.world.params(**options), None))

    def back(self, release="", **options):
        params = {"name": "shop", "release": release, "env": "", "forget_secrets": False, "break_lock": False}
        params |= {"reason": "wrong prices", "who": "ann@laptop", **options}
        return self.run(rollback.Rollback(params, None))

    def history(self):
        with open(self.layout.history, encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]


@pytest.fixture
def days(world):
    return Days(world())


def test_a_rollback_goes_back_to_what_served_before_the_bad_release(days):
    for revision in ("r1", "r2", "r3", "r4"):
        days.deploy(revision)
        days.world.clock -= 86400
    assert days.back("r1")[0] == "r1"
    days.world.keep = 1
    days.deploy("r5")
    assert days.back()[0] == "r1"


def test_the_way_back_is_as_long_as_there_are_releases(days):
    days.world.keep = 2
    for number in range(6):
        days.deploy(f"r{number}")
    assert order.Order(days.layout).content["served"] == sorted(days.layout.ids()) and len(days.layout.ids()) == 2


def test_what_was_rolled_back_is_not_released_again_by_a_colleague(days):
    days.deploy("r1")
    days.deploy("r2")
    days.back()
    assert days.deploy("r2") == ("r1", "s1") and not days.result["changed"]
    assert "r2 (r2) was not released: it is held since" in days.said
    assert "by ann@laptop: wrong prices. r1 goes on serving" in days.said
    assert days.result["version"] == "r1" and days.result["held"]["version"] == "r2"


def test_settings_go_out_with_the_revision_that_serves_while_another_is_held(days):
    days.deploy("r1")
    days.deploy("r2")
    days.back()
    assert days.deploy("r2", "s2") == ("r1", "s2")
    assert "r1 goes on serving with the settings of the inventory" in days.said
    assert days.deploy("r2", "s2") == ("r1", "s2") and not days.result["changed"]
    assert days.layout.manifest(days.layout.live_id())["version"] == "r1"


def test_a_branch_that_moved_on_or_a_word_ends_the_hold(days):
    days.deploy("r1")
    days.deploy("r2")
    days.back()
    assert days.deploy("r3")[0] == "r3"
    days.back()
    assert days.deploy("r3")[0] == "r1"
    assert days.deploy("r3", release_again=True)[0] == "r3" and not days.said
    days.back("r1")
    assert days.deploy("r2")[0] == "r2", "the hold of the branch that moved on is over"


def test_an_old_release_starts_with_the_password_of_today(days):
    days.deploy("r1", "old")
    days.deploy("r2", "new")
    first = days.layout.ids()
    days.world.fails = "readiness"
    with pytest.raises(ReleaseError):
        days.back(env="current")
    assert days.live == ("r2", "new") and days.layout.ids() == first, "a failed one leaves all as it was"
    days.world.fails = ""
    assert days.back(env="current") == ("r1", "new")
    assert days.layout.manifest(days.result["release"])["version"] == "r1"
    assert not days.said and days.history()[-1].get("env_changed") is None


def test_where_nothing_serves_a_release_keeps_its_own_environment(days):
    days.deploy("r1", "old")
    days.deploy("r2", "new")
    os.unlink(days.layout.live)
    assert days.back("r1", env="current") == ("r1", "old")


def test_settings_that_were_rolled_back_are_held_until_there_are_others(days):
    days.deploy("r1", "s1")
    days.deploy("r1", "s2")
    days.back()
    assert days.deploy("r1", "s2") == ("r1", "s1")
    assert "r1 (r1) with these settings was not released" in days.said and "Other settings or" in days.said
    assert days.deploy("r1", "s3") == ("r1", "s3") and not days.said
    assert days.deploy("r1", "s2") == ("r1", "s2")


def test_who_goes_back_is_told_which_variables_differ(days):
    days.deploy("r1", "old")
    days.deploy("r2", "new")
    assert days.history()[-1]["env_changed"] == ["SETTING"]
    days.world.fails = "fetch"
    with pytest.raises(ReleaseError):
        days.deploy("r3", "newer")
    days.world.fails = ""
    assert "env_changed" not in days.history()[-1], "what failed changed nothing"
    days.back()
    assert "the environment of r1 differs from that of what serves, in SETTING" in days.said
    assert "-e env=current" in days.said and "old" not in days.said


def test_old_secrets_are_forgotten_with_their_releases(days):
    days.deploy("r1", "old")
    days.deploy("r2", "new")
    days.deploy("r3", "new")
    days.deploy("r3", "new", forget_secrets=True)
    assert {key_of(days.layout, id_) for id_ in days.layout.ids()} == {("r2", "new"), ("r3", "new")}
    assert days.back() == ("r2", "new")
    days.deploy("r4", "newer")
    days.deploy("r4", "newer", forget_secrets=True)
    assert "no release is left to which a rollback could go" in days.said
    with pytest.raises(ReleaseError, match="no earlier release"):
        days.back()


def test_a_run_that_died_in_its_guard_is_judged_by_the_next(days):
    days.deploy("r1")
    days.world.bad = {("r2", "s1")}
    for steps in range(1, 80):
        days.world.kill_in = steps
        try:
            days.deploy("r2")
        except Killed:
            with open(days.layout.lock, "w", encoding="utf-8") as stream:
                stream.write(days.world.left)
        except ReleaseError:
            break
        if order.Order(days.layout).unjudged:
            break
    days.world.kill_in = 0
    assert days.live == ("r2", "s1")
    with pytest.raises(ReleaseError, match=r"it fails\. The run that .* had ended before") as error:
        days.deploy("r2")
    assert error.value.phase == "guard" and days.live == ("r1", "s1")
    assert [line["outcome"] for line in days.history()] == ["good", "failed"], "and does not try it again"


def test_a_release_that_does_not_start_is_not_offered_again(days):
    for revision in ("r1", "r2", "r3"):
        days.deploy(revision)
    days.world.fails = "readiness"
    with pytest.raises(ReleaseError):
        days.back()
    days.world.fails = ""
    assert days.back()[0] == "r1"
