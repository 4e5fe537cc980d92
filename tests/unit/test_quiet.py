# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules write to the journal, and what systemd_units shows of units with an environment."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ansible.module_utils import basic
from ansible_collections.daoman.fastapi.plugins.module_utils._host.redact import Redactor
from ansible_collections.daoman.fastapi.plugins.modules import (
    certbot_renewal,
    certificates,
    program,
    prometheus_config,
    systemd_units,
)

SECRET = "s33d-of-the-test"
UNIT = {"name": "a.service", "sections": {"Service": {"Environment": f"DB_PASSWORD={SECRET}"}}}


class Ended(Exception):
    pass


@pytest.fixture
def journal(monkeypatch):
    """What a module logs, called with parameters as Ansible passes them."""

    def call(module, params):
        logged = []
        given = {**params, "_ansible_no_log": False, "_ansible_check_mode": True, "_ansible_tmpdir": "/tmp"}
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": given}).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        monkeypatch.setattr(basic.AnsibleModule, "log", lambda _self, text, **_more: logged.append(str(text)))

        def ends(*_given, **_more):
            raise Ended

        for name in ("exit_json", "fail_json", "run_command"):
            monkeypatch.setattr(basic.AnsibleModule, name, ends)
        monkeypatch.setattr(certificates.Certificates, "run", ends)
        with pytest.raises(Ended):
            module.main()
        return "\n".join(logged)

    return call


@pytest.mark.parametrize(
    "module, params",
    [
        (
            program,
            {
                "files": [{"dest": "/nowhere/x", "content": SECRET}],
                "secrets": [{"dest": "/x/y", "content": f"{SECRET}-2"}],
            },
        ),
        (
            prometheus_config,
            {
                "program": "prometheus",
                "path": "/nowhere",
                "unit": "x",
                "url": "http://x",
                "files": [{"dest": "x.yml", "content": SECRET}],
            },
        ),
        (
            certbot_renewal,
            {"command": f"{SECRET}-1", "env": json.dumps({"X": f"{SECRET}-2"}), "dns_credentials": f"{SECRET}-3"},
        ),
        (systemd_units, {"units": [UNIT]}),
        (certificates, {"certificates": [], "env": json.dumps({"X": f"{SECRET}-1"}), "eab_hmac_key": f"{SECRET}-2"}),
    ],
    ids=lambda item: getattr(item, "__name__", "").rpartition(".")[2],
)
def test_no_secret_of_the_parameters_is_logged(journal, module, params):
    assert SECRET not in journal(module, params)


@pytest.fixture
def units(tmp_path, monkeypatch):
    monkeypatch.setattr(systemd_units, "DIRECTORY", str(tmp_path))
    module = SimpleNamespace(params={"path": "units", "units": []}, check_mode=False)

    def make(text):
        options = dict.fromkeys(("state", "enabled", "exposure_limit"))
        environment = {"name": "a.service", "sections": {"Service": {"Environment": text}}, "profile": "none"}
        module.params["units"] = [{**options, **environment, "on_change": "none", "stale": False}]
        return systemd_units.Units(module)

    return make


def test_the_diff_of_a_unit_shows_names_and_no_values(units, tmp_path):
    (tmp_path / "a.service").write_text('[Service]\nEnvironment="DB_PASSWORD=old-secret-value" MODE=fast\n')
    found = units(f'"DB_PASSWORD={SECRET}" MODE=fast')
    shown = str(found.difference(found.units[0]))
    assert SECRET not in shown and "old-secret-value" not in shown and "MODE=fast" in shown
    assert "everybody on the host can read DB_PASSWORD of a.service" in found.warnings[0]


def test_a_password_within_a_value_is_warned_of_too(units):
    assert "read DATABASE_URL of" in units("DATABASE_URL=redis://:pw@cache/0").warnings[0]


def test_a_change_of_a_value_alone_is_told(units, tmp_path):
    found = units("TOKEN=first-secret-value")
    (tmp_path / "a.service").write_text(found.units[0].after.replace("first", "other"))
    found = units("TOKEN=first-secret-value")
    assert "Values of Environment= differ" in found.difference(found.units[0])["after"]


def test_a_unit_without_secrets_is_shown_and_not_warned_of(units):
    found = units("PATH=/usr/bin MODE=fast PASSWORD_FILE=/run/x URL=https://h/")
    assert "MODE=fast" in found.difference(found.units[0])["after"] and found.warnings == []


@pytest.mark.parametrize(
    "text, names",
    [
        ('Environment="A=b c" D=e\nEnvironment=F=g', ["A", "D", "F"]),
        ("Environment=", []),
        ('Environment="open', []),
        ("", []),
    ],
)
def test_assignments_of_a_unit_are_read(text, names):
    assert sorted(systemd_units.assignments(text)) == names


def test_the_redactor_hides_what_a_unit_that_fails_prints():
    assert SECRET not in Redactor(systemd_units.assignments(f"Environment=DB_PASSWORD={SECRET}"))(
        f"cannot use {SECRET}"
    )
