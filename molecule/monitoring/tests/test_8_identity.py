"""Who may speak for whom, with a hostile app `alpha` beside `shop`: metrics, alerts, Prometheus, the journal."""

from __future__ import annotations

import json
import os
import re
import time

import pytest
import testinfra
from test_7_metrics import EXPORTERS, Metrics

ALERTMANAGER = "http://127.0.0.1:9093/alertmanager/api/v2"
PROMETHEUS = "http://127.0.0.1:9090/prometheus"
SILENCE = {
    "matchers": [{"name": "alertname", "value": ".+", "isRegex": True}],
    "startsAt": "2026-01-01T00:00:00Z",
    "endsAt": "2099-01-01T00:00:00Z",
    "createdBy": "alpha",
    "comment": "nothing to see",
}
# curl's code for a connection that is refused, at once.
REFUSED = 7
SEND = """
import socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for part in eval(sys.argv[1]):
    sender.sendto(part.encode(), "/run/fastapi-metrics/statsd.sock")
"""


class Host(Metrics):
    def as_app(self, *command: str, properties: str = "", app: str = "alpha"):
        """Runs a command as an app's unit does, in a user namespace of its own."""
        unit = f"systemd-run --quiet --wait --pipe --collect -p User={app} -p PrivateUsers=yes -p NoNewPrivileges=yes"
        return self.host.run(f"{unit} {properties} " + " ".join(["%s"] * len(command)), *command)

    def curl(self, *arguments: str, user: str = "alpha"):
        return self.host.run(
            f"runuser -u {user} -- curl -sS --max-time 5 " + " ".join(["%s"] * len(arguments)), *arguments
        )

    def send(self, parts: str, app: str = "alpha"):
        done = self.as_app("/usr/bin/python3", "-c", SEND, parts, app=app)
        assert done.rc == 0, done.stderr

    def refused(self, app: str = "alpha") -> dict[str, int]:
        found = self.sums("app", "fastapi_exporter_lines_total", "reason", app=app)
        return {reason: count for reason, count in found.items() if reason and count}

    def until(self, what, why: str):
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            found = what()
            if found:
                return found
            time.sleep(0.2)
        raise AssertionError(why)


@pytest.fixture
def seen(host):
    return Host(host)


@pytest.fixture(scope="module", autouse=True)
def alpha():
    """An account as the role gunicorn_app makes it."""
    hosts = testinfra.get_hosts(["ansible://all"], ansible_inventory=os.environ["MOLECULE_INVENTORY_FILE"])
    make = "useradd --system --comment 'FastAPI app' --home-dir /nonexistent --shell /usr/sbin/nologin alpha"
    for host in hosts:
        host.check_output(f"id -u alpha || {make}")
    yield
    for host in hosts:
        host.run("systemctl stop nftables; ufw --force disable; userdel alpha")


# -- local services ---------------------------------------------------------------------------------------------------


def silences(seen) -> int:
    return len(json.loads(seen.curl(f"{ALERTMANAGER}/silences", user="root").stdout))


def test_an_app_does_not_silence_alerts_and_posts_none(seen):
    before = silences(seen)
    alert = [{"labels": {"alertname": "Forged", "severity": "critical"}}]
    for path, content in (("silences", SILENCE), ("alerts", alert)):
        request = ["-H", "Content-Type: application/json", "-d", json.dumps(content), f"{ALERTMANAGER}/{path}"]
        done = seen.curl(*request)
        assert done.rc == REFUSED, done.stdout + done.stderr
        assert seen.as_app("/usr/bin/curl", "-sS", "--max-time", "5", *request).rc == REFUSED
    assert silences(seen) == before
    assert "Forged" not in seen.curl(f"{ALERTMANAGER}/alerts", user="root").stdout


@pytest.mark.parametrize("path", ["/api/v1/status/config", "/api/v1/query?query=up", "/-/reload"])
def test_an_app_does_not_read_prometheus(seen, path):
    assert seen.curl(PROMETHEUS + path).rc == REFUSED
    assert seen.curl(PROMETHEUS + "/api/v1/status/config", user="prometheus").rc == 0


def addresses(seen) -> list[str]:
    """Of all local services, by each address of the host that they listen on."""
    listed = [seen.address(port) for port in (*EXPORTERS.values(), 8099, 9090, 9093)]
    own = seen.host.check_output("hostname -I").split()[0]
    return [*listed, *(f"{own}:{EXPORTERS[job]}" for job in EXPORTERS)]


def reached(seen, user: str) -> dict[str, bool]:
    done = {address: seen.curl("-o", "/dev/null", f"http://{address}/", user=user) for address in addresses(seen)}
    assert all(item.rc in (0, REFUSED) for item in done.values()), done
    return {address: item.rc == 0 for address, item in done.items()}


def test_local_services_answer_root_nginx_and_each_other_only(seen):
    for user in ("root", "www-data", "prometheus"):
        assert all(reached(seen, user).values()), user
    for user in ("alpha", "shop", "nobody", "daemon"):
        assert not any(reached(seen, user).values()), user


def test_what_visitors_reach_is_left_alone(seen):
    done = seen.curl("-k", "--resolve", "shop.example.com:443:127.0.0.1", "https://shop.example.com/health/ready")
    assert "ready" in done.stdout


@pytest.mark.parametrize(
    "removal",
    [
        "systemctl start nftables && systemctl reload nftables",
        "systemctl restart nftables",
        "systemctl stop nftables",
        "nft flush ruleset",
        "nft delete table inet fastapi_local",
        "nft flush chain inet fastapi_local output",
        "ufw --force enable",
        "ufw reload",
        "ufw --force disable",
        "systemctl restart fastapi-local",
        "systemctl kill --signal KILL fastapi-local",
        "systemctl stop fastapi-local",
    ],
)
def test_the_rules_outlive_what_removes_them(seen, removal):
    assert seen.curl(f"{PROMETHEUS}/-/ready").rc == REFUSED
    try:
        seen.host.check_output(removal)
        seen.until(lambda: seen.curl(f"{PROMETHEUS}/-/ready").rc == REFUSED, seen.host.run("nft list ruleset").stdout)
        assert seen.curl(f"{PROMETHEUS}/-/ready", user="root").rc == 0
    finally:
        seen.host.run("systemctl start fastapi-local")


def test_the_rules_are_there_before_what_they_protect_also_after_a_reboot(host):
    assert host.service("fastapi-local").is_enabled
    before = host.check_output("systemctl show --property Before --value fastapi-local").split()
    units = ["fastapi-apps-exporter", "fastapi-edge-exporter", "prometheus", "prometheus-alertmanager"]
    units += ["prometheus-node-exporter", "prometheus-nginx-exporter"]
    assert {f"{unit}.service" for unit in units} <= set(before)


def test_the_keeper_of_the_rules_may_do_little_else(host):
    pid = host.check_output("systemctl show --value --property MainPID fastapi-local")
    assert host.check_output("ps -o user= -p %s", pid).strip() != "root"
    status = host.check_output("cat /proc/%s/status", pid)
    # CAP_NET_ADMIN
    assert re.search(r"^CapEff:\s+0*1000$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_an_app_forges_no_metric_of_another_or_of_the_stack(seen):
    before = seen.by_status()["app"]
    lines = [
        "fastapi_http_requests_total:5000|c|#app:shop,method:GET,route:/,status:500",
        "fastapi_worker_exits_total:50|c|#app:shop,reason:oom",
        "up:0|g",
        "fastapi_certificate_served:0|g|#name:shop",
        "node_filesystem_avail_bytes:0|g|#mountpoint:/",
        "orders_total:2|c|#plan:forged",
    ]
    told, refused = seen.sums("app", "orders_total", "app", plan="forged")["alpha"], seen.refused()
    seen.send(repr([*lines, "\n".join(lines)]))
    seen.until(lambda: seen.sums("app", "orders_total", "app", plan="forged") == {"alpha": told + 4}, "not counted")
    new = {reason: count - refused.get(reason, 0) for reason, count in seen.refused().items()}
    assert {reason: count for reason, count in new.items() if count} == {"app": 4, "reserved": 6}
    assert seen.by_status()["app"] == before
    names = {name for name, labels, _value in seen.samples("app") if labels.get("app") == "alpha"}
    assert not names & {"fastapi_http_requests_total", "fastapi_worker_exits_total", "node_filesystem_avail_bytes"}
    assert "up" not in {name for name, _labels, _value in seen.samples("app")}


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_who_is_no_app_is_not_heard(seen, user):
    before = seen.refused("").get("sender", 0)
    seen.host.check_output(f"runuser -u {user} -- /usr/bin/python3 -c %s %s", SEND, "['a_total:1|c|#app:shop']")
    seen.until(lambda: seen.refused("").get("sender", 0) == before + 1, "not refused")
    assert not seen.sums("app", "a_total", "app")


def test_a_flood_of_names_is_bounded_and_costs_no_other_app_its_metrics(seen):
    """Over a restart of the exporter, too."""
    flood = "['\\n'.join(f'flood:1|c|#id:{part * 100 + n}' for n in range(100)) for part in range(200)]"
    before = sum(seen.refused().values())
    seen.send(flood)
    seen.until(lambda: sum(seen.refused().values()) - before >= 20000 - 10000, "not refused")
    assert {"series"} <= set(seen.refused()) <= {"app", "reserved", "series", "rate"}
    for restart in ("true", "systemctl restart fastapi-apps-exporter"):
        seen.host.check_output(restart)
        line = f"fastapi_http_requests_total:1|c|#app:shop,method:GET,route:/new-{len(restart)},status:200"
        seen.send(repr([line, f"bought_total:1|c|#item:{len(restart)}"]), app="shop")
        for name, only in (
            ("fastapi_http_requests_total", {"route": f"/new-{len(restart)}", "status": "200"}),
            ("bought_total", {"item": str(len(restart))}),
        ):
            seen.until(lambda name=name, only=only: seen.sums("app", name, "app", **only) == {"shop": 1}, f"no {only}")
        shown = sum(name == "flood" for name, _labels, _value in seen.samples("app"))
        assert 0 < shown <= 10000
        assert seen.sums("app", "fastapi_exporter_series", "app")["alpha"] <= 10000
    used = int(seen.host.check_output("systemctl show --value --property MemoryCurrent fastapi-apps-exporter"))
    assert used < 200 << 20


def test_prometheus_learns_what_is_refused(seen):
    def told():
        query = 'query=increase(fastapi_exporter_lines_total{app="alpha",result="refused"}[15m]) > 0'
        done = seen.curl("--get", "--data-urlencode", query, f"{PROMETHEUS}/api/v1/query", user="root")
        return {item["metric"]["reason"] for item in json.loads(done.stdout)["data"]["result"]}

    seen.send("['flood:1|c|#id:again', 'a:1|c|#app:shop']")
    seen.until(lambda: {"series", "app"} <= told(), "Prometheus has not seen it")


# -- the journal ------------------------------------------------------------------------------------------------------

FORGE = """
import socket, sys, syslog
nl = chr(10)
sys.stdout.write("<0>told by its output" + nl)
sys.stdout.flush()
for path, kind, text in (
    ("/run/systemd/journal/socket", socket.SOCK_DGRAM, "MESSAGE=forged-it" + nl + "SYSLOG_IDENTIFIER=sshd" + nl),
    ("/run/systemd/journal/dev-log", socket.SOCK_DGRAM, "<38>sshd[1]: forged-it"),
    ("/dev/log", socket.SOCK_DGRAM, "<38>sshd[1]: forged-it"),
    ("/run/systemd/journal/stdout", socket.SOCK_STREAM, nl.join(["sshd", "", *"60000", "forged-it", ""])),
):
    sender = socket.socket(socket.AF_UNIX, kind)
    try:
        sender.connect(path)
        sender.sendall(text.encode())
    except OSError as error:
        print(path, type(error).__name__)
syslog.syslog("forged-it")
for number in range(20000):
    print("flood", number)
"""
# What the unit of an app says about its logging.
LOGGING = "InaccessiblePaths|LogRateLimitIntervalSec|LogRateLimitBurst|SyslogLevelPrefix"


@pytest.fixture
def logged(seen):
    """The entries that a hostile app, with the directives of the unit of the real one, leaves in the journal."""
    unit = seen.host.check_output("systemctl list-units --plain --no-legend 'shop@*.service' | head -1").split()[0]
    found = re.findall(rf"^((?:{LOGGING})=.*)$", seen.host.check_output(f"systemctl cat {unit}"), re.MULTILINE)
    assert {line.partition("=")[0] for line in found} == set(LOGGING.split("|")), found
    options = " ".join(f"-p {directive}" for directive in found)
    name = f"alpha-{time.monotonic_ns()}"
    seen.host.check_output(
        f"systemd-run --quiet --wait --unit {name} -p User=alpha -p PrivateDevices=yes -p PrivateUsers=yes {options} "
        "/usr/bin/python3 -c %s",
        FORGE,
    )
    seen.host.check_output("journalctl --sync")
    text = seen.host.check_output(f"journalctl --no-pager --output json --unit {name}")
    entries = [json.loads(line) for line in text.splitlines()]
    # Without what systemd itself says of the unit.
    return [entry for entry in entries if entry["_PID"] != "1"]


def test_an_app_logs_by_its_output_alone_and_under_its_own_name(seen, logged):
    messages = [entry["MESSAGE"] for entry in logged]
    assert "<0>told by its output" in messages and "/dev/log PermissionError" in messages
    assert len([message for message in messages if message.endswith("Error")]) == 4, messages[:10]
    forged = seen.host.run("journalctl --no-pager --output cat --since -5min --identifier sshd").stdout
    assert "forged-it" not in forged + "".join(messages)
    assert {entry["PRIORITY"] for entry in logged if "told by" in entry["MESSAGE"]} == {"6"}


def test_a_flood_of_lines_is_bounded(logged):
    kept = sum(entry["MESSAGE"].startswith("flood") for entry in logged)
    assert 1000 <= kept <= 10000


def test_a_line_of_the_journal_has_a_bound(host):
    script = "import sys; sys.stdout.write('x' * 100000 + chr(10))"
    name = f"long-{time.monotonic_ns()}"
    host.check_output(f"systemd-run --quiet --wait --unit {name} /usr/bin/python3 -c %s", script)
    host.check_output("journalctl --sync")
    found = host.check_output(f"journalctl --no-pager --output json --all --unit {name}").splitlines()
    lengths = [len(json.loads(line)["MESSAGE"]) for line in found if "xxx" in line]
    assert lengths and max(lengths) <= 16 << 10 and sum(lengths) == 100000
