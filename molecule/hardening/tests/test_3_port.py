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


def test_ports_of_the_fleet_are_between_its_own_hosts(fleet, probe):
    """Its hosts are those of the inventory, unless somebody says otherwise."""
    first, second = HOSTS
    for host in HOSTS:
        fleet.output(host, "systemd-run --quiet --collect --unit=listener python3 -m http.server 9100")
    reaches = "timeout 1 bash -c '</dev/tcp/{}/9100'"
    try:
        assert fleet.inside(second, reaches.format(fleet.address(first))).returncode != 0
        fleet.hardened({"hardening_firewall": {"fleet_ports": [9100]}})
        assert fleet.inside(second, reaches.format(fleet.address(first))).returncode == 0
        assert fleet.inside(first, reaches.format(fleet.address(second))).returncode == 0
        assert not probe.reaches(fleet.address(first), 9100)
    finally:
        for host in HOSTS:
            fleet.output(host, "systemctl stop listener")
        fleet.hardened()
