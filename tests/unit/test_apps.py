# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fastapi_apps: its derived spec, and what the roles take of it."""

from __future__ import annotations

import copy

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.daoman.fastapi.plugins.filter.gunicorn_apps import FilterModule
from ansible_collections.daoman.fastapi.plugins.module_utils import apps, rules, spec

MINIMAL = {"name": "shop", "domain": "shop.example.com", "source": "/src/shop", "app": "app.main:app"}
FULL = {
    **MINIMAL,
    "aliases": ["www.shop.example.com"],
    "subdirectory": "api",
    "env": {"A": "b"},
    "gunicorn": {"workers": 3},
    "nginx": {
        "client_max_body_size": "20m",
        "upstream": {"keepalive": 8},
        "static": [
            {"url": "/static/", "directory": "app/static/"},
            {"url": "/media/", "directory": "/srv/shop/shared/media"},
        ],
    },
}


def elements(role, variable):
    return spec.load(role)[variable]["options"]


def test_the_spec_is_that_of_the_roles():
    app = apps.options()["fastapi_apps"]["options"]
    gunicorn_app, nginx = elements("gunicorn_app", "gunicorn_app_apps"), elements("nginx", "nginx_sites")
    assert set(app) == set(gunicorn_app) - {"static_paths"} | {"aliases", "certificate", "nginx"}
    certificate = elements("certbot_tls", "certbot_tls_certificates")
    assert set(app["certificate"]["options"]) == set(certificate) - {"name", "domains", "state"}
    assert set(app["nginx"]["options"]) == set(nginx) - {"name", "domain", "aliases", "certificate"}
    assert app["gunicorn"] == gunicorn_app["gunicorn"]
    upstream = nginx["upstream"]["options"]
    assert set(app["nginx"]["options"]["upstream"]["options"]) == set(upstream) - {"servers", "method", "hash_key"}


def test_deriving_leaves_the_specs_of_the_roles_alone():
    apps.options()
    assert elements("nginx", "nginx_sites")["domain"]["required"]
    assert "servers" in elements("nginx", "nginx_sites")["upstream"]["options"]
    assert "static_paths" in elements("gunicorn_app", "gunicorn_app_apps")


@pytest.mark.parametrize("app", [MINIMAL, FULL], ids=["minimal", "full"])
@pytest.mark.parametrize(
    "take, role, variable",
    [
        (apps.gunicorn_apps, "gunicorn_app", "gunicorn_app_apps"),
        (apps.nginx_sites, "nginx", "nginx_sites"),
        (apps.tls_certificates, "certbot_tls", "certbot_tls_certificates"),
    ],
)
def test_the_roles_accept_what_they_are_given(app, take, role, variable):
    given = copy.deepcopy(app)
    taken = take([given])
    assert given == app
    filled, problems = spec.check_option(spec.load(role)[variable], taken, variable)
    assert problems == []
    assert rules.check(role, {variable: filled}) == []


def test_gunicorn_app_gets_the_directories_which_nginx_reads():
    taken = apps.gunicorn_apps([FULL])[0]
    assert taken["static_paths"] == ["app/static/"]
    assert taken["gunicorn"]["workers"] == 3
    assert taken["env"] == {"A": "b"}
    assert "nginx" not in taken and "aliases" not in taken


def test_a_site_is_served_from_the_live_socket_and_release():
    site = apps.nginx_sites([FULL])[0]
    assert (site["name"], site["domain"], site["aliases"]) == ("shop", "shop.example.com", ["www.shop.example.com"])
    assert site["upstream"]["servers"] == [{"address": "unix:/srv/shop/live.sock"}]
    assert site["upstream"]["keepalive"] == 8
    assert [entry["directory"] for entry in site["static"]] == [
        "/srv/shop/current/src/api/app/static", "/srv/shop/shared/media"]
    # what is not part of a release has none before it
    assert [entry.get("previous") for entry in site["static"]] == ["/srv/shop/previous/src/api/app/static", None]
    assert site["client_max_body_size"] == "20m"


@pytest.mark.parametrize("shared, directory", [
    (["media"], "/srv/shop/shared/media"), (["./media/"], "/srv/shop/shared/media"),
    (["med"], "/srv/shop/current/src/api/media"), (["media/x"], "/srv/shop/current/src/api/media")])
def test_a_shared_path_is_published_where_it_really_is(shared, directory):
    """The link to it in the release is the app's own path from there on."""
    static = [{"url": "/m/", "directory": "media"}]
    app = {**MINIMAL, "subdirectory": "api", "release": {"shared_paths": shared}, "nginx": {"static": static}}
    site = apps.nginx_sites([app])[0]
    assert site["static"][0]["directory"] == directory
    assert ("previous" in site["static"][0]) is directory.startswith("/srv/shop/current")


def test_a_certificate_is_for_all_names_of_an_app():
    certificate, = apps.tls_certificates([{**FULL, "certificate": {"key_type": "rsa"}}])
    assert certificate["name"] == "shop" and certificate["domains"] == ["shop.example.com", "www.shop.example.com"]
    assert certificate["state"] == "present" and certificate["key_type"] == "rsa" and "rsa_key_size" not in certificate


def test_placeholders_are_for_what_is_to_be_there():
    gone = {"name": "b", "domains": ["b"], "state": "absent"}
    certificates = [{"name": "a", "domains": ["a"], "key_type": "rsa"}, gone]
    assert apps.placeholders(certificates) == [{"name": "a", "domains": ["a"]}]


@pytest.mark.parametrize("arguments, packages", [
    (("", False, "rfc2136"), ["openssl"]),
    (("",), ["openssl", "certbot"]),
    (("", True, "rfc2136"), ["openssl", "certbot", "python3-certbot-dns-rfc2136"]),
    (("5.8.0", True, "rfc2136"), ["openssl", "python3-venv"]),
])
def test_certbot_comes_from_where_it_is_wanted_from(arguments, packages):
    assert apps.certbot_packages(*arguments) == packages


def test_an_absent_app_has_no_site_and_a_certificate_to_remove():
    gone = {"name": "old", "state": "absent"}
    assert [site["name"] for site in apps.nginx_sites([FULL, gone])] == ["shop"]
    assert [item["name"] for item in apps.tls_certificates([FULL, gone])] == ["shop"]
    assert [item["name"] for item in apps.tls_certificates([FULL, gone], "absent")] == ["old"]
    assert [item["state"] for item in apps.gunicorn_apps([FULL, gone])] == ["present", "absent"]


def test_what_is_not_set_is_left_out():
    def unset(value):
        if isinstance(value, dict):
            return any(item is None or unset(item) for item in value.values())
        return isinstance(value, list) and any(map(unset, value))

    assert not unset(apps.nginx_sites([MINIMAL])) and not unset(apps.gunicorn_apps([MINIMAL]))


def test_unset_options_are_dropped_at_every_depth():
    assert apps._set({"a": None, "b": [{"c": None, "d": 1}], "e": {"f": None}}) == {"b": [{"d": 1}], "e": {}}


def test_a_filter_lists_all_problems():
    gunicorn_apps = FilterModule().filters()["gunicorn_apps"]
    with pytest.raises(AnsibleFilterError) as error:
        gunicorn_apps([{**MINIMAL, "wrokers": 3, "env": "hunter2"}])
    assert "fastapi_apps[0].wrokers" in str(error.value) and "fastapi_apps[0].env" in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("value", [None, "x", {"name": "shop"}, 3])
def test_what_is_no_list_of_apps_is_refused(value):
    with pytest.raises(apps.AppsError, match="fastapi_apps"):
        apps.nginx_sites(value)


@pytest.mark.parametrize("directory, served", [
    ("media", "/srv/shop/shared/media"),
    ("media/uploads", "/srv/shop/shared/media/uploads"),
    ("mediaserver", "/srv/shop/current/src/mediaserver"),
])
def test_a_shared_path_is_served_from_where_it_really_is(directory, served):
    """nginx follows no link of a release, and a shared path is one there."""
    app = {
        "name": "shop", "domain": "shop.example.com", "source": "/src", "app": "main:app",
        "release": {"shared_paths": ["media"]}, "nginx": {"static": [{"url": "/media/", "directory": directory}]}}
    (site,) = apps.nginx_sites([app])
    assert site["static"][0]["directory"] == served
    assert ("previous" in site["static"][0]) == ("current" in served)
