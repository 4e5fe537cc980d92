# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided about certificates without a host: what differs, when to renew, what certbot's words mean."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import certificate_rules as rules
from ansible_collections.daoman.fastapi.plugins.module_utils import certificates as plan
from ansible_collections.daoman.fastapi.plugins.module_utils import spec
from ansible_collections.daoman.fastapi.plugins.module_utils._host import tls as tls_host
from ansible_collections.daoman.fastapi.plugins.module_utils._host.redact import Redactor
from ansible_collections.daoman.fastapi.plugins.module_utils._host.tls import Fault
from ansible_collections.daoman.fastapi.plugins.modules import certificates

DAY = 86400
NOW = 1_800_000_000
WANTED = {
    "name": "shop",
    "domains": ["shop.example.org", "WWW.shop.example.org"],
    "key_type": "ecdsa",
    "elliptic_curve": "secp256r1",
    "rsa_key_size": 2048,
    "server": plan.LETS_ENCRYPT,
    "profile": "",
    "renew_before_expiry": "",
    "challenge": "webroot",
    "authenticator": "webroot",
}
HAVE = {"server": plan.LETS_ENCRYPT, "authenticator": "webroot", "webroot_path": "/var/www/acme,", "key_type": "ecdsa"}
CERTIFICATE = {
    "serial": "01",
    "names": {"shop.example.org", "www.shop.example.org"},
    "key_type": "ecdsa",
    "key": "secp256r1",
    "not_before": NOW - 10 * DAY,
    "not_after": NOW + 80 * DAY,
}
RENEWAL = """# renew_before_expiry = 30 days
version = 4.0.0
archive_dir = /etc/letsencrypt/archive/shop
cert = /etc/letsencrypt/live/shop/cert.pem
privkey = /etc/letsencrypt/live/shop/privkey.pem
chain = /etc/letsencrypt/live/shop/chain.pem
fullchain = /etc/letsencrypt/live/shop/fullchain.pem

# Options used in the renewal process
[renewalparams]
account = 0123456789abcdef
authenticator = webroot
webroot_path = /var/www/acme,
server = https://acme-v02.api.letsencrypt.org/directory
key_type = ecdsa
[[webroot_map]]
server.example.org = /elsewhere
"""


def run(words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def differences(wanted=(), have=(), certificate=()):
    return plan.differences(
        {**WANTED, **dict(wanted)}, {**HAVE, **dict(have)}, {**CERTIFICATE, **dict(certificate)}, NOW, "/var/www/acme"
    )


# -- What differs -----------------------------------------------------------------------------------------------------


def test_a_certificate_that_is_as_wanted_is_left_alone():
    assert differences() == []


@pytest.mark.parametrize(
    "wanted, have, certificate, said",
    [
        ({"domains": ["shop.example.org", "www.shop.example.org", "b.example.org"]}, {}, {}, "b.example.org: new"),
        ({"domains": ["shop.example.org"]}, {}, {}, "www.shop.example.org: no longer wanted"),
        ({"key_type": "rsa"}, {}, {}, "key: ecdsa secp256r1 to rsa 2048"),
        ({"elliptic_curve": "secp384r1"}, {}, {}, "key: ecdsa secp256r1 to ecdsa secp384r1"),
        (
            {"key_type": "rsa", "rsa_key_size": 4096},
            {"key_type": "rsa"},
            {"key_type": "rsa", "key": 2048},
            "rsa 2048 to rsa 4096",
        ),
        ({}, {"key_type": "rsa"}, {}, "key at the next renewal: rsa to ecdsa"),
        ({"server": plan.STAGING}, {}, {}, "server: "),
        ({"authenticator": "dns-rfc2136"}, {}, {}, "challenge: webroot to dns-rfc2136"),
        ({}, {"webroot_path": "/var/www/html,"}, {}, "webroot: /var/www/html to /var/www/acme"),
        ({"profile": "shortlived"}, {}, {}, "profile: the default to shortlived"),
        ({}, {"required_profile": "shortlived"}, {}, "profile: shortlived to the default"),
        ({}, {}, {"not_after": NOW}, "expired on 2027-01-15"),
        # its timer should have renewed it 15 days ago
        ({}, {}, {"not_before": NOW - 76 * DAY, "not_after": NOW + 14 * DAY}, "the timer has not renewed it"),
    ],
)
def test_what_differs_is_a_reason(wanted, have, certificate, said):
    found = differences(wanted, have, certificate)
    assert len(found) == 1 and said in found[0], found


def test_the_timer_has_time_to_renew():
    assert differences(certificate={"not_before": NOW - 74 * DAY, "not_after": NOW + 16 * DAY}) == []


def test_a_renewal_configuration_is_read_without_its_map_of_names():
    found = plan.parse_renewal(RENEWAL)
    assert (found["server"], found["authenticator"], found["webroot_path"]) == (
        plan.LETS_ENCRYPT,
        "webroot",
        "/var/www/acme,",
    )


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "it has no cert"),
        ("cert", "broken at 'cert'"),
        (RENEWAL.replace("authenticator = webroot", ""), "it has no authenticator"),
        (RENEWAL.partition("[renewalparams]")[0], "it has no server"),
    ],
)
def test_a_broken_renewal_configuration_is_a_fault(text, said):
    with pytest.raises(Fault, match=said):
        plan.parse_renewal(text)


# -- When to renew ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked, lifetime, days, capped",
    [
        ("", 90, 30, False),
        ("", 45, 15, False),
        ("", 6, 3, False),
        ("", 10, 10 / 3, False),
        ("20 days", 90, 20, False),
        ("48 hours", 6, 2, False),
        ("1 day", 6, 1, False),
        ("50%", 90, 45, False),
        ("30 days", 6, 4, True),
        ("90%", 90, 60, True),
    ],
)
def test_the_timer_renews_in_time_for_each_lifetime(asked, lifetime, days, capped):
    found = plan.renew_before({"renew_before_expiry": asked}, {"not_before": NOW, "not_after": NOW + lifetime * DAY})
    assert found == (pytest.approx(days * DAY), capped)


@pytest.mark.parametrize("before", ["# renew_before_expiry = 30 days\n", "renew_before_expiry = 5 days\n", ""])
def test_when_to_renew_is_written_once(before):
    text = before + "version = 4.0.0\n"
    once = plan.with_renew_before(text, 15 * DAY)
    assert once == "renew_before_expiry = 360 hours\nversion = 4.0.0\n"
    assert plan.with_renew_before(once, 15 * DAY) == once


def test_short_times_are_never_none():
    assert "= 1 hours" in plan.with_renew_before("", 10)


def test_the_name_of_a_certificate_for_renewal_information_is_that_of_the_rfc():
    """The example of RFC 9773, 4.1."""
    assert (
        plan.ari_id({"issuer_key": "69885b6b87464041e1b37b847bd0ae2cde01c8d4", "serial": "87654321"})
        == "aYhba4dGQEHhs3uEe9CuLN4ByNQ.AIdlQyE"
    )


@pytest.mark.parametrize(
    "answer, overdue",
    [
        ({"suggestedWindow": {"start": "2027-01-14T08:00:00Z", "end": "2027-01-15T07:59:00Z"}}, True),
        ({"suggestedWindow": {"start": "2027-01-14T08:00:00Z", "end": "2027-01-15T08:01:00.123456789Z"}}, False),
        ({"suggestedWindow": {"end": None}}, False),
        ({}, False),
        ({"suggestedWindow": {"end": "soon"}}, False),
    ],
)
def test_a_window_that_is_over_asks_for_renewal(answer, overdue):
    assert plan.ari_overdue(answer, NOW) is overdue


# -- certbot ----------------------------------------------------------------------------------------------------------

PARAMS = {
    "email": "",
    "webroot": "/var/www/acme",
    "dns_credentials": "/etc/letsencrypt/fastapi-dns.ini",
    "dns_propagation_seconds": 30,
}


@pytest.mark.parametrize(
    "wanted, params, there, missing",
    [
        (
            {},
            {},
            "--webroot --webroot-path /var/www/acme --domain shop.example.org --domain WWW.shop.example.org",
            "--rsa-key-size",
        ),
        ({}, {}, "--register-unsafely-without-email --elliptic-curve secp256r1", "--email"),
        ({}, {"email": "a@example.org"}, "--email a@example.org", "--register"),
        ({"key_type": "rsa"}, {}, "--key-type rsa", "--elliptic-curve"),
        ({"profile": "shortlived"}, {}, "--required-profile shortlived", "--break-my-certs"),
        ({"server": plan.STAGING}, {}, "--break-my-certs", "--required-profile"),
        (
            {"authenticator": "dns-rfc2136"},
            {},
            "--dns-rfc2136 --dns-rfc2136-credentials /etc/letsencrypt/fastapi-dns.ini "
            "--dns-rfc2136-propagation-seconds 30",
            "--webroot",
        ),
        (
            {"authenticator": "dns-route53"},
            {"dns_credentials": "", "dns_propagation_seconds": 0},
            "--dns-route53",
            "--dns-route53-credentials",
        ),
    ],
)
def test_certbot_is_told_what_is_wanted(wanted, params, there, missing):
    words = shlex.join(plan.order({**WANTED, **wanted}, {**PARAMS, **params}))
    for part in there.split(" --"):
        assert part.removeprefix("--") in words
    assert missing not in words


@pytest.mark.parametrize(
    "server, there", [(plan.LETS_ENCRYPT, False), (plan.STAGING, False), ("https://acme.example.org/dir", True)]
)
def test_a_dry_run_asks_the_same_server_but_lets_encrypts_own_staging_one(server, there):
    assert ("--server" in plan.rehearsal({**WANTED, "server": server})) is there


CHALLENGE = """Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for shop.example.org and www.shop.example.org

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: shop.example.org
  Type:   dns
  Detail: DNS problem: NXDOMAIN looking up A for shop.example.org - check that a DNS record exists for this domain

  Domain: www.shop.example.org
  Type:   connection
  Detail: 192.0.2.1: Fetching http://www.shop.example.org/.well-known/acme-challenge/x: Connection refused

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile
/var/log/letsencrypt/letsencrypt.log or re-run Certbot with -v for more details.
"""
LIMITED = """Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for shop.example.org
An unexpected error occurred:
too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after
2026-11-24 08:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile
/var/log/letsencrypt/letsencrypt.log or re-run Certbot with -v for more details.
"""
DOWN = """Saving debug log to /var/log/letsencrypt/letsencrypt.log
An unexpected error occurred:
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='acme.test', port=14000): Max retries \
exceeded with url: /dir \
(Caused by NewConnectionError('<urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish \
a new connection: [Errno 111] Connection refused'))
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile
/var/log/letsencrypt/letsencrypt.log or re-run Certbot with -v for more details.
"""


@pytest.mark.parametrize(
    "output, said",
    [
        (
            CHALLENGE,
            "shop.example.org: DNS problem: NXDOMAIN looking up A for shop.example.org - check that a DNS record "
            "exists for this domain (dns); www.shop.example.org: 192.0.2.1: Fetching http://www.shop.example.org/.well-known/"
            "acme-challenge/x: Connection refused (connection)",
        ),
        (
            LIMITED,
            "too many certificates (5) already issued for this exact set of identifiers in the last "
            "168h0m0s, retry after "
            "2026-11-24 08:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/",
        ),
        (DOWN, "acme.test:14000 cannot be reached: Connection refused"),
        ("", "certbot gave no reason"),
    ],
)
def test_the_reason_is_in_the_words_of_the_ca(output, said):
    assert plan.explain(output) == said


# -- What is read from files ------------------------------------------------------------------------------------------


def made(folder, *options):
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-nodes",
            "-subj",
            "/",
            "-addext",
            "subjectAltName=DNS:A.example.org,IP:192.0.2.1",
            "-days",
            "9",
            "-keyout",
            folder / "privkey.pem",
            "-out",
            folder / "fullchain.pem",
            *options,
        ],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.mark.parametrize(
    "options, key",
    [
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"), ("ecdsa", "secp256r1")),
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"), ("ecdsa", "secp384r1")),
        (("-newkey", "rsa:2048"), ("rsa", 2048)),
    ],
)
def test_a_pair_is_read(tmp_path, options, key):
    found = tls_host.read_pair(made(tmp_path, *options), run)
    assert (found["key_type"], found["key"]) == key
    assert found["names"] == {"a.example.org", "192.0.2.1"}
    assert found["not_after"] - found["not_before"] == 9 * DAY


@pytest.mark.parametrize("serial, read", [("0x7f", "7f"), ("0x80112233445566778899aabb", "80112233445566778899aabb")])
def test_short_and_long_serials_are_read(tmp_path, serial, read):
    found = tls_host.read_pair(
        made(tmp_path, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-set_serial", serial), run)
    assert found["serial"] == read


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda d: (d / "privkey.pem").unlink(), "privkey.pem is missing"),
        (lambda d: (d / "privkey.pem").write_text("x"), "privkey.pem is damaged"),
        (lambda d: (d / "fullchain.pem").unlink(), "fullchain.pem cannot be read"),
        (
            lambda d: (d / "fullchain.pem").write_text((d / "fullchain.pem").read_text()[:-40]),
            "fullchain.pem is damaged",
        ),
        # as a certificate that was cut off further down the chain
        (
            lambda d: (d / "fullchain.pem").write_text(
                (d / "fullchain.pem").read_text() + "-----BEGIN CERTIFICATE-----\nMII"
            ),
            "fullchain.pem is damaged",
        ),
        (lambda d: made(d, "-newkey", "rsa:2048", "-out", "/dev/null"), "is not the key of the certificate"),
    ],
)
def test_a_pair_that_nginx_could_not_load_is_a_fault(tmp_path, damage, said):
    made(tmp_path, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    damage(tmp_path)
    with pytest.raises(Fault, match=said):
        tls_host.read_pair(tmp_path, run)


@pytest.mark.parametrize(
    "configuration, found",
    [
        ("ssl_certificate tls/shop/fullchain.pem;", True),
        ("  ssl_certificate /ROOT/tls/shop/fullchain.pem;", True),
        ("ssl_certificate tls/shop2/fullchain.pem;", False),
        ("# ssl_certificate tls/shop/fullchain.pem;", False),
    ],
)
def test_whether_nginx_uses_a_certificate_is_known(tmp_path, configuration, found):
    (tmp_path / "sites-enabled").mkdir()
    (tmp_path / "sites-enabled/shop.conf").write_text(configuration.replace("/ROOT", str(tmp_path)))
    assert bool(tls_host.nginx_uses("shop", str(tmp_path))) is found


@pytest.mark.parametrize(
    "answers, said",
    [
        ({"a": "mine", "b": None}, None),
        ({"a": "mine", "b": "other"}, None),
        ({"a": None, "b": None}, "nginx serves no certificate for a, b"),
        ({"a": "other", "b": None}, "nginx serves another"),
    ],
)
def test_one_name_at_least_must_be_served_with_the_certificate(tmp_path, monkeypatch, answers, said):
    monkeypatch.setattr(tls_host, "blocks", lambda path: ["mine"])
    found = tls_host.mismatch(str(tmp_path), answers, serve=answers.get)
    assert found is None if said is None else said in found


def test_the_metrics_are_of_every_certificate():
    text = tls_host.metrics(
        {
            "renewal": {"result": "exit-code", "time": 5},
            "certificates": {
                "shop": {"kind": "certbot", "not_after": 7, "served": True},
                "new": {"kind": "placeholder", "served": None},
            },
        }
    )
    assert 'fastapi_certificate_expiry_timestamp_seconds{name="shop"} 7\n' in text
    assert (
        'fastapi_certificate_placeholder{name="new"} 1\n' in text
        and 'fastapi_certificate_placeholder{name="shop"} 0\n' in text
    )
    assert 'fastapi_certificate_served{name="shop"} 1\n' in text and 'served{name="new"}' not in text
    assert "fastapi_certificate_renewal_success 0\n" in text and "renewal_timestamp_seconds 5\n" in text


# -- What renews ------------------------------------------------------------------------------------------------------

RENEW = {
    "certbot": "/usr/bin/certbot",
    "command": "text",
    "env": {},
    "ca_bundle_path": "",
    "ca_bundle_text": "",
    "dns_credentials": "",
}


def test_the_command_says_what_it_takes(tmp_path):
    command = Path(__file__).resolve().parents[2] / "roles/certbot_tls/files/fastapi_certificates.py"
    (tmp_path / "fastapi_host").symlink_to(Path(tls_host.__file__).parent)
    program = tmp_path / "program"
    program.write_text(command.read_text().replace("/usr/local/lib/fastapi", str(tmp_path)))
    words = [sys.executable, "-I", "-B", str(program), "x"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "deploy | check | record" in done.stderr
    text, mode = plan.renewal_files(RENEW, True)[plan.COMMAND]
    assert text.startswith("#!/usr/bin/python3 -IB\n") and text.endswith("\ntext") and mode == 0o755


def test_a_fifo_in_the_place_of_a_certificate_blocks_nothing(tmp_path):
    os.mkfifo(tmp_path / "fullchain.pem")
    with pytest.raises(tls_host.Fault, match="not a regular file"):
        tls_host.blocks(str(tmp_path / "fullchain.pem"))


def test_what_certbot_repeats_of_its_secrets_is_hidden(tmp_path):
    credentials = tmp_path / "dns.ini"
    credentials.write_text("# comment\ndns_cloudflare_api_token = t0ken-of-the-zone\n")
    env = {"HTTPS_PROXY": "http://ops:pr0xy-pass@proxy:3128", "ZONE_KEY": "k3y"}
    params = {"env": json.dumps(env), "dns_credentials": str(credentials), "eab_hmac_key": "aGVsbG8td29ybGQ"}
    redact = Redactor(certificates.secrets_of(params))
    said = "cannot connect as ops with pr0xy-pass; token [t0ken-of-the-zone] refused; key k3y, aGVsbG8td29ybGQ"
    shown = redact(said)
    for secret in ("pr0xy-pass", "t0ken-of-the-zone", "k3y,", "aGVsbG8td29ybGQ"):
        assert secret not in shown, shown
    assert "cannot connect as ops with" in shown


def test_debians_units_are_kept_and_added_to():
    files = plan.renewal_files(RENEW, True)
    assert files["/etc/systemd/system/certbot.service"] is None and files["/etc/systemd/system/certbot.timer"] is None
    assert (
        "ExecStartPost=/usr/local/sbin/fastapi-certificates check"
        in files["/etc/systemd/system/certbot.service.d/fastapi.conf"][0]
    )
    assert not [path for path in files if "cron" in path]


def test_another_certbot_has_units_of_its_own():
    files = plan.renewal_files({**RENEW, "certbot": "/opt/certbot/bin/certbot"}, True)
    assert "ExecStart=/opt/certbot/bin/certbot -q renew" in files["/etc/systemd/system/certbot.service"][0]
    assert "OnCalendar" in files["/etc/systemd/system/certbot.timer"][0]


def test_secrets_are_for_root_only():
    files = plan.renewal_files({**RENEW, "dns_credentials": "x", "env": {"A": 'b"$c'}, "ca_bundle_path": "/ca"}, True)
    assert files[plan.CREDENTIALS] == ("x", 0o600)
    assert files[plan.ENVIRONMENT] == ('A="b\\"\\$c"\nREQUESTS_CA_BUNDLE="/ca"\n', 0o600)


def test_cron_renews_where_there_is_no_systemd():
    files = plan.renewal_files({**RENEW, "env": {"A": "b"}}, False, 61)
    text = files["/etc/cron.d/fastapi-certbot"][0]
    assert (
        "\n1 1,13 * * * root test -d /run/systemd/system || { set -a; . /etc/letsencrypt/fastapi.env; set +a; "
        "/usr/bin/certbot"
        in text
    )
    assert not [path for path in files if "systemd" in path]
    line = (
        text.splitlines()[-1]
        .split("root ", 1)[1]
        .replace("/run/systemd/system", "/not/there")
        .replace("/etc/letsencrypt/fastapi.env", "/dev/null")
    )
    for certbot, check, code, said in (
        ("true", "true", 0, "success"),
        ("false", "true", 1, "failed"),
        ("true", "false", 1, "failed"),
    ):
        script = f'c() {{ case $1 in check) {check};; *) echo "$2";; esac; }}; ' + line.replace(
            "/usr/bin/certbot", certbot
        ).replace(plan.COMMAND, "c")
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (code, said)


# -- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, reason",
    [
        ("shop.example.com", "example.com"),
        ("localhost", "localhost"),
        ("app.internal", "internal"),
        ("nas.local", "local"),
        ("shop.test", "test"),
        ("intranet", "public domain"),
        ("10.0.0.1", "address"),
        ("a.home.arpa", "home.arpa"),
        ("daoman.io", None),
        ("example.co", None),
        ("mytest.org", None),
    ],
)
def test_names_that_nobody_certifies_are_known(name, reason):
    found = plan.nobody_certifies(name)
    assert found is None if reason is None else reason in found


def check(*certificates, **variables):
    values = {f"certbot_tls_{name}": value for name, value in variables.items()}
    filled, problems = spec.check(spec.load("certbot_tls"), {**values, "certbot_tls_certificates": list(certificates)})
    return problems + list(rules.variables(filled))


SHOP = {"name": "shop", "domains": ["shop.daoman.io"]}


@pytest.mark.parametrize(
    "certificate, variables, path, said",
    [
        (
            {"domains": ["shop.test"]},
            {},
            "certbot_tls_certificates[0].domains[0]",
            "Let's Encrypt gives no certificate",
        ),
        (
            {"domains": ["192.0.2.1"]},
            {"server": "https://acme.test/dir"},
            "certbot_tls_certificates[0].domains[0]",
            "is an address",
        ),
        (
            {"rsa_key_size": 2048},
            {},
            "certbot_tls_certificates[0].rsa_key_size",
            "means nothing to a key of the type 'ecdsa'",
        ),
        (
            {"elliptic_curve": "secp256r1"},
            {"key_type": "rsa"},
            "certbot_tls_certificates[0].elliptic_curve",
            "means nothing",
        ),
        ({"challenge": "dns"}, {}, "certbot_tls_certificates[0].challenge", "needs a plugin"),
        ({}, {"challenge": "dns"}, "certbot_tls_challenge", "needs a plugin"),
        (
            {"challenge": "dns"},
            {"dns_plugin": "cloudflare"},
            "certbot_tls_dns_credentials",
            "is required by the plugin",
        ),
        ({}, {"dns_plugin": "dns-cloudflare"}, "certbot_tls_dns_plugin", "Write 'cloudflare'"),
        ({}, {"dns_plugin": "cloudfare"}, "certbot_tls_dns_plugin", "Did you mean 'cloudflare'?"),
        ({"profile": "shortlived"}, {}, "certbot_tls_certificates[0].profile", "would be forgotten"),
        ({"profile": "shortlived"}, {"version": "4.2.0"}, "certbot_tls_certificates[0].profile", "would be forgotten"),
        ({"server": "acme.example.org"}, {}, "certbot_tls_certificates[0].server", "is not the directory"),
        ({"renew_before_expiry": "a month"}, {}, "certbot_tls_certificates[0].renew_before_expiry", "is not a time"),
        ({"renew_before_expiry": "100%"}, {}, "certbot_tls_certificates[0].renew_before_expiry", "is not a time"),
        ({}, {"email": "ops"}, "certbot_tls_email", "is not an e-mail address"),
        ({}, {"version": "latest"}, "certbot_tls_version", "is not a valid version"),
        ({}, {"staging": True, "server": "https://acme.test/dir"}, "certbot_tls_staging", "is of Let's Encrypt"),
        ({}, {"eab_kid": "a"}, "certbot_tls_eab_hmac_key", "is required as well"),
        ({}, {"eab_hmac_key": "secret"}, "certbot_tls_eab_kid", "is required as well"),
        ({}, {"ca_bundle": "ca.pem"}, "certbot_tls_ca_bundle", "neither PEM nor an absolute path"),
    ],
)
def test_what_certbot_or_the_ca_would_refuse_is_refused(certificate, variables, path, said):
    found = check({**SHOP, **certificate}, **variables)
    assert len(found) == 1 and found[0].startswith(f"{path}: ") and said in found[0], found
    assert "secret" not in found[0]


@pytest.mark.parametrize(
    "certificate, variables",
    [
        ({}, {}),
        ({"domains": ["shop.test"]}, {"obtain": False}),
        ({"domains": ["shop.test"], "obtain": False}, {}),
        ({"domains": ["shop.test"]}, {"server": "https://acme.test/dir"}),
        ({"domains": ["shop.test"], "state": "absent"}, {}),
        ({"challenge": "dns"}, {"dns_plugin": "route53"}),
        ({"profile": "shortlived"}, {"version": "5.8.0"}),
        ({"key_type": "rsa", "rsa_key_size": 4096}, {}),
    ],
)
def test_what_works_passes(certificate, variables):
    assert check({**SHOP, **certificate}, **variables) == []


def test_the_apps_of_a_site_are_told_by_their_own_paths():
    app = {
        "domain": "shop.example.com",
        "aliases": ["localhost"],
        "certificate": {"rsa_key_size": 2048},
        "state": "present",
    }
    values = spec.defaults(spec.load("certbot_tls"))
    found = list(rules.of_apps([app], values))
    assert [problem.path for problem in found] == [
        "fastapi_apps[0].certificate.rsa_key_size",
        "fastapi_apps[0].domain",
        "fastapi_apps[0].aliases[0]",
    ]
    assert list(rules.of_apps([{**app, "state": "absent"}], values)) == []
