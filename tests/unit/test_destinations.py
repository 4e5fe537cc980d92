# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each destination takes, what it refuses, and that it is asked whoever gives the value."""

from __future__ import annotations

import time

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import apps, rules, spec
from ansible_collections.daoman.fastapi.plugins.module_utils import destinations as to

APP = {"name": "shop", "domain": "shop.example.com", "source": "/src/shop", "app": "app.main:app"}
SITE = {"name": "shop", "domain": "shop.example.com"}

GOOD = [
    (to.domain, ["localhost", "xn--bcher-kva.example", "a" * 63 + ".example"]),
    (to.domain_or_wildcard, ["*.example.com"]),
    (to.network, ["192.0.2.1", "10.0.0.0/8", "2001:db8::/32", "::1"]),
    (to.server_address, ["unix:/run/a.sock", "127.0.0.1:80", "[::1]:80", "app.internal:8000", "app"]),
    (to.nginx_time, ["60s", "500ms", "1h30m", "5"]),
    (to.nginx_expires, ["30d", "-1", "epoch", "max", "off", "@15h30m", "modified +24h"]),
    (to.nginx_size, ["0", "10m", "2G"]),
    (to.nginx_variable, ["$client_network", "$scheme$host$request_uri", "key-$uri"]),
    (to.header_value, ["", "default-src 'self'; img-src \"x\"", "a $scheme b", "\\"]),
    (to.location_path, ["/", "/api/", "= /login", "/é/"]),
    (to.redirect_target, ["/new", "https://example.com/a?b=c&d#e"]),
    (to.nginx_regex, [r"[._-](?=[0-9]*[a-f])[0-9a-f]{8,64}\.", ".", r"\d{3}\$"]),
    (to.host_path, ["/var/lib/shop", "/srv/é"]),
    (to.published_path, ["/srv/shop/shared/media", "/var/www/html"]),
    (to.writable_path, ["/var/lib/shop", "/tmp/shop"]),
    (to.source_path, ["media", "data/up.loads", ".well-known"]),
    (to.source, ["https://git.example.com/a.git", "git@example.com:a/b.git", "./app", "my app", "name[x] @ https://e/x"]),
    (to.git_revision, ["v1.2.3", "main", "feature/x+y", "1" * 40, "über"]),
    (to.python, ["3.13", "3.13.1", "/usr/bin/python3"]),
    (to.memory_limit, ["infinity", "512M", "60%", "1.5G"]),
    (to.directive_value, ["", 5, True, ["a", "b"], "a\\\\", 'x="y"', "%n"]),
    (to.env_value, ["", "a\nb\tc", "$x %n", 5, True]),
    (to.mail_address, ["ops+x@example.com"]),
    (to.package, ["libpq5", "nginx=1.26.3-3", "g++", "libc6:amd64"]),
    (to.user_name, ["www-data", "_apt"]),
    (to.sshd_pattern, ["ann", "ann@192.0.2.0/24", "*", "deploy?"]),
    (to.http_url, ["https://hooks.example.com/a/b?c=d%20e", "http://[::1]:80/"]),
    (to.label_value, ["a b", "é", 5]),
    (to.unit_name, ["w.service", "w@.service", "w@a\\x2db.timer"]),
    (to.renewal_period, ["30 days", "48 hours", "33%", "1day"]),
]
BAD = [
    (to.domain, ["a b", "*.example.com", "a.example.", "bücher.example", "a_b.example"]),
    (to.network, ["10.0.0.1/8", "office", "fe80::1%x;evil", "fe80::1%x evil", "\u0661.1.1.1"]),
    (to.server_address, ["http://a:80", "a:70000", "unix:run/a", "unix:/run/a b", "unix:/" + "x" * 107]),
    (to.nginx_time, ["60 s", "1h 30m", "soon", "", "60s; evil"]),
    (to.nginx_expires, ["x; evil on", "30d evil", ""]),
    (to.nginx_size, ["10 m", "10MB"]),
    (to.nginx_variable, ["uri", "$a b", "$a;", "#$a", "$a{", "$a#"]),
    (to.header_value, ["a\nb", "$http_cookie", "${http_cookie}", "$", "a\u2028b", 5, "x" * 5000]),
    (to.header_name, ["Two Words", "#X", "$X", "X\n", "X:", "é"]),
    (to.location_path, ["api", "~ ^/x", "/a b", "/a;b", "= x", "/a{"]),
    (to.redirect_target, ["//evil", "/\\evil", "new", "/$uri", "/a b"]),
    (to.nginx_regex, ["(", "x)|(y", 'a\\"', "\\\\", "a\nb"]),
    (to.host_path, ["a", "/a/../../etc", "/a b", "/a%n", "/a$b", "/a\0", "/" + "x" * 5000]),
    (to.published_path, ["/", "/etc", "//etc", "/./etc/ssl", "/etc/shadow", "/proc/1", "/var/log/nginx"]),
    (to.writable_path, ["/", "/etc/", "//etc", "/./etc", "/var/./lib", "/a b", "a"]),
    (to.source_path, ["/a", "../a", "a/../../b", "-a", "a b", "a%n", "a\nb", ""]),
    (to.source, ["", " ", "-x", "--upload-pack=x", "ext::sh -c id", "fd::7", "a\nb"]),
    (to.git_revision, ["", "-x", "--upload-pack=x", "a b", "a..b", "a:b", "+main", "a^{}", "a~1", "a@{1}", "a.lock"]),
    (to.python, ["python3", "3", "3.13\n", "/usr/bin/../evil"]),
    (to.memory_limit, ["1G\nExecStartPre=/evil", "1 G", "lots", "1G "]),
    (to.directive_value, ["a\nb", "a\rb", "a\0b", "a\\", ["a", "b\\"], None, {"a": 1}]),
    (to.env_value, [None, [], "a\0b", "a\x1bb", "a\r\nb", "\ud800"]),
    (to.mail_address, ["ops", "a@b\nBcc: c@d", "-oX@b", "--evil=a@b", "a@-b"]),
    (to.package, ["-x", "a b", "A", "a;b", "./a.deb", "a=-1"]),
    (to.user_name, ["Ann", "a b", "-a", "a:b", "a\n"]),
    (to.sshd_pattern, ["a b", "!a", "-a", "a#", 'a"', "a\\"]),
    (to.http_url, ["ftp://a", "https://", "https://a b", "https://a/{{ x }}", "https://a/\n", "javascript:x"]),
    (to.label_value, ["{{ x }}", "a\nb"]),
    (to.unit_name, ["w", "a/b.service", "w.servcie", "w.service\n", "../w.service"]),
    (to.umask, ["27", "0027\n", "9999"]),
    (to.extra_name, ["-x", "a b", "a\n", "--all"]),
    (to.requirement, ["-r/etc/passwd", "--index-url=x", "a\n-r b", ""]),
    (to.renewal_period, ["100%", "a month", "30 days\n"]),
]


@pytest.mark.parametrize("destination, value", [(each, value) for each, values in GOOD for value in values])
def test_values_that_fit_pass(destination, value):
    assert destination(value) is None


@pytest.mark.parametrize("destination, value", [(each, value) for each, values in BAD for value in values])
def test_values_that_would_be_more_than_one_value_are_refused(destination, value):
    assert destination(value).text


CASES = [
    ({"nginx": {"static": [{"url": "/s/", "directory": "s", "expires": "x; evil on"}]}}, "nginx.static[0].expires"),
    ({"nginx": {"content_security_policy": "default-src 'none'\nevil on;"}}, "nginx.content_security_policy"),
    ({"nginx": {"headers": {"X-Session": "$http_cookie"}}}, "nginx.headers.X-Session"),
    ({"service": {"memory_max": "1G\nExecStartPre=+/evil"}}, "service.memory_max"),
    ({"service": {"writable_paths": ["/var/lib/shop /etc"]}}, "service.writable_paths[0]"),
    ({"service": {"writable_paths": ["/var/../../etc"]}}, "service.writable_paths[0]"),
    ({"subdirectory": "a\0b"}, "subdirectory"),
    ({"aliases": ["*.example.com"]}, "aliases[0]"),
    ({"release": {"build_env": {"GIT_DIR\nX": "y"}}}, r"release.build_env['GIT_DIR\nX']"),
]


@pytest.mark.parametrize("change, path", CASES)
def test_fastapi_apps_and_the_roles_alone_meet_the_same_checks(change, path):
    options = apps.options()["fastapi_apps"]
    filled, found = spec.check_option(options, [{**APP, **change}], "fastapi_apps")
    assert [item.path for item in found + rules.check_apps(filled, found)] == [f"fastapi_apps[0].{path}"]
    role, variable, element = ("nginx", "nginx_sites", {**SITE, **change.get("nginx", {})}) if "nginx" in change else (
        "gunicorn_app", "gunicorn_app_apps", {**APP, **change})
    if "aliases" in change:  # nginx serves a wildcard whose certificate comes from elsewhere
        return
    if "static" in change.get("nginx", {}):
        element["static"] = [{**element["static"][0], "directory": "/srv/s"}]
    filled, found = spec.check(spec.load(role), {variable: [element]})
    found += rules.check(role, filled, found)
    assert [item.path for item in found] == [f"{variable}[0].{path.removeprefix('nginx.')}"]


def test_a_message_shows_the_value_on_one_line_and_short():
    (found,) = spec.check(spec.load("nginx"), {"nginx_keepalive_timeout": "60s\n\x1b[2J\u202e" + "x" * 500})[1]
    assert found.startswith("nginx_keepalive_timeout: is not a time as nginx writes it (value: '60s\\n\\x1b[2J\\u202e")
    assert found.isprintable() and len(found) < 200 and found.endswith("For example: 60s")


def test_the_keys_of_a_dict_are_shown_on_one_line():
    (found,) = spec.check(spec.load("nginx"), {"nginx_keepalive_timeout": {"a\x1b[2J\nb": 1}})[1]
    assert found.isprintable()


@pytest.mark.parametrize("role, variables", [
    ("monitoring", {"monitoring_resources_webhook_token": "hunter2 x"}),
    ("monitoring", {"monitoring_access_users": {"ops": "hunter2"}}),
    ("monitoring", {"monitoring_grafana_admin_password": "hunter2\n"}),
    ("monitoring", {"monitoring_grafana_admin_password": ["hunter2"]}),
    ("certbot_tls", {"certbot_tls_eab_hmac_key": "hunter2 x"}),
    ("systemd_service", {"systemd_service_units": [
        {"name": "a.service", "sections": {"Service": {"Environment": "A=hunter2\nB"}}}]}),
    ("gunicorn_app", {"gunicorn_app_apps": [{**APP, "env": {"A": "hunter2\0"}}]}),
])
def test_a_secret_is_not_shown(role, variables):
    filled, found = spec.check(spec.load(role), variables)
    found += rules.check(role, filled, found)
    assert found and "hunter2" not in "".join(found)


def test_several_mistakes_are_told_at_once():
    env = {"A B": "x", "C": None, "D": "\0", "LISTEN_FDS": "1", "E": "fine"}
    found = spec.check_option(apps.options()["fastapi_apps"], [{**APP, "env": env}], "fastapi_apps")[1]
    assert len(found) == 4


@pytest.mark.parametrize("value", ["3٣", "1_000", " 5", "5\n", "0x10"])
def test_a_number_is_written_in_plain_digits(value):
    """Where a template has the value as it was given, it would not be the number that was checked."""
    assert spec.check(spec.load("monitoring"), {"monitoring_logs_keep": value})[1]


def test_no_pattern_takes_long_for_a_long_value():
    started = time.monotonic()
    for destination in vars(to).values():
        if callable(destination) and getattr(destination, "__module__", "") == to.__name__:
            for text in ("1" * 3000 + "!", "a" * 3000 + "!", "a." * 1500 + "!", "1s" * 1500 + "!", "/" * 3000 + "\n"):
                try:
                    destination(text)
                except TypeError:  # not a destination
                    break
    assert time.monotonic() - started < 5
