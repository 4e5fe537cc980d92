# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extra variables: those of a playbook have their types, and one that would have no effect is a problem."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.parsing.splitter import parse_kv
from ansible_collections.daoman.fastapi.plugins.module_utils import playbook_variables
from ansible_collections.daoman.fastapi.plugins.modules import validate

ROOT = Path(__file__).resolve().parents[2]


def check(playbook, extra, **others):
    return "\n".join(playbook_variables.check(playbook, extra, **others))


def test_the_documentation_names_the_playbooks():
    for playbook in playbook_variables.PLAYBOOKS:
        assert f"      - {playbook}\n" in validate.DOCUMENTATION
        assert (ROOT / "playbooks" / f"{playbook}.yml").is_file()


@pytest.mark.parametrize(
    ("playbook", "name", "meant"),
    [
        ("site", "resaon", "reason"),
        ("deploy", "breaklock", "break_lock"),
        ("rollback", "relase", "release"),
        ("maintenance", "maintenence", "maintenance"),
        ("lock", "minute", "minutes"),
        ("releases", "apps", "app"),
    ],
)
def test_a_misspelt_variable_names_the_right_one(playbook, name, meant):
    assert f"{name}: unknown variable. Did you mean '{meant}'?" in check(playbook, {name: "x"})


@pytest.mark.parametrize(
    ("playbook", "name", "owner"),
    [("deploy", "release", "rollback"), ("site", "version", "deploy_version"), ("harden", "app", "site")],
)
def test_a_variable_of_another_playbook_names_that_playbook(playbook, name, owner):
    assert f"{name}: is a variable of the playbook {owner}; {playbook} has " in check(playbook, {name: "x"})


@pytest.mark.parametrize(
    "name", ["ansible_user", "awx_job_id", "tower_user_name", "fastapi_apps", "color", "nginx_http3"]
)
def test_variables_of_ansible_of_its_runners_and_of_users_pass(name):
    assert check("deploy", {name: "x"}) == ""


def test_a_name_that_the_inventory_uses_or_the_user_vouches_for_passes():
    used = playbook_variables.words({"fastapi_apps": [{"version": "{{ release | default('main') }}"}]})
    assert check("deploy", {"release": "v1"}, used=used) == ""
    assert check("deploy", {"release": "v1"}, ignored=["release"]) == ""
    assert check("deploy", {"release": "v1"}, used={"version"})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("break_lock", "ture", "expected true or false"),
        ("minutes", "1h", "expected a whole number"),
        ("fail_on", "critcal", "Did you mean 'critical'?"),
    ],
)
def test_a_value_of_the_wrong_type_is_a_problem(name, value, words):
    playbook = next(book for book, names in playbook_variables.PLAYBOOKS.items() if name in names)
    assert words in check(playbook, {name: value})


def test_words_that_belong_to_no_variable_are_a_problem():
    problems = check("deploy", parse_kv("reason=prices with VAT"))
    assert "the words 'with VAT' belong to no variable" in problems
    assert "-e 'reason=\"prices with VAT\"'" in problems
    assert check("deploy", parse_kv('reason="prices with VAT"')) == ""


@pytest.mark.parametrize(
    ("wanted", "chosen"), [([], ["shop", "blog"]), (["blog"], ["blog"]), (["blog", "shop"], ["blog", "shop"])]
)
def test_apps_are_all_or_those_that_are_named(wanted, chosen):
    assert playbook_variables.chosen(wanted, ["shop", "blog"]) == (chosen, [])


def test_an_unknown_app_lists_those_that_there_are():
    chosen, problems = playbook_variables.chosen(["shpo", "blog"], ["shop"], ["shop", "blog"])
    assert chosen == []
    assert problems == ["app: fastapi_apps has no app 'shpo'. Did you mean 'shop'? There are: blog, shop"]


def test_an_app_of_another_host_is_no_problem_and_not_of_this_one():
    assert playbook_variables.chosen(["blog"], ["shop"], ["shop", "blog"]) == ([], [])


def test_an_app_that_is_only_on_hosts_is_asked_for_there():
    assert playbook_variables.chosen(["gone"], ["shop"], ["shop"], of_host=True) == (["gone"], [])


DOCUMENTED = sorted(
    {
        (path.name, word)
        for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("playbooks/*.yml")]
        for word in re.findall(
            r"""-e ('[a-z_{][^'\n]*'|[a-z_]+=(?:"[^"\n]*"|[^\s`'"])+)""", path.read_text(encoding="utf-8")
        )
    }
)


@pytest.mark.parametrize(("file", "word"), DOCUMENTED)
def test_what_the_documentation_says_arrives_whole(file, word):
    [argument] = shlex.split(word)
    found = json.loads(argument) if argument.startswith("{") else parse_kv(argument)
    assert playbook_variables.LEFT_OVER not in found


def test_every_variable_is_documented():
    text = (ROOT / "docs/releases.md").read_text(encoding="utf-8")
    table = text[text.index("## Variables of the playbooks") : text.index("## Builds")]
    assert [name for name in playbook_variables.OPTIONS if f"`{name}`" not in table] == []


def test_the_playbooks_use_what_they_have():
    """And give no variable of the command line another name."""
    for playbook, names in playbook_variables.PLAYBOOKS.items():
        text = (ROOT / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8")
        code = re.sub(r"^ *#.*$", "", text, flags=re.MULTILINE)
        used = [name for name in names if name == "app" or re.search(rf"\b{name}\b", code)]
        assert used == list(names), playbook
        assert not names or "__validated" in code


# -- as users call it -------------------------------------------------------------------------------------------------

INVENTORY = {
    "fastapi_app": {
        "hosts": {
            "one": {"fastapi_apps": [{"name": "shop"}, {"name": "blog", "env": {"A": "{{ not_there }}"}}]},
            "two": {"fastapi_apps": [{"name": "{{ 'bl' + 'og' }}", "version": "{{ release | default('main') }}"}]},
        }
    }
}
PLAY = """
- hosts: fastapi_app
  gather_facts: false
  tasks:
    - daoman.fastapi.validate: {playbook: PLAYBOOK}
      register: checked
    - ansible.builtin.debug:
        msg: "CHOSEN {{ inventory_hostname }} {{ checked.apps | join('+') }} REASON {{ reason | default('') }} END"
"""


@pytest.fixture
def play(tmp_path):
    def run(playbook, *arguments):
        (tmp_path / "hosts.yml").write_text(json.dumps(INVENTORY), encoding="utf-8")
        (tmp_path / "play.yml").write_text(PLAY.replace("PLAYBOOK", playbook), encoding="utf-8")
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", "hosts.yml", "play.yml", *arguments]
        env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    return run


def test_each_host_takes_the_apps_that_it_has(play):
    done = play("site", "-e", "app=shop,blog", "-e", 'reason="prices with VAT"')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CHOSEN one shop+blog REASON prices with VAT END" in done.stdout
    # The template of one of its apps is the other's, and what another host's inventory uses is known on this one.
    assert "CHOSEN two blog REASON" in done.stdout


def test_what_any_host_of_the_inventory_uses_passes(play):
    assert play("site", "-e", "release=v1").returncode == 0


def test_a_rollback_needs_the_name_of_an_app(play):
    done = play("rollback")
    assert done.returncode == 2
    assert (
        "app: is required by the playbook rollback. This host has: shop, blog. Give -e app=NAME"
        in done.stdout + done.stderr
    )
