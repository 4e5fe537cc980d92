"""Users who wait 20 seconds for an answer, among those who do not wait: none of them is lost in what is done every day."""

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


CERTIFICATE = f"""
cd /etc/nginx/tls/{APP}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=renewed \
    -keyout privkey.pem.new -out fullchain.pem.new 2>/dev/null
mv privkey.pem.new privkey.pem && mv fullchain.pem.new fullchain.pem
nginx -t -q && nginx -s reload
"""
SUBJECT = "openssl s_client -connect 127.0.0.1:443 -servername shop.example.com </dev/null 2>/dev/null | grep subject"


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
