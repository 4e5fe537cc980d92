# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fastapi_apps: what an application is, and what the roles take of it.

Its spec is derived from the specs of the roles gunicorn_app and nginx, so no option is written down twice.
"""

from __future__ import annotations

import copy
import posixpath
from functools import lru_cache

from ansible_collections.daoman.fastapi.plugins.module_utils import destinations, spec
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import build_packages

APPS = "fastapi_apps"
IGNORED = "fastapi_ignored_variables"
HOME = "/srv"

# Of the role monitoring, for all its topics; they are small.
MONITORING_PACKAGES = ("iproute2", "logrotate", "python3-psutil")

# Variables that the site playbook makes from fastapi_apps, by role.
DERIVED = {
    "certbot_tls": "certbot_tls_certificates",
    "gunicorn_app": "gunicorn_app_apps",
    "nginx": "nginx_sites",
}
# What an application says once and the site takes from there, or what the filters work out.
FROM_APP = ("name", "domain", "aliases", "certificate")


class AppsError(ValueError):
    """The applications do not fit their spec."""

    def __init__(self, problems):
        ValueError.__init__(self, "\n".join(problems))
        self.problems = problems


@lru_cache(maxsize=8)
def _elements(role, variable):
    try:
        return spec.load(role)[variable]["options"]
    except KeyError as error:
        raise spec.SpecError(f"the spec of role '{role}' has no list of dicts '{variable}'") from error


@lru_cache(maxsize=8)
def options():
    """The spec of the variables of the site playbook. The result is shared: do not change it."""
    app = copy.deepcopy(_elements("gunicorn_app", DERIVED["gunicorn_app"]))
    site = copy.deepcopy(_elements("nginx", DERIVED["nginx"]))
    app.pop("static_paths", None)
    # a wildcard has no certificate of its own over HTTP
    app["aliases"] = {**site["aliases"], "destination": destinations.domain}
    for name in FROM_APP:
        site.pop(name, None)
    # an app has one server, its socket
    for name in ("servers", "method", "hash_key"):
        site.get("upstream", {}).get("options", {}).pop(name, None)
    static = site.get("static", {}).get("options", {})
    static.pop("previous", None)
    static["directory"] = {**static["directory"], "destination": destinations.served_directory}
    certificate = copy.deepcopy(_elements("certbot_tls", DERIVED["certbot_tls"]))
    for name in ("name", "domains", "state"):
        certificate.pop(name)
    app["certificate"] = {
        "type": "dict",
        "description": [
            "The application's certificate: the options of C(certbot_tls_certificates) without name and domains."],
        "options": certificate,
    }
    for entry in site.values():
        entry.pop("required", None)
    app["nginx"] = {
        "type": "dict",
        "description": ["The application's site: the options of C(nginx_sites) without name, domain and servers."],
        "options": site,
    }
    return {
        APPS: {
            "type": "list",
            "elements": "dict",
            "required": True,
            "description": ["The applications of the host."],
            "options": app,
        },
        "fastapi_hardening": {
            "type": "bool",
            "default": True,
            "description": ["Whether the site hardens the hosts, by the role C(hardening), before anything is served."],
        },
        "fastapi_manage_packages": {
            "type": "bool",
            "default": True,
            "description": ["Whether the site installs Debian packages; false where they come with the image."],
        },
        IGNORED: {
            "type": "list",
            "elements": "str",
            "default": [],
            "description": ["Variables of yours that look like misspelt ones of this collection and are not."],
        },
    }


def present(apps):
    """The applications which are not to be removed, with all defaults."""
    return [app for app in filled(apps) if app["state"] == "present"]


def filled(apps):
    """The applications with all defaults, or AppsError."""
    result, problems = spec.check_option(options()[APPS], apps, APPS)
    if problems:
        raise AppsError(problems)
    return result


def gunicorn_apps(apps):
    """The applications as the role gunicorn_app takes them."""
    known = _elements("gunicorn_app", DERIVED["gunicorn_app"])
    result = []
    for app in filled(apps):
        item = {name: value for name, value in app.items() if name in known}
        item["static_paths"] = _unique(
            entry["directory"] for entry in _static(app) if not posixpath.isabs(entry["directory"])
        )
        result.append(_set(item))
    return result


def nginx_sites(apps):
    """The applications as the sites that the role nginx takes."""
    result = []
    for app in present(apps):
        site = copy.deepcopy(app["nginx"])
        site.update(name=app["name"], domain=app["domain"], aliases=app["aliases"] or [])
        upstream = site.get("upstream") or {}
        upstream["servers"] = [{"address": "unix:{}".format(live_socket(app["name"]))}]
        site["upstream"] = upstream
        for entry in site.get("static") or []:
            kept = shared_directory(app, entry["directory"])
            if not kept and not posixpath.isabs(entry["directory"]):
                entry["previous"] = static_directory(app, entry["directory"], "previous")
            entry["directory"] = kept or static_directory(app, entry["directory"])
        result.append(_set(site))
    return result


def placeholders(certificates):
    """The certificates of the role certbot_tls as the module placeholder_certificates takes them."""
    return [
        {"name": item["name"], "domains": item["domains"]}
        for item in certificates if item.get("state", "present") == "present"]


def tls_certificates(apps, state="present"):
    """One certificate for each application, for all its names; or for each that is to be removed."""
    result = []
    for app in filled(apps):
        if app["state"] == state:
            # Of an application that is to be removed only its name need be known.
            domains = _unique([app["domain"] or "localhost", *app["aliases"]])
            result.append({**_set(app["certificate"] or {}), "name": app["name"], "domains": domains, "state": state})
    return result


def site_packages(apps, app_packages=None, nginx_packages=None):
    """The Debian packages of all roles of the site, so that one run of apt does for them all."""
    if nginx_packages is None:
        nginx_packages = spec.load("nginx")["nginx_packages"]["default"]
    own = build_packages(filled(apps)) + list(app_packages or [])
    return _unique([*own, *nginx_packages, *MONITORING_PACKAGES])


def certbot_packages(version="", obtain=True, dns_plugin=""):
    """The Debian packages that the role certbot_tls needs."""
    if not obtain:
        return ["openssl"]
    if version:
        return ["openssl", "python3-venv"]
    return ["openssl", "certbot", *([f"python3-certbot-dns-{dns_plugin}"] if dns_plugin else [])]


def live_socket(name):
    """The link that nginx connects to; it points to the live release's socket."""
    return f"{HOME}/{name}/live.sock"


def static_directory(app, directory, link="current"):
    """A directory of the application's source as nginx sees it; an absolute one is elsewhere and stays.

    :arg link: which release, by the link to it: the live one (current) or the one before (previous)
    """
    if posixpath.isabs(directory):
        return directory
    return posixpath.normpath(
        posixpath.join(HOME, app["name"], link, "src", app.get("subdirectory") or "", directory)
    )


def shared_directory(app, directory):
    """Where a directory of the source really is that is one of the shared paths, or below one; else None.

    Not by way of the release, whose links nginx would have to follow without a look at what is behind them.
    """
    path = posixpath.normpath(directory)
    shared = (app.get("release") or {}).get("shared_paths") or []
    if any(f"{path}/".startswith(f"{posixpath.normpath(kept)}/") for kept in shared):
        return posixpath.join(HOME, app["name"], "shared", path)
    return None


def _static(app):
    return (app.get("nginx") or {}).get("static") or []


def _unique(items):
    return list(dict.fromkeys(items))


def _set(value):
    """Without what is not set, so that the roles see the same as from a user who left it out."""
    if isinstance(value, dict):
        return {key: _set(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_set(item) for item in value]
    return value
