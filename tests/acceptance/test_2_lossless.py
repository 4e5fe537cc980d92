"""Whatever else is done to a site costs no user a request; a plain restart does, and the users notice."""

from __future__ import annotations

import re

import pytest
from fleet import APP


@pytest.mark.long
def test_a_deploy_with_nothing_new_changes_nothing(fleet, users):
    fleet.deployed()
    before = fleet.live()
    with users.lossless("deploy with nothing new"):
        run = fleet.deployed()
    assert "changed=0" in run.output
    assert fleet.live() == before


@pytest.mark.long
def test_a_new_release_takes_over_while_the_guard_watches(fleet, users):
    """During the guard's time the old release still runs; nginx's kept connections lead to the new one all the same."""
    fleet.guard(8)
    (before,) = fleet.versions()
    with users.lossless("deploy with the guard") as tallies:
        fleet.deployed()
    for load, tally in zip(users.loads.values(), tallies.values(), strict=True):
        late = [moment for moment in tally.versions[before].times if moment > tally.versions[fleet.version].first + 3]
        # A connection on which an answer had begun before is told with the next one.
        assert len(late) <= load.slow + load.sse, f"the old release answered {len(late)} requests 3 s after the switch"
    assert fleet.versions() == {fleet.version}


@pytest.mark.long
def test_the_site_playbook_loses_nothing(fleet, users):
    """All of a site at once: a release, and nginx's configuration, whose reload closes idle connections."""
    with users.lossless("site playbook, nginx changed", resent=True):
        fleet.deployed(playbook="site", nginx={"client_max_body_size": "11m"})
    assert fleet.versions() == {fleet.version}
    fleet.deployed(playbook="site")


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


@pytest.mark.long
def test_what_outlasts_the_drain_is_cut_and_reported(fleet, users):
    """Slow requests have less time than they need: those cut are the slow ones, and the deploy says how many."""
    fleet.deployed(gunicorn={"graceful_timeout": 5})
    fleet.next_version()
    # One request that is sure to be open: it begins when the old release has no other user to come.
    url = "http://shop.example.com/slow?seconds=15"
    for host in fleet.hosts:
        ask = f"curl -s -m 20 --unix-socket /run/{APP}/{host.live()}.sock '{url}'"
        host.when_phase("after_switch", f"systemd-run --quiet --collect {ask}")
    hooks = {"after_switch": ["sleep 0.5"]}
    with users.lossless("drain that is too short", kinds=("get", "post", "static", "ws", "sse")) as tallies:
        run = fleet.deployed(release={**fleet.options["release"], "hooks": hooks})
    cut = [failure for tally in tallies.values() for failure in tally.excused]
    assert {failure.what for failure in cut} <= {"slow"}
    # What is still open is counted a moment before it is cut, so that some of it may just end in time.
    found = re.search(r"(\d+) requests and (\d+) WebSockets were still open", run.output)
    assert found, run.output
    assert int(found[1]) >= len(cut) + 1
    assert int(found[2]) == sum(tally.reconnects["ws"] for tally in tallies.values())


# -- the control: what the same users see when it is done otherwise ---------------------------------------------------


def test_a_plain_restart_is_noticed(fleet, users):
    # A release whose workers are not being recycled: their WebSockets hold the stop up for longer than users wait.
    fleet.deployed()
    with users.control("control: systemctl restart") as tallies:
        for host in fleet.hosts:
            host.run(f"systemctl restart {APP}@{host.live()}.service")
    for host, tally in tallies.items():
        assert tally.failures, f"{host}: they would not notice a lossy deploy either: {tally.report()}"


@pytest.mark.long
def test_a_restart_with_the_socket_is_noticed(fleet, users):
    with users.control("control: systemctl restart of socket and service") as tallies:
        for host in fleet.hosts:
            host.run(f"systemctl restart {APP}@{host.live()}.socket {APP}@{host.live()}.service")
    for host, tally in tallies.items():
        assert "status" in {failure.kind for failure in tally.failures}, f"{host}: {tally.report()}"
