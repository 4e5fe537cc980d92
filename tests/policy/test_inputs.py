# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each option that can hold text is checked by where it ends up, whoever gives it and through whichever variable."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import apps, destinations, option_destinations, spec

ROLES = sorted(path.name for path in (Path(__file__).resolve().parents[2] / "roles").iterdir())
LEAVES = [
    pytest.param(where, option, id=where)
    for options in (*map(spec.load, ROLES), apps.options())
    for where, option in option_destinations.leaves(options)
]
# What the site playbook asks of the host's owner, and renders nowhere.
NOT_RENDERED = {apps.IGNORED: "names of variables, which are compared"}


def flat(destination):
    """The destinations of the keys and values of a dict, too."""
    return [inner for part in destination for inner in flat(part)] if isinstance(destination, tuple) else [destination]


@pytest.mark.parametrize("where, option", LEAVES)
def test_an_option_that_holds_text_has_a_destination(where, option):
    has_one = "destination" in option
    assert has_one == (option_destinations.needs_destination(option) and where not in NOT_RENDERED)
    if has_one:
        assert isinstance(option["destination"], tuple) == (option["type"] == "dict"), "a dict has two"


@pytest.mark.parametrize("role", ROLES)
def test_the_table_names_no_option_that_is_not_there(role):
    there = {where for where, _option in option_destinations.leaves(spec.load(role))}
    assert set(option_destinations.ROLES.get(role, {})) - there == set()


def test_text_that_is_not_checked_says_why():
    """Raw text and data are for their owners: these options and no others."""
    raw = {
        where: part.reason for (where, option) in (param.values for param in LEAVES)
        for part in flat(option.get("destination", ()))
        for part in [getattr(part, "destination", part)] if isinstance(part, destinations.Raw)}
    assert all(len(reason) > 20 for reason in raw.values())
    assert {where for where in raw if not where.startswith("fastapi_apps")} == {
        "certbot_tls_dns_credentials",
        "gunicorn_app_apps[].gunicorn.extra",
        *(f"hardening_{topic}.extra" for topic in ("firewall", "nginx", "ssh", "sudo")),
        *(f"monitoring_alertmanager_{name}" for name in ("receivers", "routes")),
        *(f"monitoring_{name}" for name in ("alerts", "prometheus_rules", "prometheus_settings")),
        *("nginx_http_extra", "nginx_main_extra"),
        *(f"nginx_sites[].{name}" for name in ("extra", "location_extra", "locations[].extra")),
    }


@pytest.mark.parametrize("where, option", [param for param in LEAVES if "destination" in param.values[1]])
def test_a_default_fits_its_destination(where, option):
    """Nothing is checked of a default, so that an empty one can mean "not set"."""
    default = option.get("default")
    if default in (None, ""):
        return
    items = default if isinstance(default, list) else [default]
    checker = spec._Checker(None)
    for item in items:
        checker.arrives(option["destination"], item, where, False)
    assert checker.problems == []


@pytest.mark.parametrize("where, option", [param for param in LEAVES if "destination" in param.values[1]])
@pytest.mark.parametrize("value", ["a\0b", "\ud800"], ids=["NUL", "half a character"])
def test_no_destination_takes_what_no_file_holds(where, option, value):
    checker = spec._Checker(None)
    for destination in (option["destination"],) if option["type"] != "dict" else ():
        checker.arrives(destination, value, where, False)
    if option["type"] == "dict":
        checker.arrives(option["destination"], {value: "x"}, where, False)
    structured = isinstance(option["destination"], destinations.Data)
    assert checker.problems or (structured and "\ud800" not in value), where
