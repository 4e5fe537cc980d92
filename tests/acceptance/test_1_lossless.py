"""What is done to a site every day costs no user a request; what is done otherwise does, and the users notice."""

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


def test_a_deploy_with_nothing_new_changes_nothing(fleet, users):
    fleet.deployed()
    before = fleet.live()
    with users.lossless("deploy with nothing new"):
        run = fleet.deployed()
    assert "changed=0" in run.output
    assert fleet.live() == before


def test_a_new_release_takes_over_while_the_guard_watches(fleet, users):
    """During the guard's time the old release still runs; nginx's kept connections lead to the new one all the same."""
    fleet.guard(4)
    before = fleet.versions()
    with users.lossless("deploy with the guard") as tallies:
        run = fleet.deployed()
    for version in before:
        late = [tally.versions[version].last for tally in tallies.values() if version in tally.versions]
        assert all(last < run.ended - 4 for last in late), "the old release answered while it was being replaced"
    assert fleet.versions() == {fleet.version}


@pytest.mark.long
def test_a_change_of_settings_loses_nothing(fleet, users):
    with users.lossless("change of settings"):
        fleet.deployed(env={"APP_VERSION": "set"}, gunicorn={"workers": 4})
    assert fleet.versions() == {"set"}
    for host in fleet.hosts:
        assert len(host.workers()) == 4


@pytest.mark.long
def test_the_site_playbook_loses_nothing(fleet, users):
    """All of a site at once: a release, and nginx's configuration, whose reload closes idle connections."""
    with users.lossless("site playbook, nginx changed", resent=True):
        fleet.deployed(playbook="site", nginx={"client_max_body_size": "11m"})
    assert fleet.versions() == {fleet.version}
    fleet.deployed(playbook="site")


NO_NETWORK = "ip route show default > /run/route; ip route del default"
NETWORK = "ip route add $(cat /run/route)"


def test_a_rollback_takes_less_than_five_seconds_and_no_network(fleet, users):
    fleet.deployed()
    good = fleet.version
    fleet.next_version()
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
        assert seconds < 5, f"{host}: {seconds:.1f} s from the command to the first answer"
        print(f"{host}: rolled back {seconds:.1f} s after the command")
    for host in fleet.hosts:
        last = host.history()[-1]
        assert (last["action"], last["reason"]) == ("rollback", "acceptance")


@pytest.mark.long
def test_a_rollback_to_a_named_release_loses_nothing(fleet, users):
    fleet.deployed()
    good, ids = fleet.version, fleet.live()
    for _ in range(2):
        fleet.next_version()
        fleet.deployed()
    with users.lossless("rollback to a named release"):
        fleet.deployed("-e", f"app={APP}", "-e", f"release={ids[0]}", playbook="rollback")
    assert fleet.versions() == {good}


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
    fleet.deployed(gunicorn={"max_requests": 300, "max_requests_jitter": 300})
    begun = {host.name: host.run("date +%s") for host in fleet.hosts}
    with users.lossless("recycling of workers"):
        time.sleep(45 if fleet.long else 20)
    for host in fleet.hosts:
        since = f"journalctl --no-pager -o cat --since @{begun[host.name]} -u '{APP}@*'"
        booted = int(host.run(f"{since} | grep -c 'Booting worker' || true"))
        assert booted >= 3, f"{host.name}: {booted} workers were recycled"
        assert "WORKER TIMEOUT" not in host.run(since)


@pytest.mark.long
def test_what_outlasts_the_drain_is_cut_and_reported(fleet, users):
    """Slow requests have three seconds, and need 20: those cut are the slow ones, and the deploy says how many."""
    fleet.deployed(gunicorn={"graceful_timeout": 5})
    fleet.next_version()
    with users.lossless("drain that is too short", kinds=("get", "post", "static", "ws", "sse")) as tallies:
        run = fleet.deployed(gunicorn={"graceful_timeout": 5})
    cut = [failure for tally in tallies.values() for failure in tally.excused]
    assert cut, "nothing was cut"
    assert {failure.what for failure in cut} == {"slow"}
    assert f"{len(cut)} requests" in run.output, f"{len(cut)} requests were cut\n{run.output}"
    assert f"{sum(tally.reconnects['ws'] for tally in tallies.values())} WebSockets" in run.output, run.output


# -- the control: what the same users see when it is done otherwise ---------------------------------------------------


def test_a_plain_restart_is_noticed(fleet, users):
    with users.control("control: systemctl restart") as tallies:
        for host in fleet.hosts:
            host.run(f"systemctl restart {APP}@{host.live()}.service")
    for host, tally in tallies.items():
        assert tally.failures, f"{host}: the users noticed nothing: they would not notice a lossy deploy either"


@pytest.mark.long
def test_a_restart_with_the_socket_is_noticed(fleet, users):
    with users.control("control: systemctl restart of socket and service") as tallies:
        for host in fleet.hosts:
            host.run(f"systemctl restart {APP}@{host.live()}.socket {APP}@{host.live()}.service")
    for host, tally in tallies.items():
        assert "status" in {failure.kind for failure in tally.failures}, f"{host}: {tally.report()}"
