# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the redactor hides, in which forms, and what it leaves readable."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import time
from urllib.parse import quote, quote_plus

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host.redact import Redactor, redact, redact_url
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import env_values
from ansible_collections.daoman.fastapi.plugins.module_utils._host.systemd import env_file

# Everything that a form of writing escapes is in it.
VALUE = "p&s'w\"ö$r d/+%<`\\7"
URL = "postgresql://shop:hun%3Ater2@db.internal/shop"
KEY = "-----BEGIN THING-----\nAAAAbbbbCCCC\nshort1\n-----END THING-----"
CONFIG = json.dumps({"user": "shop", "auth": {"token": "tok-a", "client_secret": "very-hidden"}})


@pytest.mark.parametrize(
    "text",
    [
        VALUE,
        json.dumps({"x": VALUE}),
        json.dumps({"x": VALUE}, ensure_ascii=False),
        repr(VALUE),
        quote(VALUE),
        re.sub("%..", lambda match: match[0].lower(), quote(VALUE, safe="")),
        quote_plus(VALUE),
        html.escape(VALUE),
        shlex.quote(VALUE),
        env_file({"X": VALUE}),
        base64.b64encode(VALUE.encode()).decode(),
        base64.b64encode(b"user:" + VALUE.encode()).decode(),
        base64.b64encode(b"ab:" + VALUE.encode() + b"after").decode(),
        base64.urlsafe_b64encode(VALUE.encode()).decode(),
        VALUE.encode().hex(),
    ],
)
def test_a_value_is_hidden_in_every_form(text):
    hidden = Redactor({"PASSWORD_OF_DB": VALUE})(f"the app printed {text} and ended")
    assert "<PASSWORD_OF_DB>" in hidden or "<hidden>" in hidden, hidden
    for piece in ("p&s", "p&amp;s", "p%26s", "p\\&s", "r d/", "r+d", base64.b64encode(VALUE.encode()).decode()[4:14]):
        assert piece not in hidden, hidden


@pytest.mark.parametrize(
    "name, value, leaked",
    [
        ("DATABASE_URL", URL, "hun%3Ater2"),
        ("DATABASE_URL", URL, "hun:ter2"),
        ("DATABASE_URL", "host=db user=shop password=hunter22 dbname=x", "hunter22"),
        ("UV_INDEX_URL", "https://a-token-of-an-index@index.internal/simple", "a-token-of-an-index"),
        ("UV_INDEX_URL", "https://a-token-of-an-index:x-oauth-basic@index.internal/simple", "a-token-of-an-index"),
        ("HOOK", "https://hooks.internal/x?channel=ops&token=q-t0k", "q-t0k"),
        ("TLS", KEY, "AAAAbbbbCCCC"),
        ("SIGNING_KEY", KEY, "short1"),
        ("SETTINGS", CONFIG, "very-hidden"),
        ("SETTINGS", CONFIG, "tok-a"),
        ("APP_PIN", "4711", "4711"),
        ("PASSWORD", "cat", "cat"),
    ],
)
def test_parts_and_short_values_are_hidden(name, value, leaked):
    text = Redactor({name: value})(f"failed: [{leaked}]")
    assert leaked not in text and f"<{name}>" in text, text


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("PASSWORD", "cat", "concatenate the category, cats"),
        ("APP_PIN", "4711", "port 14711, 4711a"),
        ("TOKEN_TTL", "3600", "within 3600 s"),
        ("AUTH_ENABLED", "true", "it is true"),
        ("DEBUG", "false", "it is false"),
        ("LEVEL", "production", "in production"),
        ("DB_USER", "shop", "shop answers"),
        ("PASSWORD", "", "nothing"),
        ("SALT", "ab", "ab and ab"),
        ("DATABASE_URL", "postgresql://shop@db/shop", "shop does not answer"),
    ],
)
def test_ordinary_text_is_not_garbled(name, value, text):
    assert Redactor({name: value})(text) == text


def test_lines_of_a_long_value_in_base64_are_hidden():
    value = "".join(map(chr, range(33, 126))) * 2
    lines = base64.encodebytes(value.encode()).decode()
    hidden = Redactor({"LONG_SECRET": value})(lines)
    assert len(lines.splitlines()) == 4 and hidden.count("<LONG_SECRET>") == 4 and len(hidden) < 80, hidden


def test_names_that_are_public_are_shown():
    redactor = Redactor(
        {"HOSTS": "shop.example.com,www.shop.example.com"}, ["shop.example.com", "www.shop.example.com"]
    )
    assert redactor("shop.example.com,www.shop.example.com") == "shop.example.com,www.shop.example.com"


def test_the_longest_value_is_hidden_first():
    values = {"A": "abcdefgh", "B": "abcdefgh-and-more"}
    assert Redactor(values)("abcdefgh-and-more abcdefgh") == "<B> <A>"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.def-ghi",
        "{'authorization': 'Basic dXNlcjpwdw=='}",
        "redis://:hunter2@cache:6379/0",
        "Set-Cookie: session=abcdef; Path=/",
        "api_key='abc def'",
        '"client_secret": "a\\"b"',
        "password is hunter2",
        "https://hooks.slack.com/services/T0/B0/xyz",
        "ghp_0123456789012345678901234567890123456",
        "AKIAABCDEFGHIJKLMNOP",
        "-----BEGIN RSA PRIVATE KEY-----\nabc",
        "https://0123456789abcdef@git.internal/x.git",
    ],
)
def test_what_looks_like_a_secret_is_hidden_without_being_known(text):
    assert "<hidden>" in redact(text)


def test_plain_data_is_redacted_at_every_depth():
    data = {"a": ["x hunter2hunter2", {"hunter2hunter2": 1}], "b": 2, "c": None}
    assert Redactor({"P": "hunter2hunter2"})(data) == {"a": ["x <P>", {"<P>": 1}], "b": 2, "c": None}


@pytest.mark.parametrize(
    "text, shown",
    [
        ("https://me:secret@host/x.git", "https://host/x.git"),
        ("shop @ https://tok:@host/shop.whl#sha256=ab", "shop @ https://host/shop.whl#sha256=ab"),
        ("https://host/shop.tar.gz?private_token=abc&x=1", "https://host/shop.tar.gz?private_token=<hidden>&x=1"),
        ("https://me:p@ss@host/x.git", "https://host/x.git"),
        ("https://host/x?mail=a@b", "https://host/x?mail=a@b"),
        ("https://host?mail=a@b", "https://host?mail=a@b"),
        ("git@host:x.git", "git@host:x.git"),
        ("shop==1.4", "shop==1.4"),
    ],
)
def test_a_source_is_shown_without_its_secrets(text, shown):
    assert redact_url(text) == shown


def test_bytes_that_are_no_text_are_no_trouble():
    assert Redactor({"KEY": "\udcffabcdefgh"})("\udcffabcdefgh \udcfe") == "<KEY> \udcfe"


SECRET = "s33dOfTheTest"


@pytest.mark.parametrize(
    "text",
    [
        f"connecting to postgresql://shop:{SECRET}@db.example.com/shop",
        f"redis://:{SECRET}@cache:6379/0",
        f"https://{SECRET}@git.example.com/shop.git",
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {SECRET}==",
        f"headers={{'Authorization': 'Token {SECRET}'}}",
        f"[(b'authorization', b'Bearer {SECRET}')]",
        f"Cookie: session={SECRET}; theme=dark",
        f"Set-Cookie: id={SECRET}; HttpOnly",
        f"password={SECRET}",
        f'{{"api_key": "{SECRET}"}}',
        f"DB_PASSWORD: '{SECRET} with blanks'",
        f"GET /reset?token={SECRET}&user=1",
        f"GET /s3?X-Amz-Signature={SECRET}",
        f"the client_secret is {SECRET}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0." + SECRET,
        f"https://hooks.slack.com/services/T0/B0/{SECRET}",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET} and cut off",
        f"ghp_{SECRET}{SECRET}",
    ],
)
def test_what_looks_like_a_secret_is_hidden(text):
    assert SECRET not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "GET /items/7 was answered 200 in 0.012 s",
        "/srv/shop/releases/20260131T101500Z-3f9a1c0b7d2e/env",
        "https://shop.example.com/docs?page=2",
        "worker timeout (pid:12)",
        "unix:/srv/shop/live.sock",
        "ssh deploy@app1.example.com",
        "openssl x509 -noout -subject",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_an_environment_file_is_read_as_systemd_reads_it():
    text = 'A="a \\"b\\" \\$c"\nB="two\nlines"\nC=plain\nD=\'single\'\n# E=comment\n'
    assert env_values(text) == {"A": 'a "b" $c', "B": "two\nlines", "C": "plain", "D": "single"}


@pytest.mark.parametrize(
    "text",
    [
        "a" * 300_000,
        "a-" * 100_000,
        "secret" * 50_000,
        "token " + " " * 100_000,
        "://" + ":" * 100_000,
        "://a:" * 30_000,
        "password" + "_" * 100_000,
        "-----BEGIN " + "A" * 100_000,
        "cookie" * 30_000,
        "eyJ" + "a" * 100_000,
        "bearer " * 30_000,
    ],
)
def test_no_text_takes_long(text):
    begun = time.monotonic()
    redact(text, {"PASSWORD": "x" * 20, "PIN": "4711"})
    assert time.monotonic() - begun < 3
