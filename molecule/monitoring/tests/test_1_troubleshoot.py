"""troubleshoot.sh names each fault, only that, in time, without a secret, and without touching anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

import pytest
import testinfra
from conftest import SEED
from faults import FAULTS


def test_a_healthy_host_is_called_healthy(diagnoses):
    assert diagnoses["healthy"].findings == {}
    assert diagnoses["healthy"].code == 0 and "Healthy" in diagnoses["healthy"].text


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_is_named_and_nothing_else(diagnoses, fault):
    found = diagnoses[fault.name]
    assert set(found.findings) == {fault.finding, *fault.also}, found.findings
    assert not found.text or f"#{fault.finding}" in found.text
    worst = {item["severity"] for item in found.findings.values()}
    assert found.code == (2 if "critical" in worst else 1)


def test_all_is_well_again_in_the_end(diagnoses):
    assert diagnoses["mended"].findings == {}, diagnoses["mended"].output


def test_it_takes_less_than_ten_seconds(diagnoses, measured):
    slowest = max(diagnoses.values(), key=lambda found: found.seconds)
    seconds = sorted(found.seconds for found in diagnoses.values())
    measured(f"troubleshoot.sh: {seconds[len(seconds) // 2]:.1f} s, at most {slowest.seconds:.1f} s")
    assert slowest.seconds < 10


def test_each_finding_has_a_cause_and_a_mend(diagnoses):
    for found in diagnoses.values():
        for item in found.findings.values():
            assert item["cause"] and item["mend"] and item["docs"].endswith("#" + item["id"])


def test_no_secret_is_in_any_report(doctor, diagnoses):
    begun = time.time()
    doctor.shell("get '/boom?token=s33d-of-a-user'; logger 'login with password=s33d-of-a-login'; sleep 1.2")
    last = doctor.diagnose(since=begun, text=True)
    # The app did say it, and the report tells of that line.
    assert SEED in doctor.host.check_output("journalctl --no-pager --unit 'shop@*' --lines 50")
    assert "it went wrong" in last.output
    for name, found in {**diagnoses, "last": last}.items():
        assert SEED not in found.output + found.text, name


STATE = r"""
find /etc /srv /root /usr/local /var/lib /var/log /run /tmp -xdev \( \
    -path /run/systemd -o -path /run/log -o -path /var/log/journal -o -path /run/fastapi-resources \
    -o -path /run/received.jsonl -o -path '/var/lib/private/*' -o -path '/var/lib/prometheus/*' \
    -o -name '*.access.log' \) -prune -o -printf '%p %s %m %U %T@ %C@\n' | sort
systemctl list-units --plain --no-legend --all --type=service,socket,timer | grep -v run- | sort
"""


@pytest.mark.parametrize("nginx", ["started", "stopped"])
def test_it_changes_nothing(doctor, nginx):
    """Also while nginx is stopped, whose own test would leave a pid file."""
    if nginx == "stopped":
        doctor.shell("systemctl stop nginx")
    before = doctor.shell(STATE).stdout
    doctor.diagnose()
    after = doctor.shell(STATE).stdout
    doctor.shell("systemctl start nginx")
    assert after == before


def descendants(trace: str, first: set[str]) -> set[str]:
    """Processes that these started, and they themselves."""
    started = re.findall(r"^(\d+) .*(?:clone3?|v?fork)(?:\(| resumed).*= (\d+)$", trace, re.MULTILINE)
    found = set(first)
    while more := {child for parent, child in started if parent in found} - found:
        found |= more
    return found


def test_it_opens_no_file_for_writing(doctor):
    """All that it starts, but nginx's test, which writes into a memory that nobody else sees."""
    doctor.shell(
        "strace --follow-forks --quiet=all --output=/root/trace"
        " --trace=openat,open,creat,unlink,unlinkat,rename,renameat2,mkdir,mkdirat,chmod,fchmodat,unshare,%process"
        " troubleshoot.sh --json >/dev/null || true"
    )
    trace = doctor.host.file("/root/trace").content_string
    unshared = set(re.findall(r"^(\d+) unshare\(CLONE_NEWNS(?:\)\s+= 0$| <unfinished)", trace, re.MULTILINE))
    assert len(unshared) == 1 and trace.count("openat(") > 500
    apart = descendants(trace, unshared)
    lines = [line for line in trace.splitlines() if line.partition(" ")[0] not in apart]
    writes = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)|(unlink|rename|mkdir|chmod|creat)\w*\(")
    harmless = re.compile(r'"/dev/(null|tty)"|= -1 ')
    assert [line for line in lines if writes.search(line) and not harmless.search(line)] == []
    assert any(writes.search(line) for line in trace.splitlines()), "nothing was seen of nginx's test either"


# What an app can make in a runtime directory, which it has where it has no /dev/shm of its own, somebody else's
# directory that looks like an app, and an entry of the journal with fields that only systemd may set, a field that is
# there twice, and a sequence for terminals.
HOSTILE = r"""
as() { setpriv --reuid=shop --regid=shop --clear-groups "$@"; }
top=/run/shop/$id
install -d -o shop $top
as mkdir -p "$top/x /etc/made-by-an-app" "$top/"$'a\nb' "$top/*" "$top/-rf"
as mkfifo "$top/fifo"
as ln -s /etc/shadow "$top/link"
somebody=/srv/somebody
mkdir -p $somebody/releases/20260101T000000Z-0123456789ab
mkfifo $somebody/history.jsonl $somebody/.lock $somebody/releases/20260101T000000Z-0123456789ab/manifest.json
ln -s /run/somebody/20260101T000000Z-0123456789ab.sock $somebody/live.sock
as python3 - <<'END'
import socket
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect("/run/systemd/journal/socket")
sender.send(b"MESSAGE=forged \x1b]0;title\x07\nMESSAGE=twice\nUNIT=nginx.service\nUNIT=ssh.service\nPRIORITY=3\n"
            b"SYSLOG_IDENTIFIER=kernel\nMESSAGE_ID=fe6faa94e7774663a0da52717891d8ef\n")
END
sleep 1.1
"""


def test_an_app_neither_blocks_nor_misleads_nor_moves_it(doctor):
    begun = time.time()
    made = doctor.shell(HOSTILE)
    assert made.rc == 0, made
    try:
        found = doctor.diagnose(since=begun, text=True)
    finally:
        doctor.shell("rm -rf /run/shop/$id /srv/somebody")
    assert found.findings == {} and found.seconds < 10, found
    assert not doctor.host.file("/etc/made-by-an-app").exists
    facts = json.loads(found.output)["facts"]
    assert [app["name"] for app in facts["apps"]] == ["shop"] and facts["failed"] == {}
    (forged,) = [item for item in facts["journal"]["errors"] if "forged" in item["text"]]
    assert "nginx" not in forged["from"] and "ssh" not in forged["from"] and forged["from"] != "kernel"
    assert "\\x1b]0;title\\x07" in forged["text"] and "\x1b" not in found.text + found.output


def test_an_app_that_sleeps_is_not_woken(doctor):
    doctor.shell("systemctl stop $unit.service")
    doctor.diagnose()
    state = doctor.shell("systemctl is-active $unit.service || true").stdout.strip()
    doctor.shell("again")
    assert state == "inactive"


def test_a_terminal_gets_colours_and_a_file_gets_none(doctor):
    assert "\033[" not in doctor.ask().stdout
    terminal = doctor.shell("script --quiet --command 'troubleshoot.sh' /dev/null || true").stdout
    assert "\033[1" in terminal


def test_a_wrong_option_is_no_finding(doctor):
    assert doctor.ask("--nonsense").rc == 3


def test_only_root_may_ask(doctor):
    done = doctor.shell("setpriv --reuid=www-data --regid=www-data --clear-groups troubleshoot.sh; echo $?")
    assert "run it as root" in done.stderr + done.stdout


# -- the fleet --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet():
    def run(*arguments: str) -> subprocess.CompletedProcess:
        inventory = os.environ["MOLECULE_INVENTORY_FILE"]
        return subprocess.run(
            ["ansible-playbook", "-i", inventory, *arguments, "daoman.fastapi.troubleshoot"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )

    return run


def test_the_fleet_is_healthy(fleet):
    done = fleet("-e", "window=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Healthy: fastapi-monitoring-debian12, fastapi-monitoring-debian13" in done.stdout


def test_one_sick_host_of_the_fleet_is_named(fleet):
    name = "fastapi-monitoring-debian12"
    (host,) = testinfra.get_hosts([f"ansible://{name}"], ansible_inventory=os.environ["MOLECULE_INVENTORY_FILE"])
    host.check_output("systemctl disable --quiet nginx")
    try:
        done, tolerant = fleet("-e", "window=1"), fleet("-e", "window=1", "-e", "fail_on=critical")
    finally:
        host.check_output("systemctl enable --quiet nginx")
    assert (done.returncode, tolerant.returncode) == (2, 0), done.stdout + tolerant.stdout
    assert f"nginx: nginx will not start at the next boot  [{name}]" in done.stdout
    assert SEED not in done.stdout
