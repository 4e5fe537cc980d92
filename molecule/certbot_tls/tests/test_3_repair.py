"""Everything that can be wrong with a certificate, in one run, with users on the sites."""

from __future__ import annotations

import json
import time

import pytest
from conftest import BRIEF, DAYS45, changed, describe, disk, os_name, served

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
BRIEF_ONE = {"name": "brief", "domains": ["brief.{{ os }}.test"], "server": BRIEF}
ALL = [*DAMAGE, *CHANGES, "brief"]


@pytest.fixture(scope="module")
def repair(fleet):
    """The run, the serials before and after it, and what users saw meanwhile."""
    expires = fleet.run(certificates=[*changed(), BRIEF_ONE])
    assert expires.code == 0, expires.output[-3000:]
    before = fleet.on_all(lambda _name, host: {name: disk(host, name) for name in ALL})
    # It lives for 15 s.
    time.sleep(10)
    fleet.on_all(lambda _name, host: [host.check_output(command) for command, _words in DAMAGE.values()])
    certificates = [*changed(**{name: change for name, (change, _words) in CHANGES.items()}), BRIEF_ONE]
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


@pytest.mark.parametrize("name", [*DAMAGE, *CHANGES])
def test_the_run_says_why(repair, host, name):
    run = repair[0]
    said = " ".join(run.output.split())
    words = {**DAMAGE, **CHANGES}[name][1].format(os=os_name(host))
    assert words in said


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


def test_the_account_is_still_the_one(repair, host):
    accounts = host.check_output(f"ls {LINEAGE}/accounts/acme.test:14000/dir").split()
    assert len(accounts) == 1


def test_a_damaged_certificate_is_not_lost_where_the_ca_is_down(repair, fleet):
    """A sound copy is served, what is left stays where it is, and the next run mends it."""
    before = fleet.on_all(lambda _name, host: disk(host, "conf"))
    fleet.on_all(lambda _name, host: host.check_output(f"sed -i /authenticator/d {LINEAGE}/renewal/conf.conf"))
    certificates = changed(**{name: change for name, (change, _words) in CHANGES.items()})
    with fleet.without_acme():
        run = fleet.run(certificates=certificates)
    assert run.code == 2, run.output[-3000:]
    for name, host in fleet.hosts.items():
        said = run.of(host)
        assert "conf.conf is broken" in said or "does not answer" in said, said
        assert "served with the certificate before" in said, said
        assert served(host, f"conf.{name}.test") == disk(host, "conf") == before[name]
        assert host.check_output("nginx -t 2>&1; echo $?").endswith("0")
    run = fleet.run(certificates=certificates)
    assert run.code == 0, run.output[-3000:]
    for name, host in fleet.hosts.items():
        assert served(host, f"conf.{name}.test") == disk(host, "conf") != before[name]


def test_the_state_is_that_of_the_host(repair, host):
    found = json.loads(host.file("/var/lib/fastapi/certificates.json").content_string)["certificates"]
    assert found["conf"]["serial"] == disk(host, "conf")
