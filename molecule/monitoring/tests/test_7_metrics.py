"""What Prometheus can read: numbers that are those of the requests sent, over a release and over restarts too."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter

import pytest

EXPORTERS = {"app": 9102, "edge": 4040, "node": 9100, "nginx": 9113}
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
SITE = "https://shop.example.com"
CURL = "curl -sSk --resolve shop.example.com:443:127.0.0.1"
RELEASE = """
- hosts: all
  become: true
  gather_facts: false
  vars:
    gunicorn_app_apps: "{{ fastapi_apps | daoman.fastapi.gunicorn_apps }}"
    gunicorn_app_manage_packages: false
  roles:
    - daoman.fastapi.gunicorn_app
"""


class Metrics:
    def __init__(self, host):
        self.host = host

    def address(self, port: int) -> str:
        (found,) = self.host.check_output("ss -H -t -l -n 'sport = :%d' | awk '{print $4}'" % port).split()
        return found

    def text(self, job: str) -> str:
        return self.host.check_output("curl -sS --fail --max-time 10 http://%s/metrics", self.address(EXPORTERS[job]))

    def samples(self, job: str) -> list[tuple[str, dict[str, str], float]]:
        found = (SAMPLE.match(line) for line in self.text(job).splitlines() if not line.startswith("#"))
        return [
            (name, dict(LABEL.findall(labels or "")), float(value))
            for name, labels, value in (m.groups() for m in found)
        ]

    def sums(self, job: str, name: str, by: str, **only: str) -> Counter:
        found: Counter = Counter()
        for sample, labels, value in self.samples(job):
            if sample == name and only.items() <= labels.items():
                found[labels.get(by, "")] += round(value)
        return found

    def by_status(self) -> dict[str, Counter]:
        """Requests by status, as the app and as nginx see them, once both have told what they have."""
        time.sleep(3)
        return {
            "app": self.sums("app", "fastapi_http_requests_total", "status", app="shop"),
            "edge": self.sums("edge", "nginx_http_requests_total", "status", site="shop"),
        }

    def ask(self, path: str, count: int) -> Counter:
        """GETs through nginx, one after the other on one connection: the statuses that came."""
        command = f"{CURL} -o /dev/null -w '%{{http_code}}\\n' '{SITE}{path}[1-{count}]'"
        return Counter(self.host.run(command).stdout.split())


@pytest.fixture
def metrics(host) -> Metrics:
    return Metrics(host)


def increase(before: Counter, after: Counter) -> dict[str, int]:
    return {key: after[key] - before[key] for key in after if after[key] != before[key]}


def test_scraped_counters_are_the_requests_sent(metrics):
    """At the app and at the edge alike, by status."""
    before = metrics.by_status()
    sent = metrics.ask("/health/ready?", 60) + metrics.ask("/fail?", 20) + metrics.ask("/nothing/", 15)
    after = metrics.by_status()
    assert sent == {"200": 60, "500": 20, "404": 15}
    assert {side: increase(before[side], after[side]) for side in after} == {"app": sent, "edge": sent}


def test_what_nginx_answers_by_itself_is_at_the_edge_only(metrics):
    before = metrics.by_status()
    metrics.ask("/.git/config?", 3)
    after = metrics.by_status()
    assert increase(before["edge"], after["edge"]) == {"404": 3}
    assert increase(before["app"], after["app"]) == {}


@pytest.mark.either_host
def test_durations_are_counted_with_the_requests(metrics):
    metrics.ask("/slow?", 1)
    time.sleep(3)
    for job, name, only in (
        ("app", "fastapi_http_request_duration_seconds", {"app": "shop"}),
        ("edge", "nginx_http_request_duration_seconds", {"site": "shop"}),
        ("edge", "nginx_upstream_duration_seconds", {"site": "shop"}),
    ):
        buckets = metrics.sums(job, name + "_bucket", "le", **only)
        count = sum(metrics.sums(job, name + "_count", "", **only).values())
        assert buckets["+Inf"] == count > 0, name
        # The answer took 2.2 s.
        assert buckets["2.5"] > buckets["1.0"], name
    requests = sum(metrics.sums("app", "fastapi_http_requests_total", "", app="shop").values())
    assert requests == sum(metrics.sums("app", "fastapi_http_request_duration_seconds_count", "", app="shop").values())


def test_workers_are_known_by_their_state(metrics):
    time.sleep(6)  # those that are gone are not known any more
    assert metrics.sums("app", "fastapi_workers", "state", app="shop") == {"serving": 2, "draining": 0, "starting": 0}
    assert metrics.sums("app", "fastapi_http_requests_in_flight", "app") == {"shop": 0}


@pytest.mark.either_host
def test_a_worker_that_is_killed_is_counted_and_another_takes_its_place(metrics):
    def exits():
        return metrics.sums("app", "fastapi_worker_exits_total", "reason", app="shop")

    before = exits()
    metrics.ask("/crash?", 1)
    metrics.host.run("pkill -KILL -u shop -n -f gunicorn")
    time.sleep(3)
    assert set(increase(before, exits())) == {"killed"}
    test_workers_are_known_by_their_state(metrics)


@pytest.mark.either_host
def test_no_request_is_lost_while_the_exporters_restart(metrics):
    before = metrics.by_status()
    restarting = (
        "rm -f /run/restarted; "
        "(for n in 1 2 3 4 5 6; do systemctl restart fastapi-apps-exporter fastapi-edge-exporter; sleep 0.3; done; "
        "touch /run/restarted) >/run/restarts 2>&1 &"
    )
    metrics.host.check_output("bash -c %s", restarting)
    sent = Counter()
    for _ in range(6):
        sent += metrics.ask("/health/ready?", 100)
        time.sleep(0.5)
    metrics.host.check_output("timeout 60 bash -c %s", "until [ -e /run/restarted ]; do sleep 0.2; done")
    after = metrics.by_status()
    assert sent == {"200": 600}
    assert {side: increase(before[side], after[side]) for side in after} == {"app": sent, "edge": sent}


@pytest.mark.either_host
def test_no_request_is_lost_or_slowed_without_the_exporter(metrics):
    before = metrics.by_status()
    units = "fastapi-apps-exporter.socket fastapi-apps-exporter.service"
    metrics.host.check_output(f"systemctl stop {units}")
    try:
        sent = metrics.ask("/health/ready?", 100)
        time.sleep(2)
        sent += metrics.ask("/health/ready?", 100)
    finally:
        metrics.host.check_output(f"systemctl start {units}")
    after = metrics.by_status()
    assert sent == {"200": 200}
    assert increase(before["app"], after["app"]) == sent


@pytest.mark.either_host
def test_a_rotation_of_logs_loses_no_request(metrics):
    before = metrics.by_status()["edge"]
    metrics.host.check_output(
        "bash -c %s",
        "(sleep 0.3; logrotate --force /etc/logrotate.d/nginx; sleep 0.3; "
        "logrotate --force /etc/logrotate.d/nginx) >/run/rotations 2>&1 &",
    )
    sent = Counter()
    for _ in range(4):
        sent += metrics.ask("/health/ready?", 100)
        time.sleep(0.3)
    assert increase(before, metrics.by_status()["edge"]) == sent == {"200": 400}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A release of the app on all hosts, under requests. By host: what was sent, and the counters before and after."""
    import testinfra

    directory = tmp_path_factory.mktemp("release")
    play = directory / "play.yml"
    play.write_text(RELEASE, encoding="utf-8")
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    hosts = testinfra.get_hosts(["ansible://all"], ansible_inventory=inventory)
    ask = f"{CURL} -o /dev/null -w '%{{http_code}}\\n' '{SITE}/log?[1-50]'"
    load = f"while [ ! -e /run/enough ]; do {ask}; done"
    result = {}
    for host in hosts:
        seen = Metrics(host)
        result[host.backend.hostname] = {
            "before": seen.by_status(),
            "exits": seen.sums("app", "fastapi_worker_exits_total", "reason"),
        }
        host.check_output("bash -c %s", f"rm -f /run/enough; ({load}) >/run/answers 2>&1 &")
    with_more = {"gunicorn_app_reason": "for its metrics"}
    apps = subprocess.run(
        [
            "ansible-playbook",
            "-i",
            inventory,
            "-e",
            json.dumps(with_more),
            "-e",
            json.dumps({"fastapi_apps": changed(inventory)}),
            str(play),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )
    for host in hosts:
        host.check_output("touch /run/enough")
    assert apps.returncode == 0, apps.stdout + apps.stderr
    time.sleep(2)
    for host in hosts:
        seen = Metrics(host)
        result[host.backend.hostname] |= {
            "sent": Counter(host.check_output("cat /run/answers").split()),
            "after": seen.by_status(),
            "exits after": seen.sums("app", "fastapi_worker_exits_total", "reason"),
            "app": seen.samples("app"),
            "edge": seen.samples("edge"),
        }
    return result


def changed(inventory: str) -> list[dict]:
    """The apps of the scenario, with something changed."""
    told = subprocess.run(
        ["ansible-inventory", "-i", inventory, "--list"], capture_output=True, text=True, check=True, env=os.environ
    )
    variables = next(iter(json.loads(told.stdout)["_meta"]["hostvars"].values()))
    (app,) = variables["fastapi_apps"]
    app["source"] = os.path.join(os.environ["MOLECULE_SCENARIO_DIRECTORY"], "files/app")
    return [{**app, "env": {**app["env"], "CHANGED": str(time.time())}}]


def test_counters_are_the_requests_sent_over_a_release(host, released):
    seen = released[host.backend.hostname]
    assert set(seen["sent"]) == {"200"} and seen["sent"]["200"] > 500
    assert increase(seen["before"]["edge"], seen["after"]["edge"]) == seen["sent"]
    app = increase(seen["before"]["app"], seen["after"]["app"])
    # The deploy asks for readiness on the release's own socket, past nginx.
    own = app["200"] - seen["sent"]["200"]
    assert set(app) <= {"200", "503"} and 1 <= own <= 20


def test_a_release_is_told_with_its_outcome(host, released):
    seen = released[host.backend.hostname]
    live = os.path.basename(host.check_output("readlink /srv/shop/live.sock")).removesuffix(".sock")
    (info,) = [labels for name, labels, _value in seen["edge"] if name == "fastapi_release_info"]
    assert (info["app"], info["release"], info["version"]) == ("shop", live, "HEAD")
    deploys = {
        (labels["action"], labels["outcome"]): value
        for name, labels, value in seen["edge"]
        if name == "fastapi_deploys_total"
    }
    lines = [json.loads(line) for line in host.check_output("cat /srv/shop/history.jsonl").splitlines()]
    assert (
        deploys["deploy", "good"]
        == sum(line["action"] == "deploy" and line["outcome"] == "good" for line in lines)
        >= 2
    )
    ends = increase(seen["exits"], seen["exits after"])
    assert set(ends) <= {"stopped", "recycled"} and sum(ends.values()) >= 2


def test_certificates_are_those_that_are_served(metrics):
    values = {
        name: value
        for name, labels, value in metrics.samples("edge")
        if name.startswith("fastapi_certificate_") and labels.get("name") == "shop"
    }
    served = metrics.host.check_output(
        "echo | openssl s_client -connect 127.0.0.1:443 -servername shop.example.com 2>/dev/null "
        "| openssl x509 -noout -enddate | cut -d= -f2 | date -u -f - +%s"
    )
    assert values["fastapi_certificate_served"] == 1
    assert values["fastapi_certificate_expiry_timestamp_seconds"] == float(served)
    assert values["fastapi_certificate_self_signed"] == 1


def test_the_host_nginx_and_the_units_of_the_stack_are_told_of(metrics):
    assert any(name == "nginx_connections_active" for name, _labels, _value in metrics.samples("nginx"))
    node = metrics.samples("node")
    units = {
        labels["name"]: value
        for name, labels, value in node
        if name == "node_systemd_unit_state" and labels["state"] == "active"
    }
    (app,) = [name for name, active in units.items() if re.match(r"shop@.*\.service$", name) and active]
    assert units["nginx.service"] == units["fastapi-resources.service"] == units["fastapi-edge-exporter.service"] == 1
    assert "dbus.service" not in units and "systemd-journald.service" not in units, app
    names = {name for name, _labels, _value in node}
    assert {"node_memory_MemAvailable_bytes", "node_filesystem_avail_bytes", "fastapi_resource_value"} <= names
    assert [value for name, _labels, value in node if name == "node_textfile_scrape_error"] == [0]
    # Its own view of the file systems would be a sandbox's.
    assert {
        value for name, labels, value in node if name == "node_filesystem_readonly" and labels["mountpoint"] == "/tmp"
    } <= {0}


def test_nothing_listens_publicly(metrics):
    for port in EXPORTERS.values():
        address = metrics.address(port).rsplit(":", 1)[0]
        assert address == "127.0.0.1" or re.match(r"(10\.|172\.(1[6-9]|2\d|3[01])\.|192\.168\.)", address), (
            port,
            address,
        )


def test_metrics_hold_no_secret_and_nothing_that_clients_made_up(metrics):
    metrics.ask("/s33d-in-a-path/s33d?token=s33d", 2)
    metrics.ask("/log?token=s33d", 2)
    # Like a word, and never answered well.
    metrics.ask("/guessed-by-someone/", 2)
    metrics.host.run(
        CURL + " -X S33D -A s33d -e https://s33d/ -H 'X-Request-ID: s33d-id-of-it' %s",
        f"{SITE}/5eed00dead00beef00",
    )
    time.sleep(3)
    text = "".join(metrics.text(job) for job in EXPORTERS).lower()
    assert "s33d" not in text and "5eed00dead" not in text and "guessed" not in text
    assert "postgresql" not in text


def test_own_metrics_of_an_app_are_one_line(metrics):
    script = (
        "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
        ".sendto(b'orders_total:2|c|#app:shop,plan:pro', '/run/fastapi-metrics/statsd.sock')"
    )
    before = metrics.sums("app", "orders_total", "plan")["pro"]
    metrics.host.check_output("runuser -u shop -- python3 -c %s", script)
    time.sleep(1)
    assert metrics.sums("app", "orders_total", "plan") == {"pro": before + 2}


@pytest.mark.parametrize(
    "unit", ["prometheus-node-exporter", "prometheus-nginx-exporter", "fastapi-apps-exporter", "fastapi-edge-exporter"]
)
def test_exporters_run_at_boot_and_have_little_to_do_harm_with(host, unit):
    assert host.service(unit).is_running and host.service(unit).is_enabled
    pid = host.check_output("systemctl show --value --property MainPID %s", unit)
    assert host.check_output("ps -o user= -p %s", pid).strip() != "root"
    status = host.check_output("cat /proc/%s/status", pid)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
