"""What is closed, and that everything still works behind it."""

from __future__ import annotations

import json
import re
import time

import pytest
from conftest import HOSTS, each, until

SHOP = "curl --silent --show-error --insecure --resolve shop.example.com:443:127.0.0.1 https://shop.example.com"


@pytest.fixture
def listener(host):
    """A program that listens on a port which nobody opened."""
    host.check_output("systemd-run --quiet --collect --unit=listener python3 -m http.server 9200")
    for _ in range(50):
        if host.socket("tcp://0.0.0.0:9200").is_listening:
            break
        time.sleep(0.1)
    yield 9200
    host.check_output("systemctl stop listener")


def test_only_what_is_served_can_be_reached(host, probe, fleet, listener):
    address = fleet.address(host.backend.hostname)
    assert [port for port in (22, 80, 443, listener, 8000) if probe.reaches(address, port)] == [22, 80, 443]
    # What is dropped is dropped because of the firewall.
    host.check_output("nft insert rule inet fastapi input tcp dport 9200 accept")
    try:
        assert probe.reaches(address, listener)
    finally:
        host.check_output("nft -f /etc/fastapi/firewall.nft")


def test_the_same_holds_for_ipv6(host):
    """By the rules themselves: a container's network has no IPv6."""
    rules = host.check_output("nft list table inet fastapi")
    assert "policy drop" in rules and "nd-neighbor-solicit" in rules
    assert host.check_output("nft list tables").splitlines().count("table inet fastapi") == 1


def test_the_firewall_leaves_other_tables_alone(host):
    host.check_output("nft add table inet theirs")
    try:
        host.check_output("systemctl restart fastapi-firewall.service")
        tables = host.check_output("nft list tables").splitlines()
        assert {"table inet theirs", "table inet fastapi"} <= set(tables)
        host.check_output("systemctl stop fastapi-firewall.service")
        tables = host.check_output("nft list tables").splitlines()
        assert "table inet theirs" in tables and "table inet fastapi" not in tables
    finally:
        host.run("nft delete table inet theirs; systemctl start fastapi-firewall.service")
    assert "table inet fastapi" in host.check_output("nft list tables").splitlines()


def test_fail2ban_bans_for_real(host, probe, fleet):
    address = fleet.address(host.backend.hostname)
    own = fleet.address("fastapi-hardening-probe")
    assert probe.reaches(address, 22) and probe.reaches(address, 443)
    try:
        for _ in range(4):
            probe.run(f"timeout 5 ssh -o BatchMode=yes -o StrictHostKeyChecking=no nobody@{address} true")
        for _ in range(40):
            if own in host.check_output("fail2ban-client get sshd banip"):
                break
            time.sleep(0.25)
        assert own in host.check_output("fail2ban-client get sshd banip")
        # The port of that service and no other: an office has one address.
        assert [port for port in (22, 80, 443) if probe.reaches(address, port)] == [80, 443]
    finally:
        host.run(f"fail2ban-client set sshd unbanip {own}")
    assert probe.reaches(address, 22)


def test_nobody_gets_others_banned(host, probe, fleet):
    """Lines as sshd writes them, of a process with its name: an app's, and a user's whose session is in ssh.service."""
    address, own = fleet.address(host.backend.hostname), fleet.address("fastapi-hardening-probe")
    host.check_output("mkdir -p /opt/forger; cp /usr/bin/python3 /opt/forger/sshd")
    fleet.copy(host.backend.hostname, "forge.py", "/opt/forger/forge.py")
    begun = host.check_output("wc --bytes </var/log/fail2ban.log")

    def read():
        """Whether fail2ban has read a login that failed later: the journal is in order."""
        probe.run(f"timeout 5 ssh -o BatchMode=yes -o StrictHostKeyChecking=no nobody@{address} true")
        return f"Found {own}" in host.check_output(f"tail --bytes=+{begun} /var/log/fail2ban.log")

    try:
        forge = "/opt/forger/sshd /opt/forger/forge.py"
        host.check_output(f"systemd-run --quiet --wait --property=User=nobody {forge} 192.0.2.66")
        fleet.ssh(host.backend.hostname, f"{forge} 192.0.2.67")
        host.check_output("journalctl --no-pager --output=cat _UID=$(id -u operator) | grep 'from 192.0.2.67'")
        until(read, 40)
        assert "192.0.2.6" not in host.check_output(f"tail --bytes=+{begun} /var/log/fail2ban.log")
    finally:
        host.run(f"rm -r /opt/forger; fail2ban-client unban 192.0.2.66 192.0.2.67 {own}")


def test_the_host_does_not_ban_itself(host):
    """An app asks sshd and nginx in the host's own name. This address is one that no name leads to."""
    host.check_output("ip address add 192.0.2.9/32 dev lo")
    try:
        host.check_output("for _ in $(seq 8); do ssh -b 192.0.2.9 -o BatchMode=yes -o StrictHostKeyChecking=no "
                          "-o UserKnownHostsFile=/dev/null nobody@192.0.2.9 true; done 2>/dev/null; true")
        until(lambda: "Ignore 192.0.2.9 by command" in host.file("/var/log/fail2ban.log").content_string, 20)
        assert "192.0.2.9" not in host.check_output("fail2ban-client get sshd banip")
    finally:
        host.run("ip address del 192.0.2.9/32 dev lo; fail2ban-client unban 192.0.2.9")


def test_connections_in_the_operators_name_do_not_shut_the_operator_out(host, probe, fleet):
    """Anybody can write any address on a packet that asks for a connection."""
    address = fleet.address(host.backend.hostname)
    operator = host.check_output("ip -4 route show default").split()[2]
    fleet.copy("fastapi-hardening-probe", "syn.py", "/root/syn.py")
    probe.run(f"rm -f /root/sending; python3 /root/syn.py {operator} {address} 22 8 >/root/log 2>&1 &")
    until(lambda: probe.run("test -e /root/sending").returncode == 0, 5)
    assert fleet.gets_in(host.backend.hostname)


def test_fail2ban_watches_whom_nginx_refuses(host):
    until(lambda: "/var/log/nginx/refused.log" in host.check_output("fail2ban-client get nginx-limit-req logpath"), 20)


def test_nginx_limits_get_an_address_banned(host):
    """Limited for real once, since a ban of this client would never be: it is the host itself."""
    def log():
        return host.run("cat /var/log/nginx/refused.log").stdout.splitlines()

    before = len(log())
    host.check_output(f"for _ in 1 2 3; do {SHOP}/limited --output /dev/null; done")
    until(lambda: len(log()) > before, 10)
    assert log()[-1].endswith(" 127.0.0.1"), log()[-1]
    host.check_output('for _ in $(seq 31); do echo "$(date --iso-8601=seconds) 192.0.2.7"; done '
                      ">>/var/log/nginx/refused.log")
    try:
        until(lambda: "192.0.2.7" in host.check_output("fail2ban-client get nginx-limit-req banip"), 20)
        assert "127.0.0.1" not in host.check_output("fail2ban-client get nginx-limit-req banip")
        rules = host.check_output("nft list table inet f2b-table")
        assert re.search(r"tcp dport \{ 80, 443 \} ip saddr @addr-set-nginx-limit-req", rules), rules
    finally:
        host.run("fail2ban-client set nginx-limit-req unbanip 192.0.2.7")


def test_a_client_writes_no_line_of_the_log(host):
    """The name of a file that is not there may hold a newline, and after it what nginx would write of somebody else."""
    line = ("$(date +%Y/%m/%d%%20%H:%M:%S)%20%5Berror%5D%201%231:%20*1%20limiting%20requests,%20excess:%201.0"
            "%20by%20zone%20%22shop%22,%20client:%20192.0.2.8,%20server:%20x")
    short = "$(date --iso-8601=seconds | sed s/+/%2B/)%20192.0.2.8"
    host.check_output(f"""
        for number in $(seq 40); do
            for line in {line} {short}; do
                for place in static .well-known/acme-challenge; do
                    curl --silent --insecure --output /dev/null --resolve shop.example.com:443:127.0.0.1 \\
                        --resolve shop.example.com:80:127.0.0.1 "https://shop.example.com/$place/$number%0A$line%0A" \\
                        --user-agent "$line" "http://shop.example.com/$place/$number%0A$line%0A"
                done
            done
        done
        echo "$(date --iso-8601=seconds) 192.0.2.9" >>/var/log/nginx/refused.log
    """)
    until(lambda: "Found 192.0.2.9" in host.file("/var/log/fail2ban.log").content_string, 20)
    assert "192.0.2.8" not in host.file("/var/log/fail2ban.log").content_string


def test_nginx_is_in_its_sandbox(host):
    exposure = host.check_output("systemd-analyze security --no-pager nginx.service | tail -n 1")
    assert float(re.search(r": ([0-9.]+) ", exposure)[1]) <= 3.0, exposure
    pid = host.check_output("systemctl show --value --property=MainPID nginx")
    status = host.file(f"/proc/{pid}/status").content_string
    assert "NoNewPrivs:\t1\n" in status and "Seccomp:\t2\n" in status
    assert not host.run(f"nsenter --target {pid} --mount touch /etc/nginx/new").succeeded
    assert host.run(f"nsenter --target {pid} --mount touch /var/log/nginx/new").succeeded


def test_nginx_works_in_its_sandbox(host):
    assert host.check_output(f"{SHOP}/health/ready --output /dev/null --write-out '%{{http_code}}'") == "200"
    assert host.check_output(f"{SHOP}/static/style.css --output /dev/null --write-out '%{{http_code}}'") == "200"
    # Large enough for a file of its own below /var/lib/nginx.
    sent = host.check_output(f"head -c 900000 /dev/zero | {SHOP}/upload --form file=@-")
    assert json.loads(sent)["size"] == 900000
    before = set(host.check_output("pgrep -P $(cat /run/nginx.pid)").split())
    host.check_output("systemctl reload nginx")
    until(lambda: before.isdisjoint(host.check_output("pgrep -P $(cat /run/nginx.pid)").split()), 20)
    # As logrotate does.
    host.check_output("cd /var/log/nginx; mv shop.access.log shop.access.log.1; kill -USR1 $(cat /run/nginx.pid)")
    until(lambda: host.file("/var/log/nginx/shop.access.log").exists, 20)
    host.check_output(f"{SHOP}/health/ready --output /dev/null")
    until(lambda: "/health/ready" in host.file("/var/log/nginx/shop.access.log").content_string, 20)
    host.check_output("systemctl restart nginx")
    # Such as a system call that the sandbox refuses.
    assert "[alert]" not in host.check_output("cat /var/log/nginx/*error.log")
    assert host.check_output(f"{SHOP}/health/ready --output /dev/null --write-out '%{{http_code}}'") == "200"


def test_what_sshd_says_of_itself(host):
    settings = host.check_output("sshd -T")
    for line in ("permitrootlogin no", "passwordauthentication no", "kbdinteractiveauthentication no",
                 "x11forwarding no", "banner /etc/issue.net", "maxauthtries 4"):
        assert line in settings.splitlines(), line
    assert "ecdsa" not in host.check_output("sshd -T | grep ^hostkey")
    assert host.check_output("ssh-keygen -l -f /etc/ssh/ssh_host_rsa_key.pub").startswith("4096 ")
    assert min(int(line.split()[4]) for line in host.file("/etc/ssh/moduli").content_string.splitlines()
               if not line.startswith("#")) >= 3071


def test_sudo_logs_what_it_runs(host, fleet):
    assert fleet.gets_in(host.backend.hostname)
    assert "COMMAND=/usr/bin/id -un" in host.file("/var/log/sudo.log").content_string


def test_security_updates_are_installed_by_themselves(host):
    said = host.check_output("unattended-upgrade --dry-run --debug 2>&1")
    assert "label=Debian-Security" in said
    assert "label=Debian'" not in said, "not only security updates"
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.service(timer).is_enabled and host.service(timer).is_running


def test_needrestart_leaves_the_apps_alone(host):
    """By its configuration, read by Perl as it does: the release that serves, nginx, and one that may be restarted."""
    release = host.check_output("systemctl list-units --plain --no-legend 'shop@*.service' | cut -d ' ' -f 1")
    assert release.startswith("shop@")
    answers = host.check_output(r"""perl -e '
        our %nrconf = (override_rc => {});
        eval do { local (@ARGV, $/) = $ARGV[0]; <> };
        die $@ if $@;
        for my $unit (@ARGV[1 .. $#ARGV]) {
            my $restart = 1;
            for (keys %{$nrconf{override_rc}}) { $restart = $nrconf{override_rc}{$_} if $unit =~ /$_/ }
            print "$unit $restart
";
        }' /etc/needrestart/conf.d/fastapi-hardening.conf """ + f"{release} nginx.service cron.service")
    assert answers.split() == [release, "0", "nginx.service", "0", "cron.service", "1"]


def test_a_crash_leaves_no_image(host):
    host.check_output("systemctl daemon-reexec")
    assert host.check_output("systemctl show --value --property=DefaultLimitCORE") == "0"
    assert host.check_output("su -s /bin/sh -c 'ulimit -H -c' operator") == "0"


def test_homes_to_come_are_closed(host):
    host.check_output("useradd --create-home newcomer")
    try:
        assert host.file("/home/newcomer").mode == 0o700
    finally:
        host.check_output("userdel --remove newcomer 2>/dev/null")


def test_su_is_for_one_group(host):
    """With the right password both times."""
    host.check_output("useradd outsider; echo outsider:correct-horse | chpasswd")
    su = "echo correct-horse | runuser -u outsider -- su -c id outsider"
    try:
        assert not host.run(su).succeeded
        host.check_output("usermod -aG sudo outsider")
        assert "(outsider)" in host.check_output(su)
    finally:
        host.check_output("userdel outsider")


def test_shared_memory_runs_no_program(host):
    host.check_output("cp /bin/true /dev/shm/true")
    try:
        assert host.run("/dev/shm/true").rc == 126
    finally:
        host.check_output("rm /dev/shm/true")


def test_troubleshooting_reads_this_firewall(host):
    def found():
        return [item["id"] for item in json.loads(host.run("troubleshoot.sh --json").stdout)["findings"]]

    assert "firewall-closed" not in found()
    host.check_output("nft insert rule inet fastapi input tcp dport 443 drop")
    try:
        assert "firewall-closed" in found()
        host.check_output("sed '/tcp dport { 80, 443 }/d' /etc/fastapi/firewall.nft | nft -f -")
        assert "firewall-closed" in found()
    finally:
        host.check_output("nft -f /etc/fastapi/firewall.nft")


# -- both hosts at once -----------------------------------------------------------------------------------------------


def test_what_somebody_has_undone_is_mended(fleet):
    for host in HOSTS:
        fleet.output(host, """
            nft delete table inet fastapi
            mount -o remount,suid,exec /dev/shm
            useradd --system --password "$(openssl passwd -6 secret)" legacy
        """)
    said = fleet.hardened()
    assert said.count("changed=1") == len(HOSTS), said
    for host in HOSTS:
        assert "inet fastapi" in fleet.output(host, "nft list tables")
        assert "nosuid,nodev,noexec" in fleet.output(host, "findmnt --noheadings --output OPTIONS /dev/shm")
        assert fleet.output(host, "passwd --status legacy").split()[1] == "L"
        fleet.output(host, "userdel legacy")


def test_what_a_container_cannot_do_is_said(fleet):
    said = fleet.hardened()
    assert said.count("skipped: sysctl: ") == said.count("time: a container has its host's clock") == len(HOSTS), said
    assert said.count("changed=0") == len(HOSTS)


def test_a_site_goes_into_maintenance(fleet):
    """Also on a host where the directory of others' states was closed, as one with a deploy user once was."""
    code = f"{SHOP}/health/ready --output /dev/null --write-out '%{{http_code}}'"
    fleet.output(HOSTS[0], "chmod 0700 /var/lib/fastapi")
    try:
        done = fleet.play("daoman.fastapi.maintenance", {"app": "shop", "fastapi_apps": fleet.apps({})})
        assert done.returncode == 0, done.stdout + done.stderr
        assert each(lambda host: fleet.output(host, code)) == ["503", "503"]
    finally:
        done = fleet.play("daoman.fastapi.maintenance",
                          {"app": "shop", "fastapi_apps": fleet.apps({}), "maintenance": False})
    assert done.returncode == 0, done.stdout + done.stderr
    assert each(lambda host: fleet.output(host, code)) == ["200", "200"]


def test_a_deploy_works_over_the_hardened_connection(fleet):
    before = [fleet.output(host, "readlink /srv/shop/current") for host in HOSTS]
    done = fleet.play("daoman.fastapi.deploy", {"fastapi_apps": fleet.apps({"gunicorn": {"workers": 3}})})
    assert done.returncode == 0, done.stdout + done.stderr
    for host, release in zip(HOSTS, before, strict=True):
        assert fleet.output(host, "readlink /srv/shop/current") != release
        assert fleet.output(host, f"{SHOP}/health/ready --output /dev/null --write-out '%{{http_code}}'") == "200"
