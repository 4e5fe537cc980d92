"""What is switched off is gone, and nothing else. These come last: they leave the hosts without it."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

PLAY = """
- hosts: all
  gather_facts: false
  roles:
    - daoman.fastapi.monitoring
"""
OFF = {
    "monitoring_resources": False,
    "monitoring_troubleshoot": False,
    "monitoring_exporters": False,
    "monitoring_logs": False,
}


@pytest.fixture(scope="module")
def off(tmp_path_factory):
    """The role by itself, switched off, twice: what Ansible said of each run."""
    play = tmp_path_factory.mktemp("switches") / "play.yml"
    play.write_text(PLAY, encoding="utf-8")
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    command = ["ansible-playbook", "-i", inventory, "-e", json.dumps(OFF), str(play)]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    runs = [subprocess.run(command, capture_output=True, text=True, check=False, env=environment) for _ in range(2)]
    assert all(run.returncode == 0 for run in runs), runs[0].stdout + runs[1].stdout
    return [re.findall(r" changed=(\d+) ", run.stdout) for run in runs]


def test_what_is_switched_off_is_removed(host, off):
    # Files of the services, troubleshooting's, units; and Debian's exporters, which are stopped, then disabled.
    assert off[0] == ["5", "5"]
    for path in (
        "/usr/local/sbin/troubleshoot.sh",
        "/usr/local/lib/fastapi/troubleshoot",
        "/usr/local/lib/fastapi/resources",
        "/etc/fastapi/troubleshoot.json",
        "/etc/fastapi/resources.json",
        "/etc/fastapi/credentials",
        "/etc/systemd/system/fastapi-resources.service",
        "/usr/local/lib/fastapi/local",
        "/etc/fastapi/local-services.json",
        "/etc/systemd/system/fastapi-local.service",
        "/run/fastapi-resources",
    ):
        assert not host.file(path).exists, path
    assert host.run("systemctl is-active fastapi-resources.service").stdout.strip() == "inactive"


def test_rules_for_local_services_that_are_gone_are_gone(host, off):
    assert "fastapi_local" not in host.check_output("nft list tables")


def test_exporters_that_are_switched_off_do_not_listen(host, off):
    listening = host.check_output("ss -H -t -l -n")
    assert not [port for port in (4040, 9100, 9102, 9113) if f":{port} " in listening]
    for unit in ("prometheus-node-exporter", "prometheus-nginx-exporter"):
        assert not host.service(unit).is_running and not host.service(unit).is_enabled
        assert host.run("systemctl is-failed %s", unit).stdout.strip() == "inactive"
        assert not host.file(f"/etc/systemd/system/{unit}.service.d/50-fastapi.conf").exists
    for path in ("/usr/local/lib/fastapi/exporter", "/run/fastapi-metrics/statsd.sock"):
        assert not host.file(path).exists, path


def test_a_second_run_changes_nothing(off):
    assert off[1] == ["0", "0"]


def test_logs_are_left_as_they_are(host, off):
    assert host.file("/etc/logrotate.d/nginx").contains("daoman.fastapi.monitoring")


def test_the_site_goes_on(host, off):
    done = host.run("curl -sSk --resolve shop.example.com:443:127.0.0.1 https://shop.example.com/health/ready")
    assert "ready" in done.stdout
