"""The port of SSH changes in the middle of a run, which goes on."""

from __future__ import annotations

import pytest
from conftest import HOSTS, each

NEW = {"hardening_ssh": {"port": 2222}}


@pytest.fixture(scope="module", autouse=True)
def spared(fleet, probe):
    """To fail2ban, a probe of an open port of SSH is an attempt to get in; three of them are enough."""
    own = fleet.address("fastapi-hardening-probe")
    each(lambda host: fleet.output(host, f"fail2ban-client set sshd addignoreip {own}; fail2ban-client unban {own}"))


def test_the_run_goes_on_at_the_new_port(fleet, probe):
    try:
        said = fleet.hardened(NEW)
        assert "Write it into the inventory, for the next run: ansible_port: 2222" in " ".join(said.split())
        for host in HOSTS:
            assert fleet.gets_in(host, 2222) and not fleet.gets_in(host, 22)
            assert [port for port in (22, 2222) if probe.reaches(fleet.address(host), port)] == [2222]

        # The inventory has the old one still.
        said = fleet.hardened(NEW)
        assert "The host is at port 2222 already, no longer at 22" in " ".join(said.split())
        assert said.count("changed=0") == len(HOSTS), said

        # Now it has the new one; and not to say anything of a port leaves it.
        said = fleet.hardened(NEW, port=2222)
        assert said.count("changed=0") == len(HOSTS) and "inventory" not in said
        said = fleet.hardened(port=2222)
        assert said.count("changed=0") == len(HOSTS), said

        # A port that nobody gets to.
        blocked = {"hardening_ssh": {"port": 2022}, "hardening_firewall": {"extra": "tcp dport 2022 drop"}}
        said = fleet.refused(blocked, port=2222)
        assert "was taken back" in said and "port 2022" in said, said
        for host in HOSTS:
            assert fleet.gets_in(host, 2222)
    finally:
        fleet.hardened({"hardening_ssh": {"port": 22}}, port=2222)
    for host in HOSTS:
        assert fleet.gets_in(host) and not fleet.gets_in(host, 2222)


def test_ports_of_the_fleet_and_of_the_exporters(fleet, probe):
    """Those are between the hosts of the inventory, unless somebody says otherwise; these are open to who watches."""
    def reach(host: str, port: int) -> bool:
        return fleet.inside(host, f"timeout 1 bash -c '</dev/tcp/{fleet.address(other[host])}/{port}'").returncode == 0

    other = dict([HOSTS, HOSTS[::-1]])
    for host in HOSTS:
        for port in (8000, 9100):  # an exporter of its own has this one on a loopback address
            fleet.output(host, f"systemd-run --quiet --collect --unit=listener{port} "
                               f"python3 -m http.server {port} --bind {fleet.address(host)}")
    try:
        assert not any(reach(host, port) for host in HOSTS for port in (8000, 9100))
        watcher = fleet.address("fastapi-hardening-probe")
        fleet.hardened({"hardening_firewall": {"fleet_ports": [8000]}, "hardening_monitors": [watcher]})
        for host in HOSTS:
            assert reach(host, 8000) and not reach(host, 9100)
            seen = [port for port in (8000, 9100) if probe.reaches(fleet.address(host), port)]
            assert seen == [9100]
    finally:
        for host in HOSTS:
            fleet.output(host, "systemctl stop listener8000 listener9100")
        fleet.hardened()
