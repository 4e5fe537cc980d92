# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Combinations that specs cannot refuse: each rule with what it refuses and what it lets pass."""

from __future__ import annotations

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import apps, rules, spec

APP = {"name": "shop", "domain": "shop.example.com", "source": "/src/shop", "app": "app.main:app"}
GIT = "https://git.example.com/acme/shop.git"
DIGEST = "sha256:" + "0" * 64


def check_apps(*values):
    filled, problems = spec.check_option(apps.options()["fastapi_apps"], list(values), "fastapi_apps")
    return problems + rules.check_apps(filled, problems)


def check(role, variable, *values):
    filled, problems = spec.check_option(spec.load(role)[variable], list(values), variable)
    return problems + rules.check(role, {variable: filled}, problems)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"name": "a" * 31},
        {"domain": "xn--bcher-kva.example"},
        {"domain": "localhost"},
        {"domain": "Shop.Example.COM"},
        {"aliases": ["www.shop.example.com"]},
        {"app": "main:create_app()"},
        {"app": "a.b:c.d"},
        {"source": GIT, "version": "v1.2"},
        {"source": "https://example.com/shop-1.tar.gz", "checksum": DIGEST},
        {"source": "/srv/shop-1.tar.gz"},
        {"source": "shop==1.2"},
        {"env": {"A": "b", "_B1": 3, "C": True, "D": ""}},
        {"gunicorn": {"max_requests": 0, "max_requests_jitter": 100}},
        {"gunicorn": {"max_requests": 100, "max_requests_jitter": 100}},
        {"gunicorn": {"timeout": 6}},
        {"gunicorn": {"timeout": 0}},
        {"service": {"overrides": {"Service": {"TimeoutStopSec": "2min", "Nice": 5}, "X-Mine": {"a": "b"}}}},
        {"service": {"writable_paths": ["/var/lib/shop"]}},
        {"python": "3.13"},
        {"python": "/usr/bin/python3"},
        {"nginx": {"static": [{"url": "/static/", "directory": "static"}]}},
        {"release": {"shared_paths": ["media", "data/uploads"]}},
        {"release": {"hooks": {"migrate": ["alembic upgrade head"], "after_switch": ["hooks/purge.yml"]}}},
        {"release": {"guard": {"seconds": 0}}},
        {"gunicorn": {"graceful_timeout": 5}},
    ],
)
def test_sound_apps_pass(change):
    assert check_apps({**APP, **change}) == []


@pytest.mark.parametrize(
    "change, path, said",
    [
        ({"name": "Shop"}, "name", "is not a valid app name"),
        ({"source": None}, "source", "is required and missing"),
        ({"app": None}, "app", "is required and missing"),
        ({"domain": None}, "domain", "is required and missing"),
        ({"release": {"shared_paths": ["/media"]}}, "release.shared_paths[0]", "must be relative"),
        ({"release": {"shared_paths": ["../media"]}}, "release.shared_paths[0]", "must not leave"),
        ({"release": {"shared_paths": ["./"]}}, "release.shared_paths[0]", "is the whole source"),
        ({"release": {"shared_paths": ["a/b", "a"]}}, "release.shared_paths[1]", "lie in each other"),
        ({"release": {"hooks": {"migrate": [" "]}}}, "release.hooks.migrate[0]", "is empty"),
        ({"release": {"hooks": {"after_failure": ["x.yml"]}}}, "release.hooks.after_failure[0]", "cannot be a file"),
        ({"release": {"guard": {"error_rate": 5}}}, "release.guard.error_rate", "less than 1"),
        ({"release": {"guard": {"latency": 0.5}}}, "release.guard.latency", "at least 1"),
        ({"release": {"guard": {"access_log": "log"}}}, "release.guard.access_log", "must be absolute"),
        ({"gunicorn": {"graceful_timeout": 4}}, "gunicorn.graceful_timeout", "longer than release.linger"),
        ({"name": "1shop"}, "name", "is not a valid app name"),
        ({"name": "a" * 32}, "name", "at most 31 characters"),
        ({"name": "nginx"}, "name", "taken by the system"),
        ({"name": "user"}, "name", "taken by the system"),
        ({"name": "systemd-x"}, "name", "taken by the system"),
        ({"domain": "https://shop.example.com/"}, "domain", "without scheme and path"),
        ({"domain": "shop.example.com:8000"}, "domain", "without a port"),
        ({"domain": "shop.example.com."}, "domain", "ends with a dot"),
        ({"domain": "*.example.com"}, "domain", "wildcard"),
        ({"domain": "bücher.example"}, "domain", "punycode"),
        ({"domain": "under_score.example"}, "domain", "is not a valid host name"),
        ({"domain": "-x.example"}, "domain", "is not a valid host name"),
        ({"domain": "a..example"}, "domain", "is not a valid host name"),
        ({"domain": "a" * 64 + ".example"}, "domain", "is not a valid host name"),
        ({"aliases": ["ok.example", "no/t"]}, "aliases[1]", "is not a host name"),
        ({"aliases": ["*.example.com"]}, "aliases[0]", "wildcard"),
        ({"app": "app.main"}, "app", "is not module:attribute"),
        ({"app": "app/main.py:app"}, "app", "is not module:attribute"),
        ({"source": " "}, "source", "is empty"),
        ({"version": "v1"}, "version", "no meaning for a source of type 'directory'"),
        ({"source": "shop==1", "version": "v1"}, "version", "name==version"),
        ({"source": GIT, "version": "--upload-pack=x"}, "version", "is not a branch, tag or commit"),
        ({"checksum": DIGEST}, "checksum", "no meaning for a source of type 'directory'"),
        ({"source": GIT, "checksum": DIGEST}, "checksum", "no meaning for a source of type 'git'"),
        ({"source": "https://example.com/x.zip"}, "checksum", "is required"),
        ({"source": "https://example.com/x.whl"}, "checksum", "is required"),
        ({"source": "/x.zip", "checksum": "md5:abc"}, "checksum", "is not sha256:"),
        ({"source": "/x.zip", "source_type": "directory", "checksum": DIGEST}, "checksum", "type 'directory'"),
        ({"ssh_key_file": "/root/key"}, "ssh_key_file", "no meaning for a source of type 'directory'"),
        ({"source": "shop==1", "subdirectory": "x"}, "subdirectory", "no meaning"),
        ({"subdirectory": "/abs"}, "subdirectory", "must be relative"),
        ({"subdirectory": "a/../../b"}, "subdirectory", "must not leave the source"),
        ({"python": "python3"}, "python", "neither a version nor"),
        ({"env": {"B-C": "x"}}, "env.B-C", "is not a valid name of an environment variable"),
        ({"env": {"1A": "x"}}, "env['1A']", "is not a valid name of an environment variable"),
        ({"env": {"GUNICORN_CMD_ARGS": "x"}}, "env.GUNICORN_CMD_ARGS", "use the options under 'gunicorn'"),
        ({"env": {"LISTEN_FDS": "1"}}, "env.LISTEN_FDS", "systemd sets it"),
        ({"env": {"A": None}}, "env.A", "is empty"),
        ({"env": {"A": ["x"]}}, "env.A", "is not a single value"),
        ({"env": {"A": "a\0b"}}, "env.A", "control character"),
        ({"env": {"A": "a\x1bb"}}, "env.A", "control character"),
        ({"env": {"A": "a\r\nb"}}, "env.A", "control character"),
        ({"release": {"build_env": {"A B": "x"}}}, "release.build_env['A B']", "is not a valid name"),
        ({"gunicorn": {"workers": -1}}, "gunicorn.workers", "must be at least 0"),
        ({"gunicorn": {"backlog": 0}}, "gunicorn.backlog", "must be at least 1"),
        ({"gunicorn": {"max_requests": 10, "max_requests_jitter": 11}}, "gunicorn.max_requests_jitter", "greater than"),
        ({"gunicorn": {"preload_unsafe": True}}, "gunicorn.preload_unsafe", "only with preload_app true"),
        ({"gunicorn": {"preload_app": False, "preload_unsafe": True}}, "gunicorn.preload_unsafe", "only with preload"),
        ({"gunicorn": {"keepalive": 2}}, "gunicorn.keepalive", "must exceed nginx's own 2 s"),
        ({"release": {"linger": 1.5}}, "release.linger", "must exceed nginx's own 2 s"),
        ({"nginx": {"upstream": {"keepalive_timeout": "10s"}}}, "nginx.upstream.keepalive_timeout", "must be shorter"),
        ({"release": {"keep": 0}}, "release.keep", "must be at least 1"),
        ({"gunicorn": {"umask": "23"}}, "gunicorn.umask", "Put it in quotes"),
        ({"health": {"readiness": "ready"}}, "health.readiness", "Start it with '/'"),
        ({"health": {"successes": 0}}, "health.successes", "must be at least 1"),
        ({"service": {"log_rate_limit_interval": 0}}, "service.log_rate_limit_interval", "at least 1"),
        ({"service": {"log_rate_limit_burst": -1}}, "service.log_rate_limit_burst", "at least 0"),
        ({"service": {"exposure_limit": 11}}, "service.exposure_limit", "at most 10"),
        ({"service": {"writable_paths": ["var"]}}, "service.writable_paths[0]", "must be absolute"),
        ({"service": {"writable_paths": ["/etc/"]}}, "service.writable_paths[0]", "system directory"),
        ({"service": {"overrides": {"Servcie": {}}}}, "service.overrides.Servcie", "Did you mean 'Service'?"),
        ({"service": {"overrides": {"Zzz": {}}}}, "service.overrides.Zzz", "There are: Unit, Service, Install"),
        ({"service": {"overrides": {"Service": "x"}}}, "service.overrides.Service", "expected a dict"),
        ({"service": {"overrides": {"Service": {"A": "b\nc"}}}}, "service.overrides.Service.A", "several lines"),
        ({"service": {"overrides": {"Service": {"TimeoutStopSec": 20}}}}, "service.overrides.Service.TimeoutStopSec",
         "must exceed graceful_timeout and linger (33 s)"),
        ({"nginx": {"static": [{"url": "static/", "directory": "x"}]}}, "nginx.static[0].url", "must begin with '/'"),
        ({"nginx": {"static": [{"url": "/static", "directory": "x"}]}}, "nginx.static[0].url", "must end with '/'"),
        ({"nginx": {"static": [{"url": "/s x/", "directory": "x"}]}}, "nginx.static[0].url", "has a space"),
        ({"nginx": {"static": [{"url": "/s/", "directory": "$x"}]}}, "nginx.static[0].directory", "has a space"),
        ({"nginx": {"static": [{"url": "/s/", "directory": "../x"}]}}, "nginx.static[0].directory", "must not leave"),
        ({"nginx": {"static": [{"url": "/s/", "directory": "a"}, {"url": "/s/", "directory": "b"}]}},
         "nginx.static[1].url", "is there twice"),
        ({"nginx": {"client_max_body_size": "10 MB"}}, "nginx.client_max_body_size", "is not a size"),
        ({"gunicorn": {"timeout": 5}}, "nginx.upstream.tries_timeout", "must be shorter than gunicorn.timeout (5 s)"),
        ({"nginx": {"upstream": {"tries": 0}}}, "nginx.upstream.tries", "must be at least 1"),
        ({"nginx": {"upstream": {"keepalive": -1}}}, "nginx.upstream.keepalive", "must be at least 0"),
        ({"nginx": {"timeouts": {"read": "1 minute"}}}, "nginx.timeouts.read", "is not a time"),
    ],
)
def test_what_cannot_work_is_refused(change, path, said):
    found = check_apps({**APP, **change})
    assert len(found) == 1, found
    assert found[0].startswith(f"fastapi_apps[0].{path}: ") and said in found[0]


OTHER = {**APP, "name": "blog", "domain": "blog.example.com"}


@pytest.mark.parametrize(
    "first, second, path, said",
    [
        ({}, {"name": "shop"}, "[1].name", "The first is fastapi_apps[0].name"),
        ({}, {"domain": "SHOP.example.com"}, "[1].domain", "The first is fastapi_apps[0].domain"),
        ({}, {"aliases": ["shop.example.com"]}, "[1].aliases[0]", "The first is fastapi_apps[0].domain"),
        ({"aliases": ["blog.example.com"]}, {}, "[1].domain", "The first is fastapi_apps[0].aliases[0]"),
        ({"aliases": ["shop.example.com"]}, {}, "[0].aliases[0]", "The first is fastapi_apps[0].domain"),
    ],
)
def test_apps_do_not_collide(first, second, path, said):
    found = check_apps({**APP, **first}, {**OTHER, **second})
    assert len(found) == 1, found
    assert found[0].startswith(f"fastapi_apps{path}: ") and said in found[0]


@pytest.mark.parametrize("directory, said", [("/abs", "must be relative"), ("../x", "must not leave"), ("a/b", None)])
def test_static_paths_stay_in_the_source(directory, said):
    found = check("gunicorn_app", "gunicorn_app_apps", {**APP, "static_paths": [directory]})
    assert found == [] if said is None else len(found) == 1 and said in found[0]


@pytest.mark.parametrize("role, variable, element", [
    ("gunicorn_app", "gunicorn_app_apps", {"static_paths": [None, 1.5]}),
    ("systemd_service", "systemd_service_units", {"name": None}),
    ("nginx", "nginx_sites", {"name": None, "static": [None, {"url": None}], "upstream": {"servers": [{}, None]}}),
    ("certbot_tls", "certbot_tls_certificates", {"domains": [None]}),
])
def test_the_rules_of_each_role_bear_values_that_the_spec_refused(role, variable, element):
    filled, problems = spec.check_option(spec.load(role)[variable], [element], variable)
    assert problems
    assert [item for item in rules.check(role, {variable: filled}, problems) if "is required" not in item] == []


def test_an_absent_app_needs_a_name_and_nothing_else():
    assert check_apps({"name": "old", "state": "absent"}) == []


def test_an_absent_app_does_not_keep_its_domain():
    assert check_apps(APP, {**APP, "name": "old", "state": "absent"}) == []


@pytest.mark.parametrize("batch", ["0", "0%", "101%", "half", ""])
def test_a_batch_is_a_number_of_hosts_or_a_share(batch):
    options = spec.load("gunicorn_app")
    assert "is not a number or a share of hosts" in spec.check(options, {"gunicorn_app_batch": batch})[1][0]
    assert spec.check(options, {"gunicorn_app_batch": "50%"})[1] == []


def test_secrets_are_not_shown():
    assert "hunter2" not in "".join(check_apps({**APP, "env": {"A-B": "hunter2", "B": ["hunter2"], "C": "hunter2\0"}}))


def test_rules_bear_values_that_the_spec_refused():
    options = apps.options()["fastapi_apps"]
    bad = [{}, {"name": 1.5, "domain": [], "source": {}, "app": False, "env": "x", "gunicorn": [], "nginx": 3,
                "aliases": {}, "service": {"writable_paths": [None]}}, "x", None]
    filled, problems = spec.check_option(options, bad, "fastapi_apps")
    assert problems
    assert [item for item in rules.check_apps(filled, problems) if "is required" not in item] == []


def test_a_problem_of_the_spec_is_not_told_twice():
    told = [spec.Problem("fastapi_apps[0].name", "expected a string")]
    filled, _problems = spec.check_option(apps.options()["fastapi_apps"], [{**APP, "name": "Shop"}], "fastapi_apps")
    assert rules.check_apps(filled, told) == []


SITE = {"name": "shop", "domain": "shop.example.com"}


@pytest.mark.parametrize(
    "change, path, said",
    [
        ({"upstream": {"servers": [{"address": "unix:run.sock"}]}}, "upstream.servers[0].address", "absolute"),
        ({"upstream": {"servers": [{"address": "unix:/" + "x" * 107}]}}, "upstream.servers[0].address", "107 bytes"),
        ({"upstream": {"servers": [{"address": "http://x:80"}]}}, "upstream.servers[0].address", "is not host:port"),
        ({"upstream": {"servers": [{"address": "x:70000"}]}}, "upstream.servers[0].address", "is not host:port"),
        ({"static": [{"url": "/s/", "directory": "rel"}]}, "static[0].directory", "must be absolute"),
        ({"static": [{"url": "/s/", "directory": "/s", "previous": "rel"}]}, "static[0].previous", "must be absolute"),
        ({"static": [{"url": "/s/", "directory": "/s", "previous": "/a;b"}]}, "static[0].previous", "has a space"),
        ({"domain": "a b"}, "domain", "is not a valid host name"),
        ({"name": "Shop!"}, "name", "is not a valid site name"),
    ],
)
def test_sites_that_cannot_work_are_refused(change, path, said):
    found = check("nginx", "nginx_sites", {**SITE, **change})
    assert len(found) == 1, found
    assert found[0].startswith(f"nginx_sites[0].{path}: ") and said in found[0]


A, B = {"address": "10.0.0.1:8000"}, {"address": "10.0.0.2:8000"}


def upstream(*servers, **options):
    return {"upstream": {"servers": list(servers), **options}}


@pytest.mark.parametrize(
    "change, path, said",
    [
        (upstream(A, B, method="hash"), "hash_key", "is required by the method 'hash'"),
        (upstream(A, B, method="hash consistent"), "hash_key", "is required"),
        (upstream(A, B, method="ip_hash", hash_key="$uri"), "hash_key", "means nothing to the method 'ip_hash'"),
        (upstream(A, B, hash_key="$uri"), "hash_key", "means nothing"),
        (upstream(A, B, method="hash", hash_key="$uri;"), "hash_key", "is not a variable"),
        (upstream(A, method="least_conn"), "method", "nothing to choose from"),
        (upstream(A, {**B, "backup": True}, method="ip_hash"), "servers[1].backup", "not supported by the method"),
        (upstream(A, {**B, "backup": True}, method="hash", hash_key="$uri"), "servers[1].backup", "not supported"),
        (upstream(A, {**B, "backup": True}, method="random"), "servers[1].backup", "not supported"),
        (upstream({**A, "weight": 0}, B), "servers[0].weight", "at least 1"),
        (upstream({**A, "max_fails": -1}, B), "servers[0].max_fails", "at least 0"),
        (upstream({**A, "max_conns": -1}, B), "servers[0].max_conns", "at least 0"),
        (upstream({**A, "fail_timeout": "x"}, B), "servers[0].fail_timeout", "is not a time"),
        (upstream({**A, "max_fails": 0, "fail_timeout": "5s"}, B), "servers[0].fail_timeout", "means nothing"),
        (upstream({**A, "weight": 2}), "servers[0].weight", "ignored by nginx where there is one server"),
        (upstream({**A, "max_fails": 2}), "servers[0].max_fails", "ignored by nginx"),
        (upstream({**A, "fail_timeout": "2s"}), "servers[0].fail_timeout", "ignored by nginx"),
        (upstream({**A, "backup": True}), "servers", "all backups"),
        (upstream({**A, "down": True}), "servers", "all down"),
        (upstream({**A, "down": True}, {**B, "backup": True}), "servers", "all down or backups"),
        (upstream(A, B, A), "servers[2].address", "The first is nginx_sites[0].upstream.servers[0]"),
        (upstream(A, B, next_upstream=["off", "error"]), "next_upstream", "excludes all else"),
        (upstream(A, B, next_upstream=["non_idempotent"]), "next_upstream", "Add 'error'"),
        (upstream(A, B, tries_timeout="soon"), "tries_timeout", "is not a time"),
        (upstream(A, B, keepalive_timeout="soon"), "keepalive_timeout", "is not a time"),
    ],
)
def test_balancing_that_nginx_refuses_or_ignores_is_refused(change, path, said):
    found = check("nginx", "nginx_sites", {**SITE, **change})
    assert len(found) == 1, found
    assert found[0].startswith(f"nginx_sites[0].upstream.{path}: ") and said in found[0]


@pytest.mark.parametrize(
    "change",
    [
        upstream({**A, "weight": 3, "max_conns": 5}, {**B, "backup": True}, method="least_conn"),
        upstream({**A, "down": True}, B, method="ip_hash"),
        upstream(A, {**B, "max_fails": 0}, method="hash consistent", hash_key="$cookie_session"),
        upstream(A, B, method="random two", next_upstream=["error", "http_503", "non_idempotent"]),
        upstream({**A, "max_conns": 5}, next_upstream=["off"]),
    ],
)
def test_balancing_that_nginx_knows_passes(change):
    assert check("nginx", "nginx_sites", {**SITE, **change}) == []


def cache(**options):
    return {"locations": [{"path": "/a/", "cache": {"enabled": True, **options}}]}


APP_SITE = {**SITE, **upstream(A)}


@pytest.mark.parametrize(
    "change, path, said",
    [
        ({"locations": [{"path": "api"}]}, "locations[0].path", "is not a path of a site"),
        ({"locations": [{"path": "~ ^/x"}]}, "locations[0].path", "is not a path of a site"),
        ({"locations": [{"path": "/a;b"}]}, "locations[0].path", "has a space"),
        ({"locations": [{"path": "/a/"}, {"path": "/a/"}]}, "locations[1].path", "The first is"),
        ({"locations": [{"path": "/s/"}], "static": [{"url": "/s/", "directory": "/s"}]}, "locations[0].path",
         "is there"),
        ({"locations": [{"path": "/a/", "client_max_body_size": "1 MB"}]}, "locations[0].client_max_body_size",
         "is not a size"),
        ({"locations": [{"path": "/a/", "timeouts": {"read": "x"}}]}, "locations[0].timeouts.read", "is not a time"),
        ({"locations": [{"path": "/a/", "auth_basic": "x"}]}, "locations[0].auth_basic_user_file", "is required"),
        ({"locations": [{"path": "/a/", "auth_basic_user_file": "/x"}]}, "locations[0].auth_basic_user_file",
         "means nothing without"),
        ({"locations": [{"path": "/a/", "auth_basic": "x", "auth_basic_user_file": "x"}]},
         "locations[0].auth_basic_user_file", "must be absolute"),
        ({"locations": [{"path": "/a/", "allow": ["10.0.0.1/8"]}]}, "locations[0].allow[0]", "has host bits set"),
        ({"locations": [{"path": "/a/", "allow": ["office"]}]}, "locations[0].allow[0]", "is not an address"),
        ({"limit_req": [{"rate": "10/s"}]}, "limit_req[0].rate", "For example: 10r/s"),
        ({"limit_req": [{"rate": "0r/s"}]}, "limit_req[0].rate", "is not a rate"),
        ({"limit_req": [{"rate": "1r/s", "key": "all"}]}, "limit_req[0].key", "is not a variable"),
        ({"limit_req": [{"rate": "1r/s", "burst": 0, "delay": True}]}, "limit_req[0].delay", "nothing to hold back"),
        ({"limit_req": [{"rate": "1r/s", "burst": -1}]}, "limit_req[0].burst", "at least 0"),
        ({"limit_conn": [{"connections": 0}]}, "limit_conn[0].connections", "at least 1"),
        ({"limit_conn": [{"connections": 1, "key": "$a b"}]}, "limit_conn[0].key", "is not a variable"),
        ({"locations": [{"path": "/a/", "limit_conn": [{"connections": 0}]}]}, "locations[0].limit_conn[0].connections",
         "at least 1"),
        ({"maintenance": {"retry_after": 0}}, "maintenance.retry_after", "at least 1"),
        ({"maintenance": {"allow": ["office"]}}, "maintenance.allow[0]", "is not an address"),
        ({"cache_max_size": "1 GB"}, "cache_max_size", "is not a size"),
        (cache(valid="10m", enabled=False), "locations[0].cache.valid", "not enabled"),
        (cache(purge=["10.0.0.1"], enabled=False), "locations[0].cache.purge", "not enabled"),
        (cache(valid="x"), "locations[0].cache.valid", "is not a time"),
        (cache(key="same$host"), "locations[0].cache.key", "all would get the same"),
        (cache(key="uri"), "locations[0].cache.key", "is not a variable"),
        (cache(key="$request_method$uri", purge=["10.0.0.1"], headers=[]), "locations[0].cache.key",
         "differs for the method"),
        (cache(key="$host$uri", purge=["10.0.0.1"], headers=[]), "locations[0].cache.key", "differs for the method"),
        (cache(bypass=["x"]), "locations[0].cache.bypass[0]", "is not a variable"),
        (cache(headers=["X My"]), "locations[0].cache.headers[0]", "is not a valid header name"),
        (cache(headers=["Accept", "Range"]), "locations[0].cache.headers[1]", "sets or removes"),
        (cache(purge=["10.0.0.1"]), "locations[0].cache.headers", "must be empty with purge"),
        ({**cache(), "location_extra": "proxy_set_header X-A b;\nproxy_set_header X-B $remote_addr;"}, "location_extra",
         "gives the application $remote_addr"),
        ({"auth_basic": "x"}, "auth_basic_user_file", "is required"),
        ({"auth_basic": "off", "auth_basic_user_file": "/x"}, "auth_basic_user_file", "is not used"),
        ({"allow": ["me"]}, "allow[0]", "is not an address"),
        (cache(use_stale=["off", "error"]), "locations[0].cache.use_stale", "excludes all else"),
        (cache(purge=["me"], headers=[]), "locations[0].cache.purge[0]", "is not an address"),
        ({"redirects": [{"path": "old", "to": "/new"}]}, "redirects[0].path", "must be a path"),
        ({"redirects": [{"path": "/old?a", "to": "/new"}]}, "redirects[0].path", "has no query"),
        ({"redirects": [{"path": "/old", "to": "new"}]}, "redirects[0].to", "is not a path of this site"),
        ({"redirects": [{"path": "/old", "to": "//evil"}]}, "redirects[0].to", "is not a path of this site"),
        ({"redirects": [{"path": "/old", "to": "/$uri"}]}, "redirects[0].to", "has a space"),
        ({"redirects": [{"path": "/old", "to": "/old"}]}, "redirects[0].to", "leads back"),
        ({"redirects": [{"path": "/old", "to": "/a"}, {"path": "/old", "to": "/b"}]}, "redirects[1].path", "is there"),
        ({"upstream": {"servers": []}, "locations": [{"path": "/a/"}]}, "locations", "no application behind them"),
    ],
)
def test_parts_of_a_site_that_cannot_work_are_refused(change, path, said):
    found = check("nginx", "nginx_sites", {**APP_SITE, **change})
    assert len(found) == 1, found
    assert found[0].startswith(f"nginx_sites[0].{path}: ") and said in found[0]


@pytest.mark.parametrize(
    "variables, path, said",
    [
        ({"nginx_limit_conn": -1}, "nginx_limit_conn", "must be at least 0"),
        ({"nginx_auth_basic_limit": {"rate": "fast"}}, "nginx_auth_basic_limit.rate", "is not a rate"),
        ({"nginx_auth_basic_limit": {"burst": -1}}, "nginx_auth_basic_limit.burst", "must be at least 0"),
        ({"nginx_proxy_protocol": True}, "nginx_proxy_protocol", "needs nginx_real_ip_from"),
        ({"nginx_real_ip_from": ["lb"]}, "nginx_real_ip_from[0]", "is not an address"),
        ({"nginx_real_ip_from": ["0.0.0.0/0"]}, "nginx_real_ip_from[0]", "believes everybody"),
        ({"nginx_proxy_protocol": True, "nginx_real_ip_from": ["10.0.0.1"], "nginx_http3": True}, "nginx_http3",
         "no PROXY protocol"),
        ({"nginx_tls_policy": "modern", "nginx_ssl_ciphers": ["x"]}, "nginx_ssl_ciphers", "means nothing"),
    ],
)
def test_variables_that_do_not_go_together_are_refused(variables, path, said):
    filled, problems = spec.check(spec.load("nginx"), variables)
    found = problems + rules.check("nginx", filled, problems)
    assert len(found) == 1 and found[0].startswith(f"{path}: ") and said in found[0], found
    assert rules.check("nginx", filled, [spec.Problem(path, "expected something else")]) == []


def test_sound_sites_pass():
    site = {**SITE, "aliases": ["*.example.com"], "upstream": {"servers": [
        {"address": "unix:/" + "x" * 106}, {"address": "10.0.0.1:8000"}, {"address": "[::1]:8000"}]},
        "limit_req": [{"rate": "10r/s"}, {"rate": "100r/m", "key": "$binary_remote_addr$uri"}],
        "locations": [{"path": "/"}, {"path": "= /a", "allow": ["10.0.0.1", "2001:db8::/32"]}, {"path": "/a"}],
        "redirects": [{"path": "/b", "to": "https://example.com/?a=b#c"}]}
    assert check("nginx", "nginx_sites", site) == []


@pytest.mark.parametrize(
    "certificate, path",
    [
        ({"name": "a", "domains": []}, "domains"),
        ({"name": "a", "domains": ["a.example", "A.example"]}, "domains[1]"),
        ({"name": "a", "domains": ["a/b"]}, "domains[0]"),
    ],
)
def test_certificates_that_cannot_be_had_are_refused(certificate, path):
    found = check("certbot_tls", "certbot_tls_certificates", certificate)
    assert len(found) == 1 and found[0].startswith(f"certbot_tls_certificates[0].{path}: "), found


SERVICE = {"name": "w.service", "sections": {"Service": {"ExecStart": "/bin/x"}, "Install": {"WantedBy": "x.target"}}}


@pytest.mark.parametrize(
    "unit, path, said",
    [
        ({**SERVICE, "name": "w"}, "name", "is not a valid unit name"),
        ({**SERVICE, "name": "w.servcie"}, "name", "Did you mean 'w.service'?"),
        ({**SERVICE, "name": "w.zzz"}, "name", "For example: worker.service"),
        ({"name": "w.socket", "sections": {"Socket": {"ListenStream": [8000, "/x", "/" + "x" * 107]}}},
         "sections.Socket.ListenStream", "107 bytes"),
        ({**SERVICE, "name": "a/b.service"}, "name", "is not a valid unit name"),
        ({"name": "w.service", "sections": {"Unit": {}}}, "sections", "needs the section 'Service'"),
        ({"name": "w.timer", "sections": {"Timer": {}, "Service": {}}}, "sections.Service", "is no section of a timer"),
        ({**SERVICE, "sections": {"Service": {"ExecStart": None}}}, "sections.Service.ExecStart", "is empty"),
        ({**SERVICE, "sections": {"Service": {"A": {"b": "c"}}}}, "sections.Service.A", "must be a single value"),
        ({**SERVICE, "sections": {"Service": {"A": ["b\nExecStart=/x"]}}}, "sections.Service.A", "several lines"),
        ({**SERVICE, "name": "w@.service", "state": "started"}, "state", "a template cannot be started"),
        ({"name": "w.timer", "sections": {"Timer": {"OnCalendar": "daily"}}, "profile": "strict"}, "profile",
         "for services only"),
        ({"name": "w.timer", "sections": {"Timer": {"OnCalendar": "daily"}}, "exposure_limit": 1}, "exposure_limit",
         "for services only"),
        ({**SERVICE, "exposure_limit": 0}, "exposure_limit", "more than 0"),
        ({"name": "w.service", "sections": {"Service": {"ExecStart": "/x"}}, "enabled": True}, "enabled", "'Install'"),
        ({"name": "w.socket", "sections": {"Socket": {"ListenStream": "/" + "x" * 107}}},
         "sections.Socket.ListenStream", "107 bytes"),
    ],
)
def test_units_that_cannot_work_are_refused(unit, path, said):
    found = check("systemd_service", "systemd_service_units", unit)
    assert len(found) == 1, found
    assert found[0].startswith(f"systemd_service_units[0].{path}: ") and said in found[0]


@pytest.mark.parametrize(
    "unit",
    [
        SERVICE,
        {"name": "w@a.service", "state": "started", "enabled": True},
        {"name": "gone.service", "state": "absent"},
        {"name": "gone.service", "state": "absent", "sections": {"Servcie": {}}, "exposure_limit": 99},
        {"name": "w.socket", "sections": {"Socket": {"ListenStream": "[::]:8000", "ExecStartPre": "/" + "x" * 120}}},
        {"name": "w.socket", "sections": {"Socket": {"ListenStream": "/" + "x" * 106}}},
        {"name": "w.target", "sections": {"Unit": {"Description": "x"}}},
        {"name": "w.slice", "sections": {"Slice": {"CPUWeight": 10}}},
        {**SERVICE, "name": "w@.service"},
    ],
)
def test_sound_units_pass(unit):
    assert check("systemd_service", "systemd_service_units", unit) == []


def test_two_units_of_one_name_are_refused():
    found = check("systemd_service", "systemd_service_units", SERVICE, SERVICE)
    assert len(found) == 1 and found[0].startswith("systemd_service_units[1].name: ")
