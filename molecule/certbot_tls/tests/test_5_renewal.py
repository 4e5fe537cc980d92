"""Renewal by the timer's unit, when it is due, and when it fails."""

from __future__ import annotations

import json

import pytest
from conftest import changed, disk, os_name, served

CONF = "/etc/letsencrypt/renewal/shop.conf"
# More than it lives for, so that it is due.
DUE = "sed -i 's/^renew_before_expiry.*/renew_before_expiry = 200 days/' " + CONF
RENEW = "systemctl start certbot.service"


def renewal(host) -> dict:
    return json.loads(host.file("/var/lib/fastapi/certificates.json").content_string)["renewal"]


@pytest.fixture(scope="module")
def timer(fleet):
    """The unit of the timer renews the certificate of a site that users are on."""
    before = fleet.on_all(lambda _name, host: disk(host, "shop"))
    with fleet.watched("shop") as seen:
        for _round in range(3):
            fleet.on_all(lambda _name, host: host.check_output(f"{DUE} && {RENEW}"))
    return before, seen


def test_the_new_certificate_is_served(timer, host):
    before, _seen = timer
    assert served(host, f"shop.{os_name(host)}.test") == disk(host, "shop") != before[os_name(host)]


def test_no_request_fails_under_renewal(timer, host, measured):
    found = timer[1][os_name(host)][f"shop.{os_name(host)}.test"]
    assert set(found["answers"]) == {"200 page"}, found
    assert len(found["certificates"]) == 4, "the one before and three renewals"
    measured(f"{found['answers']['200 page']} requests under three renewals, 0 failed, {found['resent']} sent again")


def test_the_renewal_is_seen_by_monitoring(timer, host):
    assert renewal(host)["result"] == "success"
    assert abs(renewal(host)["time"] - int(host.check_output("date +%s"))) < 600


def test_a_renewal_that_fails_fails_the_unit_and_the_site_goes_on(timer, fleet):
    before = fleet.on_all(lambda _name, host: disk(host, "shop"))
    with fleet.without_acme():
        codes = fleet.on_all(lambda _name, host: host.run(f"{DUE}; {RENEW}").rc)
    assert codes == {"debian12": 1, "debian13": 1}
    for name, host in fleet.hosts.items():
        assert host.check_output("systemctl show --value --property Result certbot.service") == "exit-code"
        assert renewal(host)["result"] == "exit-code"
        assert served(host, f"shop.{name}.test") == disk(host, "shop") == before[name]


def test_a_renewal_that_nginx_cannot_load_fails_the_unit_and_the_next_run_mends_it(timer, fleet):
    """The hook tests before it reloads; certbot itself would call that a success."""
    before = fleet.on_all(lambda name, host: served(host, f"shop.{name}.test"))
    fleet.on_all(lambda _name, host: host.check_output("echo 'broken;' > /etc/nginx/conf.d/broken.conf"))
    codes = fleet.on_all(lambda _name, host: host.run(f"{DUE}; {RENEW}").rc)
    assert codes == {"debian12": 1, "debian13": 1}
    for name, host in fleet.hosts.items():
        assert served(host, f"shop.{name}.test") == before[name] != disk(host, "shop")
        assert "nginx serves another certificate" in host.check_output(
            "journalctl --unit certbot.service --lines 50 --no-pager"
        )
    fleet.on_all(lambda _name, host: host.check_output("rm /etc/nginx/conf.d/broken.conf"))
    run = fleet.obtain()
    assert run.code == 0, run.output[-3000:]
    for name, host in fleet.hosts.items():
        assert served(host, f"shop.{name}.test") == disk(host, "shop")


def test_a_dry_run_replaces_nothing_and_says_what_would_not_be_renewed(fleet):
    before = fleet.on_all(lambda _name, host: disk(host, "shop"))
    some = [item for item in changed() if item["name"] in ("shop", "wild", "both")]
    run = fleet.obtain(certificates=some, certbot_tls_dry_run=True)
    assert run.code == 0, run.output[-3000:]
    assert fleet.on_all(lambda _name, host: disk(host, "shop")) == before
    with fleet.without_acme():
        run = fleet.obtain(certificates=some, certbot_tls_dry_run=True)
    assert run.code == 2
    for host in fleet.hosts.values():
        assert "shop: would not be renewed. " in run.of(host) and "refused" in run.of(host), run.of(host)


@pytest.mark.parametrize(
    "name, days, due",
    [
        ("days6", 2, False),
        ("days6", 4, True),
        ("days45", 29, False),
        ("days45", 31, True),
        ("api", 59, False),
        ("api", 61, True),
    ],
)
def test_each_lifetime_is_renewed_in_time(host, name, days, due):
    """What certbot itself decides when it is told that it is another day. The CA is out of reach, so nothing is
    replaced."""
    out = host.run(
        f"faketime '+{days} days' /usr/bin/certbot renew --no-random-sleep-on-renew --cert-name {name} "
        "--server https://127.0.0.1:9/ --no-directory-hooks"
    )
    assert ("not yet due" not in out.stdout) is due, out
