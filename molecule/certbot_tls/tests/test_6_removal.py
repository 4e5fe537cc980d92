"""Certificates that go, an account by contract, and a certbot from PyPI: all in one run."""

from __future__ import annotations

import pytest
from conftest import BASE, BOUND, describe, disk, os_name, served

STATUS = "curl --silent --insecure https://acme.test:15000/cert-status-by-serial/{serial}"
# One is revoked, one is only deleted, and one is still in use: its site stays.
GONE = {"old": {"state": "absent", "revoke": True}, "key": {"state": "absent"}, "shop": {"state": "absent"}}
BOUND_ONE = {"name": "bound", "domains": ["bound.{{ os }}.test"], "server": BOUND}
SITES = [{"name": name, "domain": f"{name}.{{{{ os }}}}.test"} for name in ("shop", "bound")]
SECRET = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


@pytest.fixture(scope="module")
def removal(fleet):
    """The run, and the serials before it."""
    serials = fleet.on_all(lambda _name, host: {name: disk(host, name) for name in GONE})
    run = fleet.run(
        certificates=[*({**item, **GONE[item["name"]]} for item in BASE if item["name"] in GONE), BOUND_ONE],
        nginx_sites=SITES,
        certbot_tls_manage_packages=True,
        certbot_tls_version="5.8.0",
        certbot_tls_eab_kid="customer",
        certbot_tls_eab_hmac_key="{{ acme_eab_key }}",
        certbot_tls_dns_plugin="",
        certbot_tls_dns_credentials="",
    )
    return run, serials


@pytest.mark.parametrize("name", ["old", "key"])
def test_nothing_is_left_of_a_removed_certificate(removal, host, name):
    for path in (
        f"/etc/nginx/tls/{name}",
        f"/var/lib/fastapi/placeholder/{name}",
        f"/etc/letsencrypt/live/{name}",
        f"/etc/letsencrypt/archive/{name}",
        f"/etc/letsencrypt/renewal/{name}.conf",
    ):
        assert host.run(f"test -e {path} -o -L {path}").rc != 0, path
    assert served(host, f"{name}.{os_name(host)}.test") == ""


@pytest.mark.parametrize("name, status", [("old", "Revoked"), ("key", "Valid")])
def test_it_is_revoked_where_that_was_asked_for(removal, host, name, status):
    serial = removal[1][os_name(host)][name]
    assert f'"Status":"{status}"' in host.check_output(STATUS.format(serial=serial)).replace(" ", "")


def test_a_certificate_in_use_is_not_removed(removal, host):
    run, serials = removal
    assert run.code == 2, run.output[-3000:]
    assert "shop: is to be removed, but /etc/nginx/sites-enabled/shop.conf still uses it" in run.of(host), run.of(host)
    assert served(host, f"shop.{os_name(host)}.test") == disk(host, "shop") == serials[os_name(host)]["shop"]


def test_the_account_and_the_others_stay(removal, host):
    assert len(host.check_output("ls /etc/letsencrypt/accounts/acme.test:14000/dir").split()) == 1
    assert host.file("/etc/letsencrypt/live/api/fullchain.pem").exists


def test_an_account_by_contract_has_its_certificate_and_its_key_is_not_shown(removal, host):
    assert "Pebble" in describe(host, "bound")
    assert served(host, f"bound.{os_name(host)}.test") == disk(host, "bound")
    assert SECRET not in removal[0].output


def test_another_certbot_takes_the_timer_over(removal, fleet):
    due = "sed -i 's/^renew_before_expiry.*/renew_before_expiry = 200 days/' /etc/letsencrypt/renewal/bound.conf"
    before = fleet.on_all(lambda _name, host: disk(host, "bound"))
    fleet.on_all(lambda _name, host: host.check_output(f"{due} && systemctl start certbot.service"))
    for name, host in fleet.hosts.items():
        assert "ExecStart={ path=/opt/certbot/5.8.0/bin/certbot" in host.check_output("systemctl show certbot.service")
        assert "version = 5.8.0" in host.file("/etc/letsencrypt/renewal/bound.conf").content_string
        assert served(host, f"bound.{name}.test") == disk(host, "bound") != before[name]
