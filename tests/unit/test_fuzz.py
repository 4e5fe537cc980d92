# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile values for every option: refused, or the rendered texts hold the directives that were meant and no others.

Each context is a complete set of variables in which every option is set, and so rendered. For each kind of hostile
value all options get one at once, which tells what validation accepts. Of the accepted values, one for each option at a
time is rendered and parsed by parsers of this file. The structure must be that of the benign texts. FUZZ_SEED repeats a
run; FUZZ_MOST=99 renders everything that is accepted.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import itertools
import json
import os
import random
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible_collections.daoman.fastapi.plugins.module_utils import apps, release_units, rules, spec
from ansible_collections.daoman.fastapi.plugins.module_utils._host import systemd
from test_nginx_tree_action import render as render_nginx

ROOT = Path(__file__).resolve().parents[2]
# Now, because Ansible's loader of collections would not find them here.
FILTERS = {
    f"daoman.fastapi.{name}": function
    for path in sorted((ROOT / "plugins/filter").glob("[a-z]*.py"))
    for name, function in importlib.import_module(
        f"ansible_collections.daoman.fastapi.plugins.filter.{path.stem}").FilterModule().filters().items()
}
SEED = int(os.environ.get("FUZZ_SEED", "15"))
# Accepted values of an option that are rendered. Free text has more, of which the seed chooses.
MOST = int(os.environ.get("FUZZ_MOST", "6"))

# Options whose text stands in a file as its owner wrote it, or which choose a file; by the end of their path.
RAW = {
    "extra": "configuration or code of the owner, which is tested before it takes effect",
    "location_extra": "nginx configuration of the owner",
    "service.overrides": "directives of the owner: test_overrides_are_single_directives",
    "sections": "directives of the owner: test_overrides_are_single_directives",
    "template": "the name of a template on the controller",
    "nginx_http_extra": "nginx configuration of the owner",
    "nginx_main_extra": "nginx configuration of the owner",
    "nginx_conf_template": "the name of a template on the controller",
    "nginx_site_template": "the name of a template on the controller",
    "gunicorn_app_config_template": "the name of a template on the controller",
    "hardening_banner.text": "the text of a file that is nothing else",
    "certbot_tls_dns_credentials": "the file of a plugin, in the plugin's own format",
    "monitoring_prometheus_rules": "data: test_data_stays_data",
    "monitoring_prometheus_settings": "data: test_data_stays_data",
    "monitoring_alertmanager_routes": "data: test_data_stays_data",
    "monitoring_alertmanager_receivers": "data: test_data_stays_data",
    "monitoring_alerts": "data, of which alerts.problems() checks each key",
}
# Where a variable of nginx is what the option is for, or, in a regular expression, is none.
VARIABLES = (".key", ".hash_key", ".cache.bypass", ".cache.headers", ".static[].hashed")

SUFFIXES = [
    "\n", "\nEvil=1", "\r", "\rEvil=1", "\n\n[Evil]\nA=1", ";", "; evil on", " evil", " -evil", "\tevil", "{", "}",
    "{ evil; }", '"', "'", '"; evil "', "\\", "\\\\", '\\"', " \\", "$http_cookie", "${http_cookie}", "$arg_x",
    "%n", "%", "%%n", "#evil", " # evil", "\0", "\u2028Evil=1", "\x85Evil=1", "\x1b[2J", "`id`", "$(id)", "&& id",
    "| id", "/../../etc", "/..", "//", "/*", ",evil", ":evil", "=evil", "@evil", "<evil>", "{{ evil }}", "{% evil %}",
    "é", "😀", "\ud800", "٣", ")", "(", "]", "[", "*", "~", "!", "?", "^", "x" * 5000, ".git::evil",
]
PREFIXES = [
    "-", "--evil=", "#", "\n", " ", "$", "%", "~", "../", "/../", "\\", ";", "+", "!", "=", "ext::", "\u202e", '"', "*",
]
WHOLE = [
    "-evil", "$http_cookie", "\n", " ", ".", "..", "//etc", "/./etc", "fe80::1%x;evil", "fe80::1%x evil", "null",
    "1e9", "-1", "0x10", "\0", "~/x", "$HOME", "#", "{", "}", "\\", '"', "'",
]
HOSTILE = [
    *(("suffix", text, lambda value, text=text: value + text) for text in SUFFIXES),
    *(("prefix", text, lambda value, text=text: text + value) for text in PREFIXES),
    *(("value", text, lambda _value, text=text: text) for text in WHOLE),
]


# -- benign values for every option -----------------------------------------------------------------------------------

ENV = {"VAR_ONE": "one"}
LIMITS = {
    "limit_req": [{"key": "$binary_remote_addr", "rate": "11r/s", "burst": 21, "delay": True}],
    "limit_conn": [{"key": "$server_port", "connections": 12}],
}
CACHE = {
    "enabled": True, "valid": "17m", "key": "$scheme$host$request_uri", "bypass": ["$http_x_api_key"],
    "use_stale": ["error", "updating"], "headers": [], "purge": ["192.0.2.17"],
}
LOCATION = {
    "path": "/api-a/", "timeouts": {"connect": "6s", "send": "61s", "read": "62s"}, "client_max_body_size": "11m",
    "proxy_buffering": False, "proxy_request_buffering": False, "auth_basic": "realm-a",
    "auth_basic_user_file": "/etc/nginx/users-a", "allow": ["192.0.2.16"], "headers": {"X-Loc": "loc-value"},
    "extra": "", "cache": CACHE, **LIMITS,
}
SITE = {
    "auth_basic": "realm-s", "auth_basic_user_file": "/etc/nginx/users-s", "allow": ["192.0.2.15"],
    "timeouts": {"connect": "7s", "send": "63s", "read": "64s"}, "client_max_body_size": "12m", **LIMITS,
    "limit_dry_run": True, "locations": [LOCATION], "cache_max_size": "3g",
    "redirects": [{"path": "/old-a", "to": "/new-a", "status": 302}],
    "static": [{"url": "/static-a/", "directory": "/srv/static-a", "expires": "33d", "hashed": "[a-f]{8}"}],
    "maintenance": {"retry_after": 301, "allow": ["192.0.2.18"]}, "content_security_policy": "default-src 'none'",
    "docs": True, "headers": {"X-Site": "site-value"}, "extra": "", "location_extra": "", "template": "",
    "upstream": {
        "next_upstream": ["error", "http_502"], "keepalive": 3, "keepalive_timeout": "3s", "tries": 2,
        "tries_timeout": "4s"},
}
APP = {
    "name": "shop-a", "state": "present", "domain": "shop-a.example.com", "aliases": ["alias-a.example.com"],
    "source": "https://git.example.com/acme/shop-a.git", "source_type": "git", "version": "v1.2.3", "checksum": "",
    "ssh_key_file": "/root/.ssh/key-a", "subdirectory": "sub-a", "app": "app_a.main:app", "python": "3.13",
    "extras": ["extra-a"], "groups": ["group-a"], "env": ENV,
    "gunicorn": {
        "workers": 3, "worker_class": "workers_a.Worker", "worker_connections": 1001, "backlog": 4097,
        "timeout": 31, "graceful_timeout": 32, "keepalive": 6, "max_requests": 2001, "max_requests_jitter": 1002,
        "preload_app": "auto", "forwarded_allow_ips": "127.0.0.9", "umask": "0026", "log_level": "info", "extra": ""},
    "service": {
        "sandbox": "network", "exposure_limit": 1.6, "writable_paths": ["/var/lib/shop-w"], "memory_max": "513M",
        "limit_nofile": 65537, "timeout_start": 61, "overrides": {},
        "log_rate_limit_interval": 61, "log_rate_limit_burst": 2001},
    "release": {
        "keep": 6, "linger": 3.5, "build_env": ENV, "build_secrets": ENV, "build_timeout": 901, "resolve_timeout": 61,
        "build_memory_max": "70%", "build_tasks_max": 1025, "build_cpu_weight": 11, "build_io_weight": 12,
        "shared_paths": ["media-a"],
        "hooks": {point: [f"run {point}"] for point in (
            "before_build", "after_build", "migrate", "before_switch", "after_switch", "after_failure")},
        "guard": {
            "seconds": 11, "baseline": 61, "requests": 21, "error_rate": 0.03, "latency": 3.5, "latency_floor": 0.6,
            "access_log": "/var/log/nginx/shop-a.json"}},
    "health": {"readiness": "/ready-a", "successes": 4, "timeout": 61},
    "certificate": {
        "obtain": True, "key_type": "ecdsa", "elliptic_curve": "secp384r1", "server": "https://acme-a.example.com/dir",
        "profile": "profile-a", "renew_before_expiry": "21 days", "challenge": "webroot", "revoke": True},
    "nginx": {
        **SITE, "static": [{**SITE["static"][0], "directory": "static-a"}],
        "locations": [{**LOCATION, "cache": {**CACHE, "headers": ["X-Cached-A"], "purge": []}}]},
}
# What goes with another kind of source, or does not go with purge.
ROLE_APP = {
    **{name: value for name, value in APP.items() if name not in ("aliases", "certificate", "nginx")},
    "source": "https://example.com/shop-a.tar.gz", "source_type": "archive", "version": "HEAD", "ssh_key_file": "",
    "checksum": "sha256:" + "b" * 64,
}
NGINX_SITE = {
    **SITE, "name": "site-b", "domain": "site-b.example.com", "aliases": ["alias-b.example.com"],
    "certificate": "cert-b",
    "static": [{**SITE["static"][0], "previous": "/srv/previous-b"}],
    "upstream": {
        **SITE["upstream"], "method": "hash", "hash_key": "$request_uri",
        "servers": [
            {"address": "192.0.2.31:8001", "weight": 2, "max_fails": 3, "fail_timeout": "13s", "max_conns": 14},
            {"address": "192.0.2.32:8002", "down": True}]},
}
FIREWALL = {"ssh_allow": ["192.0.2.41"], "tcp": [81], "udp": [444], "fleet_ports": [8443],
            "fleet_hosts": ["192.0.2.42"], "log": True, "extra": ""}
HARDENING = {
    "hardening_confirm": {"window": 61, "timeout": 9, "checks": True},
    "hardening_ssh": {
        "port": 2222, "allow_users": ["ann-a", "ci-a"], "allow_groups": ["staff-a"], "max_auth_tries": 5,
        "login_grace_time": 31, "max_startups_per_source": 11, "client_alive_interval": 301, "extra": ""},
    "hardening_firewall": FIREWALL,
    "hardening_monitors": ["192.0.2.43"],
    "hardening_proxies": ["192.0.2.45"],
    "hardening_fail2ban": {
        "ignore": ["192.0.2.44"], "maxretry": 6, "findtime": 601, "bantime": 3601, "bantime_max": 86401},
    "hardening_updates": {"reboot_time": "05:01", "keep_running": ["keep-a.service"], "blacklist": ["^block-a$"]},
    "hardening_sysctl": {"settings": {"net.core.test_a": "value-a"}},
    "hardening_time": {"servers": ["ntp-a.example.com"]},
    "hardening_banner": {"text": "banner"},
    "hardening_deploy_user": {"name": "ci-a", "authorized_keys": ["ssh-ed25519 AAAA ci-a"]},
    "hardening_modules": {"disabled": ["module-a"]},
    "hardening_sudo": {"extra": ""},
    "hardening_accounts": {"su_group": "group-s"},
    "hardening_mounts": {"options": {"/mount-a": ["nosuid"]}},
    "hardening_nginx": {"write_paths": ["/srv/write-a"], "extra": ""},
}
TARGET = {"job": "job-a", "instance": "instance-a", "address": "target-a:9187", "labels": {"label_a": "value-l"}}
MONITORING = {
    "monitoring_troubleshoot_addresses": ["192.0.2.51"],
    "monitoring_resources_interval": 16,
    "monitoring_resources_ignored_mounts": ["^/mnt-a/"],
    "monitoring_resources_queue": 201,
    "monitoring_resources_slack_url": "https://slack-a.example.com/x",
    "monitoring_resources_webhook_url": "https://hook-a.example.com/x",
    "monitoring_resources_webhook_token": "token-a",
    "monitoring_resources_mail_to": ["to-a@example.com"],
    "monitoring_resources_mail_from": "from-a@example.com",
    "monitoring_resources_mail_host": "mail-a.example.com",
    "monitoring_resources_mail_port": 26,
    "monitoring_resources_mail_security": "starttls",
    "monitoring_resources_mail_ca_file": "/etc/ca-a.pem",
    "monitoring_resources_mail_user": "user-a",
    "monitoring_resources_mail_password": "password-a",
    "monitoring_exporters_address": "10.0.0.52",
    "monitoring_exporters_nginx_status": "http://127.0.0.1:8099/status-a",
    "monitoring_exporters_series": 10001,
    "monitoring_local_services_users": ["agent-a"],
    "monitoring_logs_keep": 15,
    "monitoring_logs_max_size": "501M",
    "monitoring_logs_journal_max_use": "2G",
    "monitoring_logs_journal_retention": "2months",
    "monitoring_prometheus": True,
    "monitoring_targets": [TARGET],
    "monitoring_further_targets": [{**TARGET, "instance": "instance-b", "address": "target-b:9188"}],
    "monitoring_prometheus_interval": "16s",
    "monitoring_prometheus_retention_time": "31d",
    "monitoring_prometheus_retention_size": "11GB",
    "monitoring_prometheus_rules": {},
    "monitoring_prometheus_settings": {},
    "monitoring_access_domain": "m-a.example.com",
    "monitoring_access_users": {"ops-a": "$6$salt$" + "a" * 86},
    "monitoring_access_allow": ["192.0.2.53"],
    "monitoring_grafana": True,
    "monitoring_grafana_repository": "https://apt-a.example.com",
    "monitoring_grafana_key": "https://apt-a.example.com/key-a",
    "monitoring_grafana_admin_password": "password-b",
    "monitoring_alerts": {},
    "monitoring_alerts_runbook": "https://docs-a.example.com/alerts",
    "monitoring_alertmanager_slack_url": "https://slack-b.example.com/x",
    "monitoring_alertmanager_slack_channel": "#channel-a",
    "monitoring_alertmanager_webhook_url": "https://hook-b.example.com/x",
    "monitoring_alertmanager_webhook_token": "token-b",
    "monitoring_alertmanager_mail_to": ["to-b@example.com"],
    "monitoring_alertmanager_mail_from": "from-b@example.com",
    "monitoring_alertmanager_mail_host": "mail-b.example.com",
    "monitoring_alertmanager_mail_port": 27,
    "monitoring_alertmanager_mail_security": "starttls",
    "monitoring_alertmanager_mail_user": "user-b",
    "monitoring_alertmanager_mail_password": "password-c",
    "monitoring_alertmanager_watchdog_url": "https://hc-a.example.com/x",
    "monitoring_alertmanager_watchdog_interval": "2m",
    "monitoring_alertmanager_group_by": ["label_g"],
    "monitoring_alertmanager_group_wait": "31s",
    "monitoring_alertmanager_group_interval": "6m",
    "monitoring_alertmanager_repeat_interval": "5h",
    "monitoring_alertmanager_routes": [],
    "monitoring_alertmanager_receivers": [],
}
NGINX = {
    "nginx_sites": [NGINX_SITE],
    "nginx_kept_sites": ["site-b"],
    "nginx_packages": ["nginx-a"],
    "nginx_worker_processes": "3",
    "nginx_worker_connections": 4097,
    "nginx_worker_rlimit_nofile": 9001,
    "nginx_keepalive_timeout": "66s",
    "nginx_limit_conn": 1001,
    "nginx_auth_basic_limit": {"rate": "19r/s", "burst": 201},
    "nginx_status_address": "127.0.0.1:8098",
    "nginx_tls_policy": "intermediate",
    "nginx_ssl_ciphers": ["CIPHER-A"],
    "nginx_real_ip_from": ["192.0.2.61"],
    "nginx_real_ip_header": "X-Real-A",
    "nginx_gzip_level": 2,
    "nginx_gzip_min_length": 1025,
    "nginx_gzip_types": ["text/type-a"],
    "nginx_error_html": "<p>page-a</p>",
    "nginx_headers": {"X-All": "all-value"},
    "nginx_acme_peers": ["192.0.2.62:80"],
    "nginx_main_extra": "",
    "nginx_http_extra": "",
    "nginx_conf_template": "nginx.conf.j2",
    "nginx_site_template": "site.conf.j2",
}
CERTBOT = {
    "certbot_tls_certificates": [{
        "name": "cert-c", "domains": ["cert-c.daoman.io"], "server": "https://acme-c.example.com/dir",
        "profile": "profile-c", "renew_before_expiry": "22 days"}],
    "certbot_tls_email": "ops-c@example.com",
    "certbot_tls_server": "https://acme-d.example.com/dir",
    "certbot_tls_eab_kid": "kid-c",
    "certbot_tls_eab_hmac_key": "hmac-c",
    "certbot_tls_ca_bundle": "/etc/ca-c.pem",
    "certbot_tls_renew_before_expiry": "23 days",
    "certbot_tls_dns_plugin": "cloudflare",
    "certbot_tls_dns_credentials": "",
    "certbot_tls_dns_propagation_seconds": 11,
    "certbot_tls_version": "5.8.1",
    "certbot_tls_env": ENV,
    "certbot_tls_reissue": ["cert-c"],
}
GUNICORN = {
    "gunicorn_app_apps": [{**ROLE_APP, "static_paths": ["static-a"]}],
    "gunicorn_app_packages": ["libpq-a"],
    "gunicorn_app_server_requirements": ["gunicorn==27.0.1"],
    "gunicorn_app_uv_version": "0.13.8",
    "gunicorn_app_uv_hashes": ["sha256:" + "a" * 64],
    "gunicorn_app_tools_env": ENV,
    "gunicorn_app_socket_group": "www-a",
    "gunicorn_app_metrics_socket": "/run/metrics-a.sock",
    "gunicorn_app_batch": "26%",
    "gunicorn_app_reason": "reason-a",
    "gunicorn_app_config_template": "gunicorn.conf.py.j2",
}
UNITS = {"systemd_service_units": [
    {"name": "worker-a.service", "sections": {"Service": {"ExecStart": "/bin/true"}}, "exposure_limit": 9.5}]}


# -- parsers, which know nothing of the collection --------------------------------------------------------------------


def nginx_structure(text):
    """The directives of a configuration: blocks around, name, number of arguments; and variables that clients set."""
    found, words, blocks = Counter(), [], []
    for word in nginx_words(text):
        if word in (";", "{"):
            assert words, f"a '{word}' after nothing"
            name = words[0] if not blocks or blocks[-1] not in ("map", "geo") else "(entry)"
            found[(*blocks, name, len(words), word)] += 1
            blocks += [name] * (word == "{")
            words = []
        elif word == "}":
            assert not words and blocks, f"a '}}' after {words}"
            blocks.pop()
        else:
            words.append(word[1])
            for name in re.findall(r"\$\{?((?:http|arg|cookie|sent_http|args|uri|query)\w*)", word[1]):
                found["variable", name] += 1
    assert not words and not blocks, f"the configuration ends inside {blocks} {words}"
    return found


def nginx_words(text):
    """Words as pairs with their text, and the characters that end them, as ngx_conf_read_token() reads them."""
    at, end = 0, len(text)
    while at < end:
        start = text[at]
        if start in " \t\r\n":
            at += 1
        elif start == "#":
            at = (text + "\n").index("\n", at)
        elif start in ";{}":
            yield start
            at += 1
        else:
            quote = start if start in "\"'" else ""
            at += len(quote)
            word = ""
            while at < end:
                char = text[at]
                if char == "\\":
                    escape = {"t": "\t", "r": "\r", "n": "\n", '"': '"', "'": "'", "\\": "\\"}
                    word += escape.get(text[at + 1:at + 2], text[at:at + 2])
                    at += 2
                    continue
                if char == quote if quote else char in " \t\r\n;{" and not (char == "{" and word.endswith("$")):
                    break
                word += char
                at += 1
            assert not quote or at < end, f"no closing {quote} after {word[:50]!r}"
            assert len(word.encode("utf-8", "surrogatepass")) < 4096, "a word is too long for nginx"
            at += len(quote)
            assert not quote or text[at:at + 1] in " \t\r\n;{)", f"{text[at - 20:at + 5]!r} follows a quote"
            yield "word", word


def unit_structure(text):
    """The directives of a unit by section, with the number of words and the specifiers and variables of each."""
    found, section = Counter(), None
    lines, before = re.split(r"[\n\r\0]", text), ""
    for line in lines:
        if not before and line.lstrip().startswith(("#", ";")):
            continue
        line = before + line
        joined = re.search(r"(?<!\\)(\\\\)*\\$", line)
        before = line[:-1] + " " if joined else ""
        if before or not line.strip():
            continue
        if line.startswith("["):
            section = line.strip()
            found[section] += 1
            continue
        key, equals, value = line.partition("=")
        assert equals and re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", key), f"no directive: {line!r}"
        found[section, key, len(value.split()), tuple(sorted(re.findall(r"%.|\$\{?\w", value)))] += 1
    assert not before, "the unit ends in a line that goes on"
    return found


def python_structure(text):
    """The syntax tree without the values of strings and numbers."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float)):
            assert not isinstance(node.value, str) or not re.search("[\ud800-\udfff]", node.value), "half a character"
            node.value = type(node.value)()
    return Counter([ast.dump(tree)])


def shell_structure(text):
    words = shlex.shlex(text, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    words = list(words)
    return Counter([len(words), *(f"word {word}" for word in words if re.fullmatch(r"[();<>|&]+", word))])


def env_structure(text):
    """The number of variables of an EnvironmentFile, as systemd's parse_env_file() reads it."""
    found = Counter()
    rest = text
    while rest:
        match = re.match(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\n', rest, re.DOTALL)
        assert match, f"no assignment: {rest[:40]!r}"
        found["variable"] += 1
        rest = rest[match.end():]
    return found


def line_structure(text):
    """Lines of any other file: how many words each has, and what else means something to nft, apt, sudo, sshd, Perl."""
    text = re.sub(r'"[^"\n]*"', '"text"', text)  # between quotes nothing means anything there
    assert not re.search("[\0\r\ud800-\udfff\u2028\x85]", text), "a line ends without a newline"
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("//")]
    return Counter((len(line.split()), "".join(re.findall("[;{}\"'`#]", line))) for line in lines)


def data_structure(value):
    """Keys and types of JSON or YAML; templates in strings are Go's."""
    if isinstance(value, dict) and isinstance(value.get("labels"), dict):
        value = {**value, "labels": sorted(map(str, value["labels"].values()))}
    if isinstance(value, dict):
        return {key: data_structure(item) for key, item in value.items()}
    if isinstance(value, list):
        return [data_structure(item) for item in value]
    if isinstance(value, str):
        return ["text", value.count("{{")]
    return type(value).__name__


def file_structure(path, text):
    if path.endswith((".json", ".yml")):
        return Counter([json.dumps(data_structure(yaml.safe_load(text)), sort_keys=True)])
    if re.search(r"\.(service|path|timer|socket)$|systemd/|\.d/50-fastapi\.conf$", path):
        return unit_structure(text)
    if path.endswith(".py") or "/sbin/" in path:
        return python_structure(text)
    if "/sysctl.d/" in path:  # values have any number of words
        return Counter(bool(re.fullmatch(r"#.*|[\w./*-]+ = [^#;]+", line)) for line in text.split("\n")[:-1])
    if path.endswith(".keys"):
        return Counter(line.startswith("#") for line in text.split("\n"))
    return line_structure(text)


# -- rendering, without a host ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def plugins():
    """Ansible's plugins, and the filters of the collection, which is not installed here."""
    with contextlib.suppress(ValueError):  # another test did it
        init_plugin_loader()
    with pytest.MonkeyPatch.context() as patch:
        known = filter_loader.get
        patch.setattr(filter_loader, "get", lambda name, *args, **options: (
            filter_loader._wrap_func(name, name, FILTERS[name]) if name in FILTERS else known(name, *args, **options)))
        yield


def trusted(value):
    """Marks the role's own templates as such; options are text, and stay it."""
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def role_variables(role):
    found = {}
    for folder in ("defaults", "vars"):
        path = ROOT / "roles" / role / folder / "main.yml"
        if path.exists():
            found.update(trusted(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))
    return found


def templar(role, variables):
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "roles" / role))
    given = {"ansible_managed": "Ansible managed", "inventory_hostname": "host-a", "playbook_dir": str(ROOT),
             "ansible_search_path": [str(ROOT / "roles" / role)], "role_path": str(ROOT / "roles" / role)}
    return Templar(loader=loader, variables={**role_variables(role), **given, **variables})


def evaluate(plugin, expression):
    return plugin.template(trust_as_template("{{ %s }}" % expression))


def template(role, name, variables):
    return evaluate(templar(role, variables), f"lookup('ansible.builtin.template', '{name}')")


def app_texts(items, **variables):
    """What the role gunicorn_app writes for apps."""
    for app in items:
        for kind, text in release_units.units(app, variables.get("gunicorn_app_socket_group", "www-data")).items():
            yield f"app.{kind}", unit_structure(text)
        given = {"app": app, **variables}
        yield "gunicorn.conf.py", python_structure(template("gunicorn_app", "gunicorn.conf.py.j2", given))
        yield "start.sh", shell_structure(template("gunicorn_app", "start.sh.j2", given))
        yield "env", env_structure(systemd.env_file(app["env"]))


def site_texts(*sites, **variables):
    for path, text in render_nginx(*sites, **variables)[0].items():
        yield re.sub("[^/]*(?=headers.conf|.conf$)", "", path), nginx_structure(text)


def render_apps(variables):
    given = variables["fastapi_apps"]
    yield from app_texts(spec.check_option(
        spec.load("gunicorn_app")["gunicorn_app_apps"], apps.gunicorn_apps(given), "apps")[0])
    yield from site_texts(*apps.nginx_sites(given))


def render_gunicorn(variables):
    yield from app_texts(variables["gunicorn_app_apps"], **variables)


def render_nginx_role(variables):
    given = {name: value for name, value in variables.items() if name != "nginx_sites"}
    yield from site_texts(*variables["nginx_sites"], **given)


def render_hardening(variables):
    filled, _problems = spec.check(spec.load("hardening"), variables)
    plugin = templar("hardening", {
        **filled, "harden_fleet": ["192.0.2.42"], "harden_monitors": ["192.0.2.43"], "harden_exporter_ports": [9100],
        "harden_proxies": filled["hardening_proxies"],
        "ansible_play_hosts_all": [], "hostvars": {}})
    for item in evaluate(plugin, "__hardening_files"):
        text = item.get("content") or evaluate(
            plugin, "lookup('ansible.builtin.template', '%s')" % item["template"])
        if "/issue" not in item["path"]:
            yield item["path"], file_structure(item["path"], text)


def render_monitoring(variables):
    plugin = templar("monitoring", {**variables, "__monitoring_program": {"digest": "digest", "paths": []}})
    for name in (
        "__monitoring_logs_files", "__monitoring_services_files", "__monitoring_exporter_drop_ins",
        "__monitoring_prometheus_files", "__monitoring_alertmanager_files", "__monitoring_grafana_files",
    ):
        for item in evaluate(plugin, name):
            if "content" in item and "consoles/" not in item["dest"]:
                yield item["dest"], file_structure(item["dest"], item["content"])
    for unit in evaluate(plugin, "__monitoring_exporter_units + __monitoring_resources_units"):
        if unit.get("sections"):
            yield unit["name"], unit_structure(systemd.render(unit["sections"]))
    yield "resources", Counter(list(evaluate(plugin, "__monitoring_resources_settings")))
    domain, allow = variables["monitoring_access_domain"], variables["monitoring_access_allow"]
    (site,) = FILTERS["daoman.fastapi.monitoring_sites"](domain, True, allow, True)
    yield from site_texts(site)
    users = evaluate(plugin, "__monitoring_local_users")
    yield "local-services.json", Counter(bool(re.fullmatch("[a-z0-9_-]+", user)) for user in users)
    for item in evaluate(plugin, "__monitoring_resources.secrets + __monitoring_alertmanager_secrets"):
        yield item["dest"], Counter([len(item["content"].splitlines())])


def render_certbot(variables):
    yield "env", env_structure(systemd.env_file(variables["certbot_tls_env"]))
    # As certbot's file of settings, its arguments and its directories have them: one word each, no option.
    assert not re.search(r"\s", variables["certbot_tls_eab_kid"] + variables["certbot_tls_eab_hmac_key"])
    names = ("email", "server", "ca_bundle", "dns_plugin", "version")
    words = [variables[f"certbot_tls_{name}"] for name in names]
    for item in variables["certbot_tls_certificates"]:
        words += [item["name"], *item["domains"], item["server"], item["profile"]]
    assert all(re.fullmatch(r"[^\s-]\S*", word) and word.isprintable() for word in words), words


def render_units(variables):
    for item in variables["systemd_service_units"]:
        assert re.fullmatch(r"[^/\s]+\.\w+", item["name"]), item["name"]
        yield "unit", unit_structure(systemd.render(item["sections"]))


# context -> its variables, what reads them in the spec and the rules, and what renders them
CONTEXTS = {
    "fastapi_apps": ({"fastapi_apps": [APP]}, render_apps),
    "certbot_tls": (CERTBOT, render_certbot),
    "gunicorn_app": (GUNICORN, render_gunicorn),
    "hardening": (HARDENING, render_hardening),
    "monitoring": (MONITORING, render_monitoring),
    "nginx": (NGINX, render_nginx_role),
    "systemd_service": (UNITS, render_units),
}


def options_of(context):
    return apps.options() if context == "fastapi_apps" else spec.load(context)


def validate(context, variables):
    """The variables as the spec fills them, and where there is a problem."""
    filled, problems = spec.check(options_of(context), variables)
    if context == "fastapi_apps":
        return filled, problems + rules.check_apps(filled["fastapi_apps"], problems)
    return filled, problems + rules.check(context, filled, problems)


# -- the fuzz ---------------------------------------------------------------------------------------------------------


def leaves(options, value, keys=(), path=""):
    """Options with the keys that lead to their benign value, or None where there is none."""
    for name, option in options.items():
        where, there = f"{path}.{name}" if path else name, (*keys, name)
        inner = value.get(name) if isinstance(value, dict) else None
        if option.get("options") is None:
            yield where, option, there if inner is not None else None
        elif option["type"] == "list":
            yield from leaves(option["options"], inner[0] if inner else None, (*there, 0), where + "[]")
        else:
            yield from leaves(option["options"], inner, there, where)


def is_raw(where):
    return any(where == name or where.endswith("." + name) for name in RAW)


def can_hold_text(option):
    kind = option.get("elements") if option["type"] == "list" else option["type"]
    return kind not in ("bool", "int", "float") and not option.get("choices")


def get(value, keys):
    for key in keys:
        value = value[key]
    return value


def put(value, keys, item):
    get(value, keys[:-1])[keys[-1]] = item


def replaced(benign, change):
    """A benign value changed: a string, the first of a list, or the first key or value of a dict."""
    if isinstance(benign, list):
        return [change(str(benign[0])), *benign[1:]]
    if isinstance(benign, dict):
        (name, item), *others = benign.items()
        return {name: change(str(item)) if isinstance(item, str) else [change(item[0])], **dict(others)}
    return change(str(benign))


def replaced_key(benign, change):
    (name, item), *others = benign.items()
    return {change(str(name)): item, **dict(others)}


def written(keys):
    """A path as problems have it."""
    path = ""
    for key in keys:
        path = spec.join(path, key)
    return path


def refused(problems, path):
    return any(problem.path == path or problem.path.startswith((path + ".", path + "[")) for problem in problems)


def blamed(problems, paths):
    """The changed options that a problem of a combination is about, or around."""
    return {path for path in paths for problem in problems if refused([problem], path) or path.startswith(problem.path)}


def test_every_option_is_set_in_a_context():
    asked, given = set(), set()
    for context, (variables, _render) in CONTEXTS.items():
        for where, option, keys in leaves(options_of(context), variables):
            for mine, role in (("nginx", "nginx_sites"), ("certificate", "certbot_tls_certificates")):
                where = where.replace(f"fastapi_apps[].{mine}.", f"{role}[].")
            where = where.replace("fastapi_apps[].", "gunicorn_app_apps[].")
            if can_hold_text(option) and not is_raw(where) and where != apps.IGNORED:
                asked.add(where)
                if keys and get(variables, keys) not in ("", [], {}):
                    given.add(where)
    assert asked - given == set(), "give them benign values in this file"


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_benign_values_are_accepted(context):
    assert validate(context, CONTEXTS[context][0])[1] == []


@pytest.mark.parametrize("context", CONTEXTS)
def test_accepted_values_bring_no_directive_along(context):
    variables, render = CONTEXTS[context]
    expected = dict(render(validate(context, variables)[0]))
    options = [
        (where, keys) for where, _option, keys in leaves(options_of(context), variables) if keys and not is_raw(where)]
    accepted = {}
    for (kind, shown, change), part in itertools.product(HOSTILE, (replaced, replaced_key)):
        changes = {}
        for where, keys in options:
            benign = get(variables, keys)
            if benign not in ({}, [], "") and (part is replaced or isinstance(benign, dict)):
                with contextlib.suppress(TypeError):  # not text in a list
                    changes[written(keys)] = (where, keys, part(benign, change), f"{kind} {shown[:20]!r}")
        for path, item in surviving(context, variables, changes).items():
            accepted.setdefault(path, {})[str(item[2])] = item
    rounds = {}
    for path, items in accepted.items():
        for number, item in enumerate(random.Random(SEED).sample(list(items.values()), min(len(items), MOST))):
            rounds.setdefault((number, takes_variables(item)), {})[path] = item
    wrong = {}
    for changes in rounds.values():
        # What each option may have, they may not have together.
        left = surviving(context, variables, changes)
        for item, why in strange(context, render, variables, left, expected):
            wrong.setdefault(f"{item[0]} {why}", item[3])
    assert not wrong, f"FUZZ_SEED={SEED}\n" + "\n".join(f"{where}: {shown}" for where, shown in wrong.items())


def takes_variables(item):
    return item[0].endswith(VARIABLES)


def changed(variables, changes):
    result = copy.deepcopy(variables)
    for _where, keys, item, _shown in changes.values():
        put(result, keys, item)
    return result


def surviving(context, variables, changes):
    """The changes that validation lets through together."""
    _filled, problems = validate(context, changed(variables, changes))
    left = {path: change for path, change in changes.items() if not refused(problems, path)}
    while left:
        _filled, problems = validate(context, changed(variables, left))
        if not problems:
            break
        blame = blamed(problems, left) or set(left)
        left = {path: change for path, change in left.items() if path not in blame}
    return left


def strange(context, render, variables, changes, expected):
    """The options by which the rendered texts differ in their structure, and how; found by halves."""
    why = difference(render, validate(context, changed(variables, changes))[0], expected, changes)
    if not why:
        return
    if len(changes) == 1:
        yield next(iter(changes.values())), why
        return
    items = list(changes.items())
    middle = len(items) // 2
    for half in (items[:middle], items[middle:]):
        yield from strange(context, render, variables, dict(half), expected)


def difference(render, filled, expected, changes):
    try:
        found = dict(render(filled))
    except Exception as error:
        # Whatever a renderer or a parser does not take is what is looked for.
        return f"cannot be read: {type(error).__name__}: {str(error)[:120]}"
    if any(map(takes_variables, changes.values())):
        found, reference = ({path: plain(texts) for path, texts in each.items()} for each in (found, expected))
    else:
        reference = expected
    for path in reference:
        more, less = found.get(path, Counter()) - reference[path], reference[path] - found.get(path, Counter())
        if more or less:
            return f"in {path}: {str(list(more))[:150]} instead of {str(list(less))[:150]}"
    return ""


def plain(structure):
    return Counter({
        key: count for key, count in structure.items() if not isinstance(key, tuple) or key[0] != "variable"})


# -- what is raw ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sections", [
    {"Service": {"Nice": f"5{text}"}} for text in ("\nExecStartPre=/evil", "\rExecStartPre=/evil", "\0", " \\", "\\")
] + [
    {"Service": {name: "5"}} for name in ("Nice=1\nExecStartPre", "Nice=", "[X]", "#", "", " Nice", "A B")
] + [
    {f"Service{text}": {"Nice": 5}} for text in ("]\n[Evil", "\n", "]", " ")
])
def test_overrides_are_single_directives(sections):
    """What they mean is the owner's choice, but each is one directive in a section that is there."""
    app = copy.deepcopy(APP)
    app["service"]["overrides"] = sections
    assert validate("fastapi_apps", {"fastapi_apps": [app]})[1]
    units = [{"name": "a.service", "sections": {"Service": {"ExecStart": "/bin/true"}, **sections}}]
    assert validate("systemd_service", {"systemd_service_units": units})[1]
    with pytest.raises(ValueError, match=r"one line|is not the name"):
        systemd.render(sections)


def test_data_stays_data():
    text = "a: [\n- b\0c\r'\"{{ x }}"
    given = {**MONITORING, "monitoring_prometheus_settings": {"global": {"external_labels": {"a": text}}}}
    plugin = templar("monitoring", {**given, "__monitoring_program": {"digest": "digest", "paths": []}})
    content = evaluate(plugin, "lookup('ansible.builtin.template', 'prometheus.yml.j2')")
    assert yaml.safe_load(content)["global"]["external_labels"] == {"a": text}
