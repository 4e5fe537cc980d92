"""Everything that can be wrong with a certificate, in one run, with users on the sites.

Among it is what the run of test_2_failures.py could not do, and its certificate that lives for 15 s.
"""

from __future__ import annotations

import pytest
from conftest import ADDED, DAYS45, changed, describe, disk, os_name, served

LINEAGE = "/etc/letsencrypt"
# What is changed on disk, and what the run says about it.
DAMAGE = {
    "key": (f"rm {LINEAGE}/archive/key/privkey1.pem", "privkey.pem leads nowhere"),
    "conf": (f"echo '[renewalparams' > {LINEAGE}/renewal/conf.conf", "conf.conf is broken"),
    "wild": (f"ln -sfn ../../archive/wild/cert9.pem {LINEAGE}/live/wild/cert.pem", "cert.pem leads nowhere"),
    "days45": (f"truncate --size 1200 {LINEAGE}/archive/days45/fullchain1.pem", "fullchain.pem is damaged"),
    "days6": (f"openssl genrsa 2048 2>/dev/null > {LINEAGE}/archive/days6/privkey1.pem", "is not the key"),
    "revoked": (
        "REQUESTS_CA_BUNDLE=/etc/letsencrypt/fastapi-ca.pem certbot revoke --non-interactive --cert-name revoked "
        "--server https://acme.test:14000/dir --no-delete-after-revoke",
        "its CA wants it replaced",
    ),
}
# What is changed in the inventory.
CHANGES = {
    "shop": ({"domains": ["shop.{{ os }}.test", "www.{{ os }}.test"]}, "www.{os}.test: new"),
    "api": ({"key_type": "rsa", "rsa_key_size": 3072, "server": DAYS45}, "key: ecdsa secp256r1 to rsa 3072; server: "),
}
# Names that led nowhere, and were given up. The ACME server that was down has another address now.
GIVEN_UP = [{"name": name, "domains": ["gone.test"], "state": "absent"} for name in ("nowhere", "gone")]
ALL = [*DAMAGE, *CHANGES, "closed", "brief"]


@pytest.fixture(scope="module")
def repair(fleet):
    """The run, the serials before and after it, and what users saw meanwhile."""
    before = fleet.on_all(lambda _name, host: {name: disk(host, name) for name in ALL})
    expired = "! openssl x509 -noout -checkend 0 -in /etc/nginx/tls/brief/fullchain.pem"
    fleet.on_all(lambda _name, host: host.check_output(f"timeout 20 sh -c 'until {expired}; do sleep 0.2; done'"))
    fleet.on_all(lambda _name, host: [host.check_output(command) for command, _words in DAMAGE.values()])
    certificates = [*changed(**{name: change for name, (change, _words) in CHANGES.items()}), *ADDED, *GIVEN_UP]
    with fleet.watched(*ALL, pause=0.5) as seen:
        run = fleet.run("--diff", certificates=certificates)
    after = fleet.on_all(lambda _name, host: {name: disk(host, name) for name in ALL})
    return run, before, after, seen


def test_one_run_mends_everything(repair):
    run, _before, _after, _seen = repair
    assert run.code == 0, run.output[-5000:]


@pytest.mark.parametrize("name", ALL)
def test_the_certificate_is_replaced_and_served(repair, host, name):
    _run, before, after, _seen = repair
    assert before[os_name(host)][name] != after[os_name(host)][name]
    assert served(host, f"{name}.{os_name(host)}.test") == disk(host, name)
    assert host.check_output(f"readlink /etc/nginx/tls/{name}") == f"{LINEAGE}/live/{name}"


@pytest.mark.parametrize("name", ALL)
def test_the_run_says_why(repair, host, name):
    run = repair[0]
    said = " ".join(run.output.split())
    why = {**DAMAGE, **CHANGES, "closed": (None, "there is none yet"), "brief": (None, "expired on ")}
    assert why[name][1].format(os=os_name(host)) in said


@pytest.mark.parametrize("name", ALL)
def test_users_see_the_old_certificate_until_the_new_one_is_there(repair, host, name):
    _run, before, after, seen = repair
    found = seen[os_name(host)][f"{name}.{os_name(host)}.test"]
    assert found["certificates"] == [before[os_name(host)][name], after[os_name(host)][name]]


@pytest.mark.parametrize("name", ALL)
def test_no_request_fails(repair, host, name, measured):
    found = repair[3][os_name(host)][f"{name}.{os_name(host)}.test"]
    assert set(found["answers"]) == {"200 page"}, found
    assert found["answers"]["200 page"] > 20
    if name == "shop":
        total = sum(entry["answers"]["200 page"] for entry in repair[3][os_name(host)].values())
        measured(f"{total} requests while certificates were replaced, 0 failed")


def test_names_and_keys_are_the_wanted_ones(repair, host):
    shop, api = describe(host, "shop"), describe(host, "api")
    assert f"DNS:shop.{os_name(host)}.test, DNS:www.{os_name(host)}.test" in shop
    assert "Public-Key: (3072 bit)" in api


def test_nothing_is_left_of_what_was_damaged(repair, host):
    assert host.check_output(f"find {LINEAGE}/fastapi -type f") == ""


@pytest.mark.parametrize("name", ["nowhere", "gone"])
def test_nothing_is_left_of_what_was_given_up(repair, host, name):
    assert not host.file(f"/var/lib/fastapi/placeholder/{name}").exists
    assert host.run(f"test -L /etc/nginx/tls/{name}").rc == 1


def test_the_account_is_still_the_one(repair, host):
    accounts = host.check_output(f"ls {LINEAGE}/accounts/acme.test:14000/dir").split()
    assert len(accounts) == 1
