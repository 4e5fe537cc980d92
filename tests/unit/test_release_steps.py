# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's tasks for several hosts, as Ansible runs them, with a release of straw: one fails or is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What becomes of a call is in plan.json, by host and stage; the calls are in calls.txt.
STUB = """
import json, os
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        args, host = self._task.args, task_vars["inventory_hostname"]
        app, until = args["app"]["name"], args.get("until", "done")
        with open(os.path.join(HERE, "calls.txt"), "a") as stream:
            stream.write(f"{app} {host} {until} {args.get('resolved', {}).get('revision', '')}\\n")
        with open(os.path.join(HERE, "plan.json")) as stream:
            outcome = json.load(stream).get(f"{app} {host} {until}", "")
        if outcome == "lost":
            raise AnsibleConnectionFailure("no route to host")
        if outcome:
            return {**result, "failed": True, "msg": f"{app}: {outcome}\\nThe last lines of it"}
        return {
            **result, "changed": True, "app": app, "host": host, "built": True, "release": "new", "previous": "old",
            "task_files": [], "resolved": {"revision": f"commit-of-{host}"}}
"""
APP = {"domain": "a.example.com", "source": "https://git.example.com/a.git", "app": "a:b"}
PLAY = """
- hosts: all
  gather_facts: false
  order: sorted
  vars:
    gunicorn_app_apps: APPS
    gunicorn_app_batch: "1"
    gunicorn_app_lock_wait: WAIT
    __gunicorn_app_report: false
  tasks:
    - ansible.builtin.import_role: {name: gunicorn_app, tasks_from: release}
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "LATER {{ inventory_hostname }} {{ __gunicorn_app_failures | default([]) | to_json }} END"
"""


@pytest.fixture
def fleet(tmp_path):
    """Runs the role's tasks on hosts a, b and c: the calls, and what each host knows in a later play."""
    shutil.copytree(ROOT / "roles/gunicorn_app", tmp_path / "roles/gunicorn_app")
    for path in (tmp_path / "roles/gunicorn_app/tasks").glob("*.yml"):
        path.write_text(path.read_text().replace("daoman.fastapi.release:", "stub_release:"))
    for folder, text in (("action_plugins", STUB), ("library", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "stub_release.py").write_text(text)

    def run(plan, apps=("shop",), wait=0, **options):
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        given = [{"name": name, **APP, "domain": f"{name}.example.com", **options} for name in apps]
        (tmp_path / "play.yml").write_text(PLAY.replace("APPS", json.dumps(given)).replace("WAIT", str(wait)))
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", "c,b,a", "-c", "local", "play.yml"]
        env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1",
               "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        calls = [tuple(line.rstrip("\n").split(" ")) for line in (tmp_path / "calls.txt").open()]
        later = {
            line.split()[1]: line.split(" ", 2)[2]
            for line in done.stdout.replace('\\"', '"').split("LATER")[1:]
            for line in ["LATER" + line.partition(" END")[0]]
        }
        return calls, later, done.stdout + done.stderr

    return run


def stages(calls, host, app="shop"):
    return [stage for name, on, stage, _revision in calls if (name, on) == (app, host)]


def test_one_host_resolves_for_all_and_locks_are_taken_in_the_order_of_names(fleet):
    """Two runs with inventories in another order would wait for each other."""
    calls, later, out = fleet({}, wait=60)
    assert [(on, stage) for _app, on, stage, _revision in calls[:5]] == [
        *(("c", "resolve"), ("a", "lock"), ("b", "lock"), ("c", "lock")),
        (calls[4][1], "seal"),
    ], out
    assert {revision for _app, _host, stage, revision in calls if stage == "lock"} == {"commit-of-c"}
    assert [on for _app, on, stage, _revision in calls if stage == "done"] == ["c", "b", "a"]
    assert later == dict.fromkeys("abc", "[]")


def test_where_a_host_fails_all_return_and_go_on_with_the_next_app(fleet):
    calls, later, out = fleet({"shop b done": "ready failed: no answer"}, apps=("shop", "blog"))
    for host in "abc":
        assert stages(calls, host)[-1] == "abort", out
        assert stages(calls, host, "blog")[-2:] == ["seal", "done"]
    assert stages(calls, "a")[-2:] == ["seal", "abort"], "nobody switches after that"
    cause = "shop: not released on any host of this play. The cause is on b: shop: ready failed: no answer (this host"
    assert sorted(later) == ["a", "b", "c"] and all(cause in text for text in later.values())
    assert not any("last lines" in text for text in later.values())


@pytest.mark.parametrize(("stage", "switched"), [("seal", ""), ("done", "c")])
def test_where_a_host_is_lost_the_others_return_and_go_on(fleet, stage, switched):
    calls, later, out = fleet({f"shop b {stage}": "lost"})
    assert "".join(on for _app, on, stage, _revision in calls if stage == "done").replace("b", "") == switched
    assert stages(calls, "a")[-1] == stages(calls, "c")[-1] == "abort", out
    assert sorted(later) == ["a", "c"]
    assert all("The cause is on b: it was lost and may serve another release" in text for text in later.values())
