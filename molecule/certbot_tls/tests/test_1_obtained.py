"""What one run of the playbook has brought, on hosts that were bare."""

from __future__ import annotations

import json

import pytest
from conftest import BASE, changed, describe, disk, os_name, served

REAL = [item["name"] for item in BASE if item["name"] not in ("local", "mine")]
ROOT = "curl --silent --insecure https://acme.test:{port}/roots/0"
PORTS = {"days45": 15045, "days6": 15006}


def domains(host, name: str) -> list[str]:
    item = next(item for item in BASE if item["name"] == name)
    return [domain.replace("{{ os }}", os_name(host)).replace("*", "any") for domain in item["domains"]]


@pytest.mark.parametrize("name", REAL)
def test_clients_that_trust_the_ca_get_the_page(host, name):
    host.check_output(ROOT.format(port=PORTS.get(name, 15000)) + " > /run/root.pem")
    for domain in domains(host, name):
        asked = host.run(
            f"curl --silent --location --cacert /run/root.pem --connect-to ::127.0.0.1: https://{domain}/page.txt"
        )
        assert asked.stdout == "page", f"{domain}: {asked}"


def test_keys_are_of_the_wanted_types(host):
    assert "ASN1 OID: prime256v1" in describe(host, "shop")
    assert "Public-Key: (2048 bit)" in describe(host, "days6")


@pytest.mark.parametrize(
    "path, mode",
    [
        ("/etc/letsencrypt/live", 0o700),
        ("/etc/letsencrypt/archive", 0o700),
        ("/etc/letsencrypt/archive/shop/privkey1.pem", 0o600),
        ("/etc/letsencrypt/fastapi-dns.ini", 0o600),
        ("/etc/letsencrypt/fastapi.env", 0o600),
        ("/var/lib/fastapi/placeholder/shop/privkey.pem", 0o600),
    ],
)
def test_only_root_reads_keys_and_credentials(host, path, mode):
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", mode)


def test_certbots_environment_is_only_where_root_looks(host):
    secret = "s33d-of-the-environment"
    assert secret in host.file("/etc/letsencrypt/fastapi.env").content_string
    journal = host.check_output("journalctl --no-pager --output=cat")
    assert "Invoked with certificates=" in journal and secret not in journal
    assert secret not in host.check_output("systemctl show certbot.service certbot.timer")
    found = host.run(f"grep -rlI -- {secret} /etc /run /tmp /usr/local /var/lib /var/log --exclude-dir=journal")
    assert found.stdout.split() == ["/etc/letsencrypt/fastapi.env"], found.stdout


def test_hosts_behind_one_name_have_keys_of_their_own(fleet):
    keys = fleet.on_all(
        lambda _name, host: host.check_output("openssl x509 -noout -pubkey -in /etc/nginx/tls/both/fullchain.pem")
    )
    assert len(set(keys.values())) == 2


def test_a_host_answers_challenges_of_its_peers_but_asks_nobody_for_theirs(fleet):
    there, asked = fleet.hosts["debian12"], fleet.hosts["debian13"]
    path = "/.well-known/acme-challenge/of-a-peer"
    there.check_output(f"printf peer > /var/www/acme{path}")
    curl = "curl --silent --max-time 5 --write-out ' %{http_code}' http://127.0.0.1" + path
    try:
        assert asked.check_output(f"{curl} --header 'Host: shop.debian13.test'") == "peer 200"
        assert asked.run(f"{curl} --header 'Host: acme-peer.internal'").stdout.endswith(" 404")
        assert asked.run(f"{curl}-not --header 'Host: shop.debian13.test'").stdout.endswith(" 404")
    finally:
        there.check_output(f"rm /var/www/acme{path}")


def test_a_certificate_that_is_not_to_be_obtained_is_a_placeholder(host):
    assert "Placeholder" in describe(host, "local")
    assert served(host, f"local.{os_name(host)}.test") == disk(host, "local")


def test_a_link_that_leads_elsewhere_is_left_alone(host):
    assert host.check_output("readlink /etc/nginx/tls/mine") == "/srv/certificates/mine"
    assert not host.file("/etc/letsencrypt/renewal/mine.conf").exists


@pytest.mark.parametrize("name, hours", [("shop", 720), ("days45", 360), ("days6", 72)])
def test_the_timer_knows_when_to_renew(host, name, hours):
    assert f"renew_before_expiry = {hours} hours" in host.file(f"/etc/letsencrypt/renewal/{name}.conf").content_string
    assert host.service("certbot.timer").is_enabled and host.service("certbot.timer").is_running


def test_the_state_can_be_read_by_monitoring(host):
    found = json.loads(host.file("/var/lib/fastapi/certificates.json").content_string)["certificates"]
    assert {name: entry["kind"] for name, entry in found.items()} == {
        **dict.fromkeys(REAL, "certbot"),
        "local": "placeholder",
        "mine": "other",
    }
    assert found["shop"]["serial"] == disk(host, "shop")
    assert found["shop"]["served"] is True and found["shop"]["fault"] is None


def test_a_second_run_changes_nothing_though_the_ca_is_down(fleet):
    with fleet.without_acme():
        run = fleet.run()
    assert run.code == 0, run.output[-3000:]
    assert [run.changed(host) for host in fleet.hosts.values()] == [0, 0], run.output[-3000:]


def test_check_mode_predicts_what_a_change_would_do_and_does_not_do_it(fleet):
    before = {name: disk(host, "api") for name, host in fleet.hosts.items()}
    run = fleet.run("--check", "--diff", certificates=changed(api={"key_type": "rsa"}))
    assert run.code == 0, run.output[-3000:]
    assert "key: ecdsa secp256r1 to rsa 2048" in run.output
    assert {name: disk(host, "api") for name, host in fleet.hosts.items()} == before


def test_what_no_ca_would_do_is_refused_before_anything_changes(fleet):
    def files(_name, host):
        return host.check_output("find /etc/letsencrypt /etc/nginx -printf '%p %T@\\n' | sort")

    before = fleet.on_all(files)
    run = fleet.run(
        certificates=changed(shop={"server": "https://acme-v02.api.letsencrypt.org/directory"}),
        certbot_tls_eab_kid="customer",
        certbot_tls_staging=True,
    )
    said = " ".join(run.output.split())
    assert run.code == 2 and "nothing was changed" in said, run.output[-3000:]
    assert "is reserved and nobody's" in said
    assert "certbot_tls_eab_hmac_key: is required as well" in said
    assert "certbot_tls_staging: is of Let's Encrypt" in said
    assert fleet.on_all(files) == before
