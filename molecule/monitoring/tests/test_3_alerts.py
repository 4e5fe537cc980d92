"""Prometheus asks the hosts of the inventory, and Alertmanager tells of real faults, and of their end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import alert_tests
import dashboards
import pytest
import testinfra
from conftest import SEED

PROMETHEUS = "http://127.0.0.1:9090/prometheus"
ALERTMANAGER = "http://127.0.0.1:9093/alertmanager"
CONFIG = "/etc/prometheus/fastapi"
PLAY = """
- hosts: all
  gather_facts: false
  vars:
    monitoring_prometheus: true
    monitoring_targets: "{{ groups['fastapi_app']
      | daoman.fastapi.monitoring_targets(hostvars, inventory_hostname, groups['fastapi_monitoring']) }}"
  tasks:
    - ansible.builtin.import_role: {name: daoman.fastapi.monitoring, tasks_from: validate}
    - ansible.builtin.import_role: {name: daoman.fastapi.monitoring, tasks_from: before_packages}
    - ansible.builtin.import_role: {name: daoman.fastapi.monitoring, tasks_from: prometheus}
    - ansible.builtin.import_role: {name: daoman.fastapi.monitoring, tasks_from: alertmanager}
"""


def query(host, expression: str) -> list[dict]:
    done = host.run("curl -sS --get --data-urlencode query=%s " + PROMETHEUS + "/api/v1/query", expression)
    answer = json.loads(done.stdout)
    assert answer["status"] == "success", (expression, answer)
    return answer["data"]["result"]


def until(what, seconds: float, why: str):
    """What a function returns once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(why() if callable(why) else why)


def received(host, kind: str) -> list[dict]:
    text = host.run("cat /run/received.jsonl").stdout
    return [item for item in map(json.loads, text.splitlines()) if item["kind"] == kind]


def told(host, alertname: str, status: str, **labels) -> list[dict]:
    """The alerts of that name and status that the webhook got."""
    return [
        alert
        for message in received(host, "alerts")
        for alert in message["body"]["alerts"]
        if alert["status"] == status and {"alertname": alertname, **labels}.items() <= alert["labels"].items()
    ]


@pytest.fixture(scope="module")
def hosts():
    return testinfra.get_hosts(["ansible://all"], ansible_inventory=os.environ["MOLECULE_INVENTORY_FILE"])


@pytest.fixture(scope="module")
def everywhere(hosts):
    """Runs a story on all hosts side by side: most of it is waiting."""

    def run(story) -> None:
        for host in hosts:
            host.run("truncate --size 0 /run/received.jsonl")
        with ThreadPoolExecutor() as pool:
            list(pool.map(story, hosts))

    return run


# -- targets and configuration ----------------------------------------------------------------------------------------


def test_every_exporter_of_the_inventory_answers(host, hosts):
    wanted = {(item.backend.hostname, job) for item in hosts for job in ("node", "app", "edge", "nginx")}
    wanted |= {(host.backend.hostname, job) for job in ("prometheus", "alertmanager")}
    answering = {(item["metric"]["instance"], item["metric"]["job"]) for item in query(host, "up == 1")}
    assert wanted <= answering, query(host, "up == 0")


def test_nothing_listens_publicly(host):
    listening = re.findall(r"(\S+):(909[0-9]|3000)\b", host.check_output("ss -Hlntu"))
    assert sorted(listening) == [("127.0.0.1", "9090"), ("127.0.0.1", "9093")]


def test_the_tools_agree_with_what_is_installed(host):
    host.check_output(f"promtool check config {CONFIG}/prometheus.yml")
    host.check_output("amtool check-config /etc/prometheus/fastapi-alertmanager/alertmanager.yml")


def test_every_alert_fires_when_it_should_and_only_then(everywhere, tmp_path):
    alert_tests.write(tmp_path / "alerts")

    def story(host):
        folder = "/root/alerts"
        host.run(f"rm -rf {folder}")
        copy = ["docker", "cp", str(tmp_path / "alerts"), f"{host.backend.hostname}:{folder}"]
        subprocess.run(copy, check=True, capture_output=True)
        done = host.run(f"cd {folder} && promtool test rules *.test.yml")
        assert done.rc == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert done.stdout.count("SUCCESS") >= len(alert_tests.CASES)

    everywhere(story)


@pytest.mark.parametrize("unit", ["prometheus", "prometheus-alertmanager"])
def test_the_service_keeps_its_sandbox(host, unit):
    shown = host.check_output(
        f"systemctl show -p NoNewPrivileges,PrivateUsers,ProtectSystem,MemoryDenyWriteExecute,User {unit}"
    )
    assert set(shown.split()) == {
        "NoNewPrivileges=yes",
        "PrivateUsers=yes",
        "ProtectSystem=full",
        "MemoryDenyWriteExecute=yes",
        "User=prometheus",
    }


def test_readings_are_kept_as_long_as_they_should(host):
    flags = json.loads(host.check_output(f"curl -sS {PROMETHEUS}/api/v1/status/flags"))["data"]
    assert flags["storage.tsdb.retention.time"] == "30d"
    assert flags["storage.tsdb.retention.size"] in {"10GB", "10GiB"}
    assert flags["web.enable-admin-api"] == "false"


def test_rules_and_settings_of_the_user_are_in_force(host):
    assert query(host, "shop:targets:count")
    assert query(host, 'up{job="shop"} == 1')


def test_secrets_are_in_no_file_that_others_can_read(host):
    leaked = host.run(f"grep -rl {SEED} /etc/prometheus /etc/fastapi/alertmanager /etc/systemd").stdout.split()
    assert leaked
    for path in leaked:
        file = host.file(path)
        assert (file.user, file.mode & 0o007) == ("root", 0), path
    assert not [path for path in leaked if "fastapi-alertmanager" in path or "systemd" in path], leaked
    for unit in ("prometheus", "prometheus-alertmanager"):
        assert SEED not in host.check_output(f"journalctl --no-pager --unit {unit}"), unit


# -- a real fault -----------------------------------------------------------------------------------------------------


def test_a_fault_is_told_everywhere_and_taken_back(everywhere):
    def story(host):
        name = host.backend.hostname
        host.check_output("systemctl stop prometheus-node-exporter")
        try:
            (fired, *_) = until(
                lambda: told(host, "TargetDown", "firing", instance=name, job="node"), 20, "nothing came"
            )
            assert fired["annotations"]["summary"] == f"{name} does not answer (node)"
            assert fired["annotations"]["runbook_url"].endswith("docs/alerts.md#targetdown")
        finally:
            host.check_output("systemctl start prometheus-node-exporter")
        until(lambda: told(host, "TargetDown", "resolved", instance=name, job="node"), 20, "the end was not told")
        message = received(host, "alerts")[-1]
        assert message["authorization"] == "Bearer s33d-of-the-alerts"
        over = f"over: *{name} does not answer (node)*"
        until(lambda: over in json.dumps(received(host, "s33d-of-slack-for-alerts")), 15, "Slack was not told")
        until(lambda: "TargetDown" in json.dumps(received(host, "alert-mail")), 15, "no mail came")
        assert "<error" not in json.dumps(received(host, "alerts"))

    everywhere(story)


def test_a_unit_that_fails_is_told_with_the_labels_that_were_asked_for(everywhere):
    def story(host):
        host.check_output("mkdir -p /run/systemd/system")
        host.run(
            "printf '[Service]\\nType=oneshot\\nExecStart=/bin/false\\n' >/run/systemd/system/fastapi-broken.service"
        )
        host.run("systemctl daemon-reload; systemctl start fastapi-broken")
        try:
            until(
                lambda: told(host, "UnitFailed", "firing", name="fastapi-broken.service", team="shop"),
                20,
                lambda: str(query(host, 'node_systemd_unit_state{state="failed"} == 1')),
            )
        finally:
            host.run("systemctl reset-failed fastapi-broken; rm /run/systemd/system/fastapi-broken.service")
        until(lambda: told(host, "UnitFailed", "resolved", name="fastapi-broken.service"), 20, "the end was not told")

    everywhere(story)


def test_the_dead_mans_switch_hears_of_it_again_and_again(host):
    before = len(received(host, "watchdog"))
    until(lambda: len(received(host, "watchdog")) >= before + 2, 15, "it came once, or never")
    assert not told(host, "Watchdog", "firing"), "people were told as well"


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy(hosts):
    """Traffic of all kinds, and a worker that ended, so that there is something to be seen."""
    curl = "curl -sSk -o /dev/null --resolve shop.example.com:443:127.0.0.1 https://shop.example.com"
    for host in hosts:
        host.run("pkill --oldest --signal KILL --uid shop --full gunicorn.*worker || true")
    for _ in range(4):
        for host in hosts:
            host.run(f"for i in 1 2 3 4 5; do {curl}/health/ready; {curl}/none; done")
        time.sleep(1)


@pytest.mark.parametrize("name", [item["name"] for item in dashboards.load()])
def test_every_expression_of_a_picture_finds_data(host, busy, name):
    (picture,) = [item for item in dashboards.load() if item["name"] == name]
    chosen = {"$app": "shop", "$site": "shop", "$instance": host.backend.hostname, "$interval": "1m"}
    empty = []
    for expression in dashboards.expressions(picture):
        for variable, value in chosen.items():
            expression = expression.replace(variable, value)
        if not [item for item in query(host, expression) if item["value"][1] != "NaN"]:
            empty.append(expression)
    assert empty == []


def test_consoles_are_served_and_know_what_there_is(host, busy):
    for item in dashboards.load():
        page = host.check_output(f"curl -sS {PROMETHEUS}/consoles/{item['name']}.html")
        assert f"<title>{item['title']}</title>" in page and "<nav>" in page, page[:300]
        if item.get("variable"):
            wanted = host.backend.hostname if item["variable"]["name"] == "instance" else "shop"
            assert f"<option>{wanted}</option>" in page


# -- access -----------------------------------------------------------------------------------------------------------


def through_nginx(host, path: str, *options: str) -> tuple[str, str]:
    """Status and body of what a browser gets."""
    name = "monitoring.example.com"
    done = host.run(
        f"curl -sSk -w '\\n%{{http_code}}' --resolve {name}:443:127.0.0.1 {' '.join(options)} https://{name}{path}"
    )
    body, _line, status = done.stdout.rpartition("\n")
    return status, body


@pytest.mark.parametrize(
    "path", ["/prometheus/api/v1/query?query=up", "/prometheus/consoles/app.html", "/alertmanager/api/v2/alerts"]
)
def test_people_need_a_password(host, path):
    assert through_nginx(host, path)[0] == "401"
    assert through_nginx(host, path, "--user ops:wrong")[0] == "401"
    status, body = through_nginx(host, path, "--user ops:s33d-of-the-people")
    assert status == "200" and body, body[:300]


def test_the_way_in_is_the_overview(host):
    status, body = through_nginx(host, "/", "--user ops:s33d-of-the-people", "--location")
    assert status == "200" and "<title>Overview</title>" in body


def test_only_nginx_can_read_who_may_see_it(host):
    file = host.file("/etc/fastapi/monitoring.htpasswd")
    assert (file.user, file.group, file.mode) == ("root", "www-data", 0o640)


# -- what is refused --------------------------------------------------------------------------------------------------


class Run:
    """The role by itself, on both hosts."""

    def __init__(self, folder, given: dict) -> None:
        (folder / "play.yml").write_text(PLAY, encoding="utf-8")
        command = ["ansible-playbook", "--diff", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-e", json.dumps(given)]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "COLUMNS": "1000"}
        done = subprocess.run(
            [*command, str(folder / "play.yml")], capture_output=True, text=True, check=False, env=environment
        )
        self.code, self.output = done.returncode, done.stdout + done.stderr
        self.changed = re.findall(r" changed=(\d+) ", self.output)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return lambda **given: Run(
        tmp_path_factory.mktemp("run"), {f"monitoring_{key}": value for key, value in given.items()}
    )


def fingerprint(host) -> str:
    pids = host.check_output("systemctl show -p MainPID --value prometheus prometheus-alertmanager")
    return pids + host.check_output("find /etc/prometheus -type f -exec sha256sum {} +")


@pytest.fixture(scope="module")
def refused(run, hosts):
    """A rule that Prometheus cannot parse, and what it left behind."""
    before = [fingerprint(host) for host in hosts]
    broken = {"shop": {"groups": [{"name": "shop", "rules": [{"record": "shop:x", "expr": "sum(("}]}]}}
    found = run(prometheus_rules=broken)
    return found, before, [fingerprint(host) for host in hosts]


def test_a_rule_that_cannot_work_is_refused_by_name(refused):
    assert refused[0].code != 0
    assert "nothing was changed" in refused[0].output
    assert "rules/own-shop.yml" in refused[0].output and "unclosed left paren" in refused[0].output


def test_what_is_refused_changes_nothing(refused):
    assert refused[1] == refused[2]


def test_bad_input_is_refused_with_its_name(run):
    found = run(
        alerts={"TargetDwon": {}, "UnitFailed": {"for": "soon"}},
        prometheus_retention_time="30 days",
        further_targets=[{"job": "db", "instance": "db", "address": "db.example.com"}],
        alertmanager_slack_url="http://hooks.example.com/s33d",
        alertmanager_routes=[{"receiver": "nobody-knows"}],
    )
    assert found.code != 0 and set(found.changed) == {"0"}
    for said in (
        "Did you mean 'TargetDown'?",
        "monitoring_alerts.UnitFailed.for",
        "monitoring_prometheus_retention_time",
        "monitoring_further_targets[0].address",
        "monitoring_alertmanager_slack_url: would send in the clear",
        "there is no such receiver (value: 'nobody-knows')",
    ):
        assert said in found.output, found.output[-2000:]
    assert SEED not in found.output


def test_a_new_threshold_is_loaded_without_a_restart(run, hosts):
    pids = "systemctl show -p MainPID --value prometheus"
    before = [host.check_output(pids) for host in hosts]
    found = run(alerts_thresholds={"slow": 1.5}, alertmanager_webhook_url="http://127.0.0.1:8025/s33d-of-another")
    assert found.code == 0, found.output[-3000:]
    assert SEED not in found.output, "a diff shows a secret"
    for host in hosts:
        rules = json.loads(host.check_output(f"curl -sS {PROMETHEUS}/api/v1/rules"))
        assert "p95_5m > 1.5" in json.dumps(rules)
    assert [host.check_output(pids) for host in hosts] == before
    assert run().code == 0
