"""Renewal by the timer's unit, when it is due, and when it fails."""

from __future__ import annotations

import json
import re

import pytest
from conftest import changed, disk, os_name, served

CONF = "/etc/letsencrypt/renewal/shop.conf"
# More than it lives for, so that it is due.
DUE = "sed -i 's/^renew_before_expiry.*/renew_before_expiry = 200 days/' " + CONF
RENEW = "systemctl start certbot.service"


# Users as hey plays them: over connections that are kept, and over a new one for each request.
HEY = {"keep": "", "new": "-disable-keepalive"}
# Where cron is to renew: a mount namespace in which systemd is not to be seen.
WITHOUT = "/usr/local/bin/without-systemd"
WITHOUT_SYSTEMD = """#!/bin/sh
exec unshare --mount sh -c 'mount -t tmpfs none /run/systemd && exec "$@"' sh "$@"
"""
CRON = "/etc/cron.d/fastapi-certbot"


def renewal(host) -> dict:
    return json.loads(host.file("/var/lib/fastapi/certificates.json").content_string)["renewal"]


@pytest.fixture(scope="module")
def timer(fleet):
    """The unit of the timer renews the certificate of a site that users are on."""

    def start(name, host):
        for kind, option in HEY.items():
            host.check_output(
                f"systemd-run --quiet --unit hey-{kind} --property KillSignal=SIGINT "
                f"--property StandardOutput=truncate:/run/hey-{kind} "
                f"hey -z 10m -c 4 -q 25 {option} -host shop.{name}.test https://127.0.0.1/page.txt"
            )

    def stop(_name, host):
        host.check_output("systemctl stop hey-keep hey-new")
        return {kind: host.file(f"/run/hey-{kind}").content_string for kind in HEY}

    before = fleet.on_all(lambda _name, host: disk(host, "shop"))
    with fleet.watched("shop") as seen:
        fleet.on_all(start)
        try:
            for _round in range(3):
                fleet.on_all(lambda _name, host: host.check_output(f"{DUE} && {RENEW}"))
        finally:
            hey = fleet.on_all(stop)
    return before, seen, hey


def test_the_new_certificate_is_served(timer, host):
    before, _seen, _hey = timer
    assert served(host, f"shop.{os_name(host)}.test") == disk(host, "shop") != before[os_name(host)]


def test_no_request_fails_under_renewal(timer, host, measured):
    found = timer[1][os_name(host)][f"shop.{os_name(host)}.test"]
    assert set(found["answers"]) == {"200 page"}, found
    assert len(found["certificates"]) == 4, "the one before and three renewals"
    measured(f"{found['answers']['200 page']} requests under three renewals, 0 failed, {found['resent']} sent again")


@pytest.mark.parametrize("kind", HEY)
def test_no_request_of_hey_fails_under_renewal(timer, host, kind, measured):
    said = timer[2][os_name(host)][kind]
    assert "Error distribution" not in said, said
    answers = re.findall(r"\[(\d+)\]\s+(\d+) responses", said)
    assert [status for status, _count in answers] == ["200"] and int(answers[0][1]) > 200, said
    measured(f"hey, {kind}: {answers[0][1]} requests under three renewals, 0 failed")


def test_the_renewal_is_seen_by_monitoring(timer, host):
    host.check_output("mkdir -p /var/lib/prometheus/node-exporter && /usr/local/sbin/fastapi-certificates record")
    metrics = host.file("/var/lib/prometheus/node-exporter/fastapi_certificates.prom").content_string
    assert "\nfastapi_certificate_renewal_success 1\n" in metrics
    assert '\nfastapi_certificate_served{name="shop"} 1\n' in metrics
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
    # Neither does a run make it worse: one that finds nginx so undoes the links that it has changed.
    placeholder = "/var/lib/fastapi/placeholder/api"
    fleet.on_all(lambda _name, host: host.check_output(f"ln -sfn {placeholder} /etc/nginx/tls/api"))
    run = fleet.part("obtain")
    assert run.code == 2, run.output[-3000:]
    for name, host in fleet.hosts.items():
        for site in ("shop", "api"):
            assert f"{site}: certbot has the certificate, but nginx does not serve it. nginx refuses" in run.of(host)
        assert host.check_output("readlink /etc/nginx/tls/api") == placeholder
        assert served(host, f"shop.{name}.test") == before[name]
    fleet.on_all(lambda _name, host: host.check_output("rm /etc/nginx/conf.d/broken.conf"))
    run = fleet.part("obtain")
    assert run.code == 0, run.output[-3000:]
    for name, host in fleet.hosts.items():
        for site in ("shop", "api"):
            assert served(host, f"{site}.{name}.test") == disk(host, site)
            assert host.check_output(f"readlink /etc/nginx/tls/{site}") == f"/etc/letsencrypt/live/{site}"


def test_cron_renews_where_there_is_no_systemd(fleet):
    def without_systemd(_name, host):
        host.check_output(f"cat > {WITHOUT} <<'END'\n{WITHOUT_SYSTEMD}END\nchmod +x {WITHOUT}")
        python = f"#!/bin/sh\nexec {WITHOUT} python3 \"$@\"\n"
        host.check_output(f"cat > {WITHOUT}-python <<'END'\n{python}END\nchmod +x {WITHOUT}-python")

    def renew(_name, host, around=WITHOUT):
        # As cron does it: what stands behind the user, without an environment.
        line = host.file(CRON).content_string.splitlines()[-1].partition(" root ")[2]
        host.check_output(f"{DUE} && cat > /run/line <<'END'\n{line}\nEND")
        done = host.run(f"env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin {around} sh /run/line")
        return done.rc, disk(host, "shop"), renewal(host)["result"]

    fleet.on_all(without_systemd)
    run = fleet.part("renewal", ansible_python_interpreter=f"{WITHOUT}-python")
    assert run.code == 0, run.output[-3000:]
    try:
        before = fleet.on_all(lambda _name, host: disk(host, "shop"))
        beside = fleet.on_all(lambda name, host: renew(name, host, around=""))
        renewed = fleet.on_all(renew)
        with fleet.without_acme():
            failed = fleet.on_all(renew)
    finally:
        fleet.on_all(lambda _name, host: host.check_output(f"rm {CRON}"))
    for name, host in fleet.hosts.items():
        assert beside[name][:2] == (0, before[name]), "it leaves that to systemd"
        assert renewed[name][0] == 0 and renewed[name][1] != before[name] and renewed[name][2] == "success"
        assert served(host, f"shop.{name}.test") == renewed[name][1]
        assert failed[name] == (1, renewed[name][1], "failed")


def test_a_dry_run_replaces_nothing_and_says_what_would_not_be_renewed(fleet):
    before = fleet.on_all(lambda _name, host: disk(host, "shop"))
    some = [item for item in changed() if item["name"] in ("shop", "wild", "both")]
    run = fleet.part("obtain", certificates=some, certbot_tls_dry_run=True)
    assert run.code == 0, run.output[-3000:]
    assert fleet.on_all(lambda _name, host: disk(host, "shop")) == before
    with fleet.without_acme():
        run = fleet.part("obtain", certificates=some, certbot_tls_dry_run=True)
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
