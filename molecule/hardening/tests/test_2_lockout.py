"""Configurations that lock the operator out: each ends with the operator in, and an error that says what was undone."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from conftest import HOSTS, STATE, each, until

GO_PAST = {"hardening_confirm": {"checks": False}}
# Not even connections that are there already: the way back is cut as well.
CUT = "}\nchain cut {\n type filter hook input priority -10; policy drop;\n iif lo accept\n}\nchain rest {"

# What is known to be wrong before anything changes: variables, and the words that say so. All is said at once.
REFUSED = {
    "what shuts the operator out, or takes a port that another program has": (
        {"hardening_ssh": {"allow_users": ["somebody", "releaser"], "allow_groups": ["wheel"], "port": 80},
         "hardening_firewall": {"ssh_allow": ["192.0.2.0/24"]}},
        ["hardening_ssh.allow_users: leaves out 'operator'", "AllowUsers somebody releaser", "Add 'operator'",
         "hardening_ssh.allow_groups: has none of the groups of 'operator'",
         "hardening_firewall.ssh_allow: has no network with", "(value: 192.0.2.0/24)",
         "hardening_ssh.port: is used by nginx (value: 80)"]),
    "what sshd, nft and sudo do not know": (
        {"hardening_ssh": {"extra": "PermitEverything yes"}, "hardening_firewall": {"extra": "tcp dport ssh akzept"},
         "hardening_sudo": {"extra": "operator may do all"}, "hardening_accounts": {"su_group": "nobodies"}},
        ["sshd refuses the configuration (hardening_ssh)", "PermitEverything",
         "nft refuses the rules (hardening_firewall)", "akzept",
         "visudo refuses /etc/sudoers.d/zz-fastapi-hardening",
         "hardening_accounts.su_group: there is no such group (value: nobodies)"]),
}
# What passes all tests, what the new connection says then, and by whom it is taken back.
TAKEN_BACK = {
    "an AllowUsers without the operator": (
        {**GO_PAST, "hardening_ssh": {"allow_users": ["releaser"]}}, "Permission denied", "operator"),
    "keys in a place where there are none": (
        {"hardening_ssh": {"extra": "AuthorizedKeysFile /etc/ssh/keys/%u"}}, "Permission denied", "operator"),
    "a command that is forced on everybody": (
        {"hardening_ssh": {"extra": "ForceCommand /bin/false"}}, "", "operator"),
    "a firewall that takes no new SSH": (
        {"hardening_firewall": {"extra": "tcp dport 22 drop"}}, "timed out", "operator"),
    "a firewall that cuts what is there, too": (
        {"hardening_firewall": {"extra": CUT}}, "timed out", "timer"),
    "a sudoers that drops the operator": (
        {"hardening_sudo": {"extra": "operator ALL=(ALL:ALL) !ALL"}}, "sudo", "timer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused(fleet, case):
    changes, words = REFUSED[case]
    said = fleet.refused(changes)
    for word in (*words, "Nothing was changed"):
        assert word in said, said
    for host in HOSTS:
        assert fleet.gets_in(host)


@pytest.mark.parametrize("case", TAKEN_BACK)
def test_it_is_taken_back(fleet, case):
    changes, words, by = TAKEN_BACK[case]
    said = fleet.refused(changes)
    for word in (words, "was taken back, because a new connection as operator@", "Undone: /etc/", "Mend the variables"):
        assert word in said, said
    for host in HOSTS:
        assert fleet.gets_in(host)
        assert fleet.outcome(host)["by"] == by
        assert not fleet.outcome(host)["problems"]


def test_no_password_where_one_is_needed(fleet):
    """A user without a key, who connects with a password that sshd would take no more."""
    for host in HOSTS:
        fleet.output(host, "useradd -m guest; echo guest:correct-horse | chpasswd; "
                           "echo 'guest ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/guest")
    guest = {"ansible_user": "guest", "ansible_password": "correct-horse", "ansible_ssh_private_key_file": ""}
    try:
        fleet.hardened({"hardening_ssh": {"password_authentication": True}})
        said = fleet.refused({}, connection=guest)
        assert "hardening_ssh.password_authentication: is false, and this run connects as 'guest'" in said
        said = fleet.refused(GO_PAST, connection=guest)
        assert "was taken back" in said and "Permission denied" in said, said
    finally:
        for host in HOSTS:
            fleet.output(host, "rm /etc/sudoers.d/guest; userdel -rf guest 2>/dev/null")
        fleet.hardened()


def test_the_controller_dies(fleet):
    before = fleet.snapshots()

    def dies(host):
        fleet.killed({"hardening_confirm": {"window": 20}, "hardening_firewall": {"extra": CUT}}, host)
        until(lambda: not fleet.gets_in(host), 15)
        until(lambda: fleet.gets_in(host), 60)
        # The firewall is among the first that are back.
        until(lambda: fleet.inside(host, f"test -e {STATE}/pending").returncode != 0, 30)

    each(dies)
    for host in HOSTS:
        assert fleet.outcome(host)["by"] == "timer"
    assert fleet.snapshots() == before


def test_the_host_reboots_in_between(fleet):
    before = fleet.snapshots()

    def reboots(host):
        fleet.killed({"hardening_confirm": {"window": 90}, "hardening_firewall": {"extra": CUT}}, host)
        until(lambda: not fleet.gets_in(host), 30)
        begun = time.time()
        subprocess.run(["docker", "restart", "--time", "10", host], check=True, capture_output=True)
        until(lambda: fleet.gets_in(host), 90)
        fleet.inside(host, "systemctl is-system-running --wait")  # what starts last is a change until then
        # systemd leaves out a part of what depends on itself, and it might be this.
        assert "ordering cycle" not in fleet.output(host, f"journalctl --no-pager --since @{begun:.0f} _PID=1")

    each(reboots)
    for host in HOSTS:
        assert fleet.outcome(host)["by"] == "boot"
    assert fleet.snapshots() == before


def test_a_run_waits_for_what_another_one_left_on_trial(fleet):
    """The change of a run that has died, as the host's own program makes it, of a file that the next run writes too."""
    program = f"python3 {STATE}/commit_confirmed.py"
    nothing = {name: [] for name in ("topics", "ports", "activate", "leave", "restore", "trial", "settle")}
    given = json.dumps({
        "change": {**nothing, "id": "dead", "window": 15},
        "texts": {"/etc/issue": {"content": "on trial", "mode": 0o644, "uid": 0, "gid": 0}},
    })
    each(lambda host: fleet.output(
        host, f"echo '{given}' | {program} stage dead && {program} apply dead; grep 'on trial' /etc/issue"))
    said = fleet.hardened()
    assert said.count("changed=0") == len(HOSTS), said
    for host in HOSTS:
        assert fleet.outcome(host)["id"] == "dead" and fleet.outcome(host)["by"] == "timer"
