"""The placeholders that sites are served with until there are real certificates."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

PLACEHOLDER = "/var/lib/fastapi/placeholder/shop"
LINK = "/etc/nginx/tls/shop"
PLAY = "- {hosts: all, gather_facts: false, become: true, roles: [daoman.fastapi.certbot_tls]}"


def run(host, directory, *certificates):
    play = directory / "play.yml"
    play.write_text(PLAY, encoding="utf-8")
    done = subprocess.run(
        ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "--limit", host.backend.hostname,
         "-e", json.dumps({"certbot_tls_certificates": certificates}), str(play)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"})
    return done.returncode, done.stdout + done.stderr


def test_nginx_finds_certificate_and_key_where_it_looks(host):
    assert host.file(LINK).linked_to == PLACEHOLDER
    assert host.file(f"{LINK}/fullchain.pem").is_file
    assert host.file(f"{LINK}/privkey.pem").is_file


@pytest.mark.parametrize("name, mode", [("", 0o755), ("/fullchain.pem", 0o644), ("/privkey.pem", 0o600)])
def test_only_root_reads_the_key(host, name, mode):
    file = host.file(PLACEHOLDER + name)
    assert (file.user, file.group, file.mode) == ("root", "root", mode)


def test_the_certificate_is_for_all_names_and_for_long(host):
    text = host.check_output(f"openssl x509 -in {LINK}/fullchain.pem -noout -text -checkend {9 * 365 * 86400}")
    assert "DNS:shop.example.com, DNS:www.shop.example.com" in text
    assert "NIST CURVE: P-256" in text
    assert "CA:FALSE" in text
    assert "will not expire" in text


def test_it_says_that_it_is_not_real(host):
    assert "Placeholder" in host.check_output(f"openssl x509 -in {LINK}/fullchain.pem -noout -issuer")


def test_the_key_fits(host):
    key = host.check_output(f"openssl pkey -in {LINK}/privkey.pem -pubout")
    assert key == host.check_output(f"openssl x509 -in {LINK}/fullchain.pem -noout -pubkey")


def test_a_link_that_leads_elsewhere_is_left_alone(host):
    assert host.check_output("readlink /etc/nginx/tls/real") == "/etc/letsencrypt/live/real"
    assert not host.file("/var/lib/fastapi/placeholder/real").exists


def test_a_changed_name_makes_another_certificate_and_changing_it_back_another_again(host, tmp_path):
    shop = {"name": "shop", "domains": ["shop.example.com", "www.shop.example.com"]}
    before = host.check_output(f"sha256sum < {LINK}/fullchain.pem")
    code, output = run(host, tmp_path, {**shop, "domains": ["shop.example.com", "new.example.com"]})
    assert code == 0 and "changed=1" in output, output
    text = host.check_output(f"openssl x509 -in {LINK}/fullchain.pem -noout -ext subjectAltName")
    assert "DNS:new.example.com, DNS:shop.example.com" in text
    code, output = run(host, tmp_path, shop)
    assert code == 0 and "changed=1" in output, output
    assert host.check_output(f"sha256sum < {LINK}/fullchain.pem") != before
    test_the_key_fits(host)


@pytest.mark.parametrize("certificate, words", [
    ({"name": "../shop", "domains": ["a.example.com"]}, "'../shop' is not a name for a certificate"),
    ({"name": "shop", "domains": []}, "certbot_tls_certificates[0].domains"),
    ({"name": "shop", "domain": ["a.example.com"]}, "certbot_tls_certificates.domain. Supported parameters"),
])
def test_bad_input_is_refused_and_changes_nothing(host, tmp_path, certificate, words):
    before = host.check_output("find /var/lib/fastapi /etc/nginx -printf '%p %T@ %m\\n' | sort")
    code, output = run(host, tmp_path, certificate)
    assert code == 2
    assert words in output
    assert host.check_output("find /var/lib/fastapi /etc/nginx -printf '%p %T@ %m\\n' | sort") == before
