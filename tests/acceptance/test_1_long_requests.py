"""What is done to a site every day loses nobody: also not those who wait 20 seconds for their answer."""

from __future__ import annotations

import time

import pytest
from fleet import APP, LONG, SHORT, wait_for


@pytest.fixture(scope="module")
def slow_seconds(fleet):
    return LONG if fleet.long else SHORT


def old_answers_after(tallies, version: str, moment: float) -> dict[str, float]:
    """Hosts on which a version still answered after a moment, with the seconds for which it did."""
    last = {host: tally.versions[version].last for host, tally in tallies.items() if version in tally.versions}
    return {host: round(at - moment, 2) for host, at in last.items() if at > moment}


def test_a_deploy_of_new_code_loses_nothing(fleet, users):
    before = fleet.versions()
    with users.lossless("deploy of new code") as tallies:
        run = fleet.deployed()
    assert fleet.versions() == {fleet.version}
    for version in before:
        assert not old_answers_after(tallies, version, run.ended)
    for host in fleet.hosts:
        assert host.served_alone(host.live()), host.units()
        assert host.state(host.live()) == "good"


@pytest.mark.long
def test_a_change_of_settings_loses_nothing(fleet, users):
    with users.lossless("change of settings"):
        fleet.deployed(env={"APP_VERSION": "set"}, gunicorn={"workers": 4})
    assert fleet.versions() == {"set"}
    for host in fleet.hosts:
        assert len(host.workers()) == 4


NO_NETWORK = "ip route show default > /run/route; ip route del default"
NETWORK = "ip route add $(cat /run/route)"


def test_a_rollback_takes_less_than_five_seconds_and_no_network(fleet, users):
    good = next(iter(fleet.versions()))
    fleet.deployed()
    for host in fleet.hosts:
        host.run(NO_NETWORK)
    try:
        with users.lossless("rollback") as tallies:
            run = fleet.deployed("-e", f"app={APP}", "-e", "reason=acceptance", playbook="rollback")
    finally:
        for host in fleet.hosts:
            host.run(NETWORK)
    assert fleet.versions() == {good}
    for host, tally in tallies.items():
        seconds = tally.versions[good].first - run.began
        # Two hosts on two cores, with users on both, say nothing about the time that one takes.
        assert seconds < (5 if fleet.long else 20), f"{host}: {seconds:.1f} s from the command to the first answer"
        print(f"{host}: rolled back {seconds:.1f} s after the command")
    for host in fleet.hosts:
        last = host.history()[-1]
        assert (last["action"], last["reason"]) == ("rollback", "acceptance")


CERTIFICATE = f"""
cd /etc/nginx/tls/{APP}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=renewed \
    -keyout privkey.pem.new -out fullchain.pem.new 2>/dev/null
mv privkey.pem.new privkey.pem && mv fullchain.pem.new fullchain.pem
nginx -t -q && nginx -s reload
"""
SUBJECT = "openssl s_client -connect 127.0.0.1:443 -servername shop.example.com </dev/null 2>/dev/null | grep subject"


def test_a_new_certificate_loses_nothing(fleet, users):
    """A reload closes idle connections, also those on which a request is on its way: these are sent again."""
    with users.lossless("new certificates, three reloads", resent=True):
        for _ in range(3):
            for host in fleet.hosts:
                host.run(CERTIFICATE)
            time.sleep(1)
    for host in fleet.hosts:
        wait_for(lambda host=host: "renewed" in host.run(SUBJECT, check=False), 10, "the new certificate")


def test_recycling_of_workers_loses_nothing(fleet, users):
    """Also requests that take longer than `timeout`, in a worker that has stopped and only drains."""
    assert fleet.slow_seconds > fleet.options["gunicorn"]["timeout"]
    most = 300 if fleet.long else 100
    fleet.deployed(gunicorn={"max_requests": most, "max_requests_jitter": most})
    begun = {host.name: host.run("date +%s") for host in fleet.hosts}

    def booted(host) -> int:
        return int(host.run(f"{said(host)} | grep -c 'Booting worker' || true"))

    def said(host) -> str:
        return f"journalctl --no-pager -o cat --since @{begun[host.name]} -u '{APP}@*'"

    with users.lossless("recycling of workers"):
        time.sleep(45 if fleet.long else 20)
        # A machine that is busy answers fewer requests in that time.
        wait_for(lambda: all(booted(host) >= 2 for host in fleet.hosts), 60, "two recycled workers on each host")
    for host in fleet.hosts:
        assert "WORKER TIMEOUT" not in host.run(said(host))
