# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would lock an operator out, and how texts are fitted to a host."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.daoman.fastapi.plugins.action.harden import addresses, verdict
from ansible_collections.daoman.fastapi.plugins.module_utils import hardening, hardening_topics, spec
from ansible_collections.daoman.fastapi.plugins.module_utils import rules as all_rules
from ansible_collections.daoman.fastapi.plugins.plugin_utils.way_in import answer_of

WHO = {
    "user": "operator", "address": "192.0.2.7", "groups": ["operator", "sudo"], "has_keys": True, "by_password": False}
OPEN = "permitrootlogin no\npasswordauthentication no\nkbdinteractiveauthentication no\npubkeyauthentication yes\n"


def problems(text="", **who):
    return list(hardening.ssh_problems(hardening.effective(OPEN + text), {**WHO, **who}))


def test_nothing_is_wrong_with_a_key():
    assert problems() == []


@pytest.mark.parametrize("text", [
    "allowusers operator", "allowusers other\nallowusers oper*", "allowusers operator@192.0.2.0/24",
    "allowusers operator@192.0.2.*", "allowgroups wheel\nallowgroups sudo", "denyusers guest",
    "denyusers operator@10.0.0.0/8"])
def test_the_operator_is_let_in(text):
    assert problems(text) == []


@pytest.mark.parametrize("text, variable", [
    ("allowusers somebody", "hardening_ssh.allow_users"),
    ("allowusers operator@10.0.0.0/8", "hardening_ssh.allow_users"),
    ("allowgroups wheel", "hardening_ssh.allow_groups"),
    ("denyusers oper?tor", "hardening_ssh.extra"),
    ("denygroups sudo", "hardening_ssh.extra"),
])
def test_the_operator_is_left_out(text, variable):
    (found,) = problems(text)
    assert found.startswith(variable) and "'operator'" in found


def test_keys_turned_off():
    settings = hardening.effective(OPEN.replace("pubkeyauthentication yes", "pubkeyauthentication no"))
    assert "PubkeyAuthentication" in next(hardening.ssh_problems(settings, WHO))
    assert not list(hardening.ssh_problems(hardening.effective(
        "passwordauthentication yes\npubkeyauthentication no"), {**WHO, "by_password": True}))


@pytest.mark.parametrize("has_keys, mend", [(True, "Connect with the key that it has"), (False, "Give it a key")])
def test_a_password_that_is_taken_no_more(has_keys, mend):
    (found,) = problems(by_password=True, has_keys=has_keys)
    assert found.startswith("hardening_ssh.password_authentication") and mend in found


@pytest.mark.parametrize("setting, by_password, wrong", [
    ("no", False, True), ("yes", False, False), ("prohibit-password", False, False), ("prohibit-password", True, True)])
def test_root(setting, by_password, wrong):
    settings = hardening.effective(OPEN.replace("permitrootlogin no", f"permitrootlogin {setting}").replace(
        "passwordauthentication no", "passwordauthentication yes"))
    found = list(hardening.ssh_problems(settings, {**WHO, "user": "root", "by_password": by_password}))
    assert [item for item in found if item.startswith("hardening_ssh.permit_root_login")] == found
    assert bool(found) == wrong


@pytest.mark.parametrize("address, networks, inside", [
    ("192.0.2.7", ["192.0.2.0/24"], True), ("192.0.2.7", ["192.0.2.7"], True),
    ("::ffff:192.0.2.7", ["192.0.2.0/24"], True),
    ("2001:db8::1", ["192.0.2.0/24", "2001:db8::/32"], True), ("fe80::1%eth0", ["fe80::/10"], True),
    ("192.0.3.7", ["192.0.2.0/24"], False), ("UNKNOWN", ["0.0.0.0/0"], False), ("192.0.2.7", ["nonsense"], False)])
def test_networks(address, networks, inside):
    assert hardening.within(address, networks) == inside
    assert bool(list(hardening.firewall_problems(networks, address))) != inside


def test_an_empty_list_means_anywhere():
    assert not list(hardening.firewall_problems([], "192.0.2.7"))


def test_a_port_more():
    sshd, rules = "# managed\nPort 2222\nHostKey /a\n", "define ssh_ports = { 2222 }\n"
    assert hardening.with_port(sshd, 22) == "# managed\nPort 2222\nPort 22\nHostKey /a\n"
    assert hardening.with_port(rules, 22) == "define ssh_ports = { 2222, 22 }\n"
    for text in (sshd, rules):
        assert hardening.with_port(text, 2222) == hardening.with_port(text, 0) == text
        assert hardening.ssh_ports(hardening.with_port(text, 22)) == [2222, 22]


def test_no_port_leaves_those_from_before():
    assert hardening.with_ports("Port 0\nHostKey /a\n", "Port 2222\nPort 22\n") == "Port 2222\nPort 22\nHostKey /a\n"
    assert hardening.with_ports("Port 0\n", "") == ""
    assert hardening.with_ports("Port 22\n", "Port 2222\n") == "Port 22\n"


@pytest.mark.parametrize("port, before, keep, ports", [
    (0, {22}, 0, "22"), (0, {2222, 22}, 0, "22,2222"), (2222, {22}, 0, "2222"), (2222, {22}, 22, "2222,22"),
    (22, {22}, 22, "22")])
def test_a_ban_closes_the_ports_of_sshd(port, before, keep, ports):
    text = f"[sshd]\nport = {port}\n\n[nginx-limit-req]\nport = 80,443\n"
    assert hardening.with_jail_ports(text, before, keep) == text.replace(f"port = {port}\n", f"port = {ports}\n")


def test_algorithms_that_are_not_known_are_left_out():
    text = "Ciphers new,old\nKexAlgorithms a\nPermitRootLogin no\n"
    known = {"Ciphers": ["old"], "KexAlgorithms": ["a"]}
    assert hardening.known_algorithms(text, known.get) == text.replace("new,", "")
    with pytest.raises(ValueError, match="none of the KexAlgorithms a"):
        hardening.known_algorithms(text, {"Ciphers": ["old"], "KexAlgorithms": []}.get)


def test_lines_for_a_version():
    text = "MACs a # only OpenSSH >= 9.9\nMACs b # only OpenSSH < 9.9\nMACs c\n"
    assert hardening.for_version(text, (9, 2)) == "MACs b\nMACs c\n"
    assert hardening.for_version(text, (10, 0)) == "MACs a\nMACs c\n"


def test_moduli():
    text = "# Time Type Tests Tries Size Generator Modulus\n2025 2 6 100 2047 5 AB\n2025 2 6 100 3071 2 CD\n"
    assert hardening.strong_moduli(text) == text.replace("2025 2 6 100 2047 5 AB\n", "")


def test_the_drop_ins_are_read_first():
    assert hardening.with_include("Port 22\n").startswith("Include /etc/ssh/sshd_config.d/*.conf\n")
    for text in ("Include /etc/ssh/sshd_config.d/*.conf\nPort 22\n", "include sshd_config.d/*.conf\n"):
        assert hardening.with_include(text) == text


def test_settings_that_a_host_does_not_have():
    text = "# managed\nkernel.a = 1\nnet.b.c = 2 3\n"
    assert hardening.settings(text) == {"kernel.a": "1", "net.b.c": "2 3"}
    assert hardening.without_settings(text, ["kernel.a"]) == "# managed\nnet.b.c = 2 3\n"


def test_settings_of_logins():
    text = "UMASK\t022\n#HOME_MODE\t0755\nUSERGROUPS_ENAB yes\n"
    done = "UMASK\t022\nHOME_MODE 0700\nUSERGROUPS_ENAB yes\n"
    assert hardening.with_login_settings(text, "HOME_MODE 0700\n") == done
    assert hardening.with_login_settings(done, "HOME_MODE 0700\n") == done
    assert hardening.with_login_settings("UMASK 022\n", "HOME_MODE 0700\n") == "UMASK 022\nHOME_MODE 0700\n"
    # The one that counts, not the example above it.
    text = "# HOME_MODE 1\nHOME_MODE 2\n"
    assert hardening.with_login_settings(text, "HOME_MODE 3\n") == "# HOME_MODE 1\nHOME_MODE 3\n"


def test_su_is_for_a_group():
    text = "auth       sufficient pam_rootok.so\n# auth required pam_wheel.so\nsession optional pam_mail.so\n"
    rule = "auth required pam_wheel.so use_uid group=sudo"
    done = text.replace("# auth", f"{rule}\n# auth")
    assert hardening.with_su_for(text, f"{rule}\n") == done
    assert hardening.with_su_for(done, f"{rule}\n") == done
    # Another group, instead of both.
    assert hardening.with_su_for(done, rule.replace("sudo", "ops")) == done.replace("=sudo", "=ops")


def test_whose_password_is_locked():
    passwd = "root:x:0:0::/:\ndb:x:100:1::/:\nold:x:101:1::/:\nann:x:1000:1::/:\nbob:x:1001:1::/:\n"
    shadow = "root:$y$a:1::::::\ndb:$y$b:1::::::\nold:!:1::::::\nann:$y$c:1::::::\nbob::1::::::\n"
    assert hardening.to_lock(passwd, shadow, 1000) == {"db": False, "bob": True}
    assert hardening.to_lock(passwd, shadow, 2000) == {"db": False, "ann": False, "bob": True}


def test_what_is_to_be_remounted():
    command = "ExecStart=-/usr/bin/mount -o remount"
    text = f"[Service]\n{command},nosuid,nodev /tmp\n{command},noexec /dev/shm\n"
    assert hardening.remounts(text) == {"/tmp": ["nosuid", "nodev"], "/dev/shm": ["noexec"]}
    assert hardening.remounts(hardening.without_remounts(text, ["/tmp"])) == {"/dev/shm": ["noexec"]}
    table = "/dev/sda1 / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\ntmpfs /tmp tmpfs rw,nosuid 0 0\n"
    assert hardening.mounted(table) == {"/": ["rw"], "/tmp": ["rw", "nosuid"]}


def test_who_is_connected():
    environ = b"USER=operator\0SSH_CONNECTION=192.0.2.7 50000 198.51.100.1 2222\0X"
    assert hardening.ssh_connection(environ) == {
        "user": "operator", "address": "192.0.2.7", "server": "198.51.100.1", "port": 2222}
    assert hardening.ssh_connection(b"USER=root\0") is None


def test_the_verdict_says_what_was_undone_and_why():
    outcome = {"by": "timer", "files": ["/etc/a"]}
    text = verdict({"topics": ["firewall", "ssh"]}, "Permission denied", outcome, True, 31.4, "operator@host port 22")
    words = ("firewall and ssh", "operator@host port 22", "  Permission denied", "Undone: /etc/a", "own timer", "31 s")
    for word in words:
        assert word in text
    assert "could not be reached again" in verdict({"topics": ["ssh"]}, "x", {}, False, 85, "operator@host")


def test_addresses_of_the_fleet():
    assert addresses("192.0.2.7", "x") == ["192.0.2.7/32"] and addresses("2001:db8::/32", "x") == ["2001:db8::/32"]
    assert "127.0.0.1" in addresses("localhost", "x")
    with pytest.raises(AnsibleActionFail, match=r"hardening_monitors: 'no-such\.invalid' is no address"):
        addresses("no-such.invalid", "hardening_monitors")


def test_the_answer_is_the_last_line():
    assert answer_of('Banner {\nnot this\n{"failure": ""}\n') == {"failure": ""}
    assert answer_of("nothing") is None


# -- sudo ------------------------------------------------------------------------------------------------------------

OWN = "/etc/sudoers.d/zz-fastapi-hardening"
PARSED = "/etc/sudoers: parsed OK\n/etc/sudoers.d/README: parsed OK\n"
# As visudo of Debian 12 and 13 says it.
MODE = "{}: bad permissions, should be mode 0440\n"
SYNTAX = "{}:1:12: syntax error\nbroken line(\n           ^\n"


def sudo(code, output):
    return hardening_topics.Sudo(SimpleNamespace(run=lambda _command: (code, output)), {OWN: "operator ALL=(ALL) ALL"})


@pytest.mark.parametrize("said", [MODE, SYNTAX])
def test_a_file_that_sudo_refused_before_is_named_in_the_words_of_visudo(said, tmp_path):
    with pytest.raises(hardening_topics.TopicError) as caught:
        sudo(1, PARSED + said.format("/etc/sudoers.d/admins")).test(str(tmp_path))
    message = str(caught.value)
    assert "visudo refuses /etc/sudoers.d/admins, which this role did not write (hardening_sudo)" in message
    assert said.format("/etc/sudoers.d/admins").strip() in message and "parsed OK" not in message
    assert "visudo -f /etc/sudoers.d/admins" in message


def test_a_file_of_the_role_that_is_refused_now_is_about_to_be_replaced(tmp_path):
    with pytest.raises(hardening_topics.TopicError, match=f"visudo refuses {OWN} .hardening_sudo.:"):
        sudo(1, PARSED + MODE.format(OWN)).test(str(tmp_path))


# -- the role's variables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variables, path", [
    ({"hardening_confirm": {"window": 5}}, "hardening_confirm.window"),
    ({"hardening_confirm": {"window": 20, "timeout": 15}}, "hardening_confirm.timeout"),
    ({"hardening_ssh": {"port": 70000}}, "hardening_ssh.port"),
    ({"hardening_ssh": {"allow_users": ["two names"]}}, "hardening_ssh.allow_users[0]"),
    ({"hardening_firewall": {"ssh_allow": ["office"]}}, "hardening_firewall.ssh_allow[0]"),
    ({"hardening_firewall": {"tcp": [80, 0]}}, "hardening_firewall.tcp[1]"),
    ({"hardening_ssh": {"max_startups_per_source": 0}}, "hardening_ssh.max_startups_per_source"),
    ({"hardening_fail2ban": {"bantime_max": 60}}, "hardening_fail2ban.bantime_max"),
    ({"hardening_proxies": ["balancer"]}, "hardening_proxies[0]"),
    ({"hardening_fail2ban": {"ignore": ["10.0.0.0/99"]}}, "hardening_fail2ban.ignore[0]"),
    ({"hardening_updates": {"reboot_time": "4 am"}}, "hardening_updates.reboot_time"),
    ({"hardening_modules": {"disabled": ["a b"]}}, "hardening_modules.disabled[0]"),
    ({"hardening_deploy_user": {"name": "Two Names"}}, "hardening_deploy_user.name"),
    ({"hardening_deploy_user": {"name": "ci"}, "hardening_ssh": {"allow_users": ["ann"]}}, "hardening_ssh.allow_users"),
    ({"hardening_sysctl": {"settings": {"net ipv4": 1}}}, "hardening_sysctl.settings['net ipv4']"),
    ({"hardening_accounts": {"su_group": "a b"}}, "hardening_accounts.su_group"),
    ({"hardening_mounts": {"options": {"tmp": ["nosuid"]}}}, "hardening_mounts.options.tmp"),
    ({"hardening_mounts": {"options": {"/tmp": "nosuid"}}}, "hardening_mounts.options['/tmp']"),
    ({"hardening_mounts": {"options": {"/tmp": ["size=1g"]}}}, "hardening_mounts.options['/tmp']"),
])
def test_values_that_cannot_be(variables, path):
    filled, found = spec.check(spec.load("hardening"), variables)
    found += all_rules.check("hardening", filled, found)
    assert [item.path for item in found] == [path]
