# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action: templates, vaulted values and misspelt variables, as a play hands them over."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import EncryptedString, VaultLib, VaultSecret, VaultSecretsContext
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.daoman.fastapi.plugins.action import validate

APP = {"name": "shop", "domain": "shop.example.com", "source": "/src/shop", "app": "app.main:app"}
SECRET = "hunter2"
# Ansible makes a connection object for every task, though this one never uses it.
NOWHERE = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))


@pytest.fixture(scope="module", autouse=True)
def plugins():
    with contextlib.suppress(ValueError):  # another test did it
        init_plugin_loader()


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(validate.Display, "warning", lambda self, text, *args, **kwargs: found.append(text))
    return found


def trusted(value):
    """Marks templates as Ansible marks those from its own files."""
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def run(variables, trust=True, **args):
    variables = trusted(variables) if trust else variables
    loader = DataLoader()
    task = Task()
    task.args = args
    task.action = "daoman.fastapi.validate"
    action = validate.ActionModule(
        task=task, connection=NOWHERE, play_context=PlayContext(), loader=loader,
        templar=Templar(loader=loader, variables=variables), shared_loader_obj=None)
    result = action.run(task_vars=variables)
    assert result["changed"] is False
    return result


def problems(variables, **args):
    result = run(variables, **(args or {"apps": True}))
    assert result.get("failed"), result
    return [line.strip() for line in result["msg"].splitlines()[1:]]


def test_what_is_in_order_passes(warnings):
    result = run({"fastapi_apps": [APP], "certbot_tls_obtain": False}, apps=True,
                 role=["gunicorn_app", "nginx", "certbot_tls", "systemd_service"])
    assert not result.get("failed") and warnings == []


def test_an_app_by_a_name_that_no_ca_certifies_is_told():
    result = run({"fastapi_apps": [APP]}, apps=True, role=["certbot_tls"])
    assert "fastapi_apps[0].domain: belongs to 'example.com', which is reserved" in result["msg"]
    assert "certbot_tls_obtain: false" in result["msg"]


def test_the_number_of_problems_is_told():
    result = run({"fastapi_apps": [{**APP, "x": 1, "gunicorn": {"wrokers": 3}}]}, apps=True)
    assert result["msg"].startswith("2 problems in fastapi_apps; nothing was changed:\n")
    assert "fastapi_apps[0].gunicorn.wrokers: unknown option (value: 3). Did you mean 'workers'?" in result["msg"]


def test_one_problem_of_a_role_is_told_as_such():
    result = run({"nginx_worker_connections": "many"}, role="nginx")
    assert result["msg"].startswith("1 problem in the variables of nginx; nothing was changed:\n")


def test_problems_of_the_spec_and_of_the_rules_come_together():
    found = problems({"fastapi_apps": [{**APP, "domain": "a/b", "gunicorn": {"workers": "x"}}, {**APP, "healht": {}}]})
    assert [text.partition(": ")[0] for text in found] == [
        "fastapi_apps[0].domain", "fastapi_apps[0].gunicorn.workers", "fastapi_apps[1].healht", "fastapi_apps[1].name"]


def test_the_sites_other_variables_are_checked_too():
    found = problems({"fastapi_apps": [APP], "fastapi_manage_packages": "maybe"})
    assert found == ["fastapi_manage_packages: expected true or false (value: 'maybe')"]


@pytest.mark.parametrize(
    "variables, said",
    [
        ({}, "fastapi_apps: is required and missing"),
        ({"fastapi_apps": []}, "fastapi_apps: is empty"),
        ({"fastapi_apps": None}, "fastapi_apps: is empty"),
        ({"fastapi_apps": "{{ nowhere }}"}, "fastapi_apps: uses a variable that is not there: 'nowhere' is undefined"),
        ({"fastapi_apps": "shop"}, "fastapi_apps[0]: expected a dict"),
        ({"fastapi_apps": APP}, "fastapi_apps: expected a list of dicts"),
        ({"fastapi_app": [APP]}, "fastapi_app: unknown variable. Did you mean 'fastapi_apps'?"),
        ({"fastap_iapps": [APP]}, "fastap_iapps: unknown variable. Did you mean 'fastapi_apps'?"),
    ],
)
def test_missing_or_empty_apps_are_told_once(variables, said):
    found = problems(variables)
    assert len(found) == 1 and said in found[0], found


# -- templates --------------------------------------------------------------------------------------------------------


def test_templates_are_resolved_with_their_types():
    other = "{{ one | combine({'name': 'b', 'domain': 'b.example'}) }}"
    app = {**APP, "gunicorn": {"workers": "{{ n }}"}}
    result = run({"n": 3, "one": APP, "fastapi_apps": [app, other]}, apps=True)
    assert not result.get("failed"), result["msg"]


def test_an_undefined_variable_names_the_path():
    found = problems({"fastapi_apps": [{**APP, "env": {"A": "x", "B": "{{ vault_b }}"}}, {**APP, "name": "{{ who }}",
                                                                                     "domain": "b.example"}]})
    assert found == [
        "fastapi_apps[0].env.B: uses a variable that is not there: 'vault_b' is undefined",
        "fastapi_apps[1].name: uses a variable that is not there: 'who' is undefined",
    ]


def test_what_is_broken_keeps_the_places_of_those_after_it():
    found = problems({"fastapi_apps": [{**APP, "aliases": ["{{ nowhere }}", "a/b"]}]})
    assert [text.partition(": ")[0] for text in found] == ["fastapi_apps[0].aliases[0]", "fastapi_apps[0].aliases[1]"]


def test_a_failing_template_below_env_does_not_show_values():
    found = problems({"pw": SECRET, "fastapi_apps": [{**APP, "env": {"A": "{{ pw | from_json }}"}}]})
    assert found == ["fastapi_apps[0].env.A: cannot be resolved"]


def test_omit_is_the_default():
    result = run({"fastapi_apps": [{**APP, "version": "{{ omit }}", "aliases": ["{{ omit }}"]}]}, apps=True)
    assert not result.get("failed"), result["msg"]


def test_untrusted_text_is_no_template():
    variables = {"fastapi_apps": [{**APP, "app": "{{ lookup('pipe', 'id') }}"}]}
    result = run(variables, trust=False, apps=True)
    assert "is not module:attribute (value: \"{{ lookup('pipe', 'id') }}\")" in result["msg"]


def test_a_whole_variable_can_be_omitted_or_broken():
    assert not run({"nginx_worker_connections": "{{ omit }}"}, role="nginx").get("failed")
    assert problems({"nginx_worker_connections": "{{ n }}"}, role="nginx") == [
        "nginx_worker_connections: uses a variable that is not there: 'n' is undefined"]


def test_a_failing_template_says_why():
    said = problems({"text": "{", "fastapi_apps": [{**APP, "version": "{{ text | from_json }}"}]})
    assert len(said) == 1 and said[0].startswith("fastapi_apps[0].version: cannot be resolved: ")


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def vaulted():
    secret = VaultSecret(b"pw")
    VaultSecretsContext._current = None
    VaultSecretsContext.initialize(VaultSecretsContext([("default", secret)]))
    yield EncryptedString(ciphertext=VaultLib().encrypt(SECRET, secret).decode())
    VaultSecretsContext._current = None


@pytest.mark.parametrize("direct", [True, False])
def test_a_vaulted_value_is_never_shown(vaulted, direct):
    value = vaulted if direct else "{{ pw }}"
    found = problems({"pw": vaulted, "fastapi_apps": [{**APP, "app": value, "enviroment": value}]})
    assert len(found) == 2 and SECRET not in "".join(found)
    assert "value not shown" in found[0] and "value not shown" in found[1]


def test_a_value_from_a_template_that_names_a_secret_is_never_shown():
    found = problems({"db_password": SECRET, "fastapi_apps": [{**APP, "gunicorn": {"workers": "{{ db_password }}"}}]})
    assert found == ["fastapi_apps[0].gunicorn.workers: expected a whole number (value not shown)"]


def test_a_rule_does_not_show_a_secret(vaulted):
    found = problems({"fastapi_apps": [{**APP, "domain": vaulted}, {**APP, "name": "b", "domain": "a/b"}]})
    assert SECRET not in "".join(found)


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, meant",
    [
        ("nginx_site", "nginx_sites"),
        ("nginx_sties", "nginx_sites"),
        ("nginx_worker_conections", "nginx_worker_connections"),
        ("ngnix_sites", "nginx_sites"),
        ("nginx_ssl_cipher", "nginx_ssl_ciphers"),
    ],
)
def test_a_misspelt_variable_is_an_error(name, meant):
    assert problems({name: 1}, role="nginx") == [f"{name}: unknown variable. Did you mean '{meant}'?"]


@pytest.mark.parametrize("name", ["gunicornapp_apps", "gunicorn_app_app"])
def test_a_misspelt_prefix_is_an_error(name):
    assert problems({name: []}, role="gunicorn_app") == [f"{name}: unknown variable. Did you mean 'gunicorn_app_apps'?"]


@pytest.mark.parametrize("name", ["nginx_exporter_port", "nginx_version"])
def test_another_roles_variable_is_a_warning(name, warnings):
    assert not run({name: 1}, role="nginx").get("failed")
    assert len(warnings) == 1 and name in warnings[0]


@pytest.mark.parametrize("name", ["nginx2_sites", "__nginx_sites", "site_nginx", "nginxsites_x", "my_nginx_sites"])
def test_an_unrelated_variable_is_left_alone(name, warnings):
    assert not run({name: 1}, role="nginx").get("failed") and warnings == []


def test_ones_own_variables_can_be_named(warnings):
    variables = {"nginx_site": 1, "nginx_exporter_port": 1,
                 "fastapi_ignored_variables": ["nginx_site", "nginx_exporter_port"]}
    assert not run(variables, role="nginx").get("failed") and warnings == []


def test_the_list_of_ones_own_variables_is_checked_too():
    found = problems({"nginx_site": 1, "fastapi_ignored_variables": {"nginx_site": True}}, role="nginx")
    assert [text.partition(": ")[0] for text in found] == ["fastapi_ignored_variables", "nginx_site"]


def test_a_variable_that_the_site_makes_must_not_be_set():
    found = problems({"fastapi_apps": [APP], "nginx_sites": []}, apps=True, role="nginx")
    assert len(found) == 1 and found[0].startswith("nginx_sites: is set, but the site playbook makes it")


def test_a_roles_variables_are_checked():
    found = problems({"nginx_sites": [{"name": "a", "domain": "a/b"}, {"nam": "b", "domain": "b.example"}],
                      "nginx_worker_connections": "many"}, role="nginx")
    assert [text.partition(": ")[0] for text in found] == [
        "nginx_sites[0].domain", "nginx_sites[1].nam", "nginx_sites[1].name", "nginx_worker_connections"]


@pytest.mark.parametrize("args", [{}, {"apps": False}, {"rloe": "nginx"}, {"role": "no_such_role"}])
def test_a_wrong_call_is_an_error(args):
    from ansible.errors import AnsibleError

    with pytest.raises(AnsibleError):
        run({}, **args)
