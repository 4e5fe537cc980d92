# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Security headers that browsers would ignore are refused, wherever they are given."""

from __future__ import annotations

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import rules, spec
from ansible_collections.daoman.fastapi.plugins.module_utils.header_rules import headers

SITE = {"name": "shop", "domain": "shop.example.com"}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"X-Frame-Options": "SAMEORIGIN", "x-content-type-options": "nosniff"},
        {"X-Frame-Options": ""},
        {"X-Request-Source": "anything $scheme"},
        {"Strict-Transport-Security": "max-age=0"},
        {"Strict-Transport-Security": "max-age=63072000; includeSubDomains; preload"},
        {"Referrer-Policy": "no-referrer, strict-origin-when-cross-origin"},
        {"Permissions-Policy": 'camera=(), geolocation=(self "https://maps.example.com"), fullscreen=*'},
        {"Cross-Origin-Embedder-Policy": "require-corp"},
    ],
)
def test_headers_that_browsers_know_pass(value):
    assert list(headers(value, "headers")) == []


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("X-Frame-Option", "DENY", "Did you mean 'X-Frame-Options'?"),
        ("Referer-Policy", "origin", "Did you mean 'Referrer-Policy'?"),
        ("X-Frame-Options", "ALLOW-FROM https://example.com", "There are: DENY, SAMEORIGIN"),
        ("X-Content-Type-Options", "no-sniff", "Did you mean 'nosniff'?"),
        ("Referrer-Policy", "origin, never", "is no value of it"),
        ("Strict-Transport-Security", "63072000", "is no value of it (RFC 6797)"),
        ("Strict-Transport-Security", "max-age=600; includeSubDomains; preload", "cannot be preloaded"),
        ("Strict-Transport-Security", "max-age=63072000; preload", "cannot be preloaded"),
        ("Permissions-Policy", "camera 'none'", "has 'camera 'none'' in it"),
        ("Cross-Origin-Opener-Policy", "same-site", "is no value of it"),
    ],
)
def test_what_browsers_would_ignore_is_refused(name, text, said):
    found = list(headers({name: text}, "headers"))
    assert len(found) == 1 and said in found[0], found


def test_headers_are_looked_at_wherever_they_are_given():
    bad = {"X-Frame-Options": "NEVER"}
    site = {**SITE, "headers": bad, "upstream": {"servers": [{"address": "127.0.0.1:8000"}]},
            "locations": [{"path": "/a/", "headers": bad}]}
    filled, problems = spec.check_option(spec.load("nginx")["nginx_sites"], [site], "nginx_sites")
    assert problems == []
    found = rules.check("nginx", {"nginx_sites": filled, "nginx_headers": bad})
    assert [item.path for item in found] == [
        "nginx_headers.X-Frame-Options",
        "nginx_sites[0].locations[0].headers.X-Frame-Options",
        "nginx_sites[0].headers.X-Frame-Options",
    ]


def test_the_defaults_are_sound():
    assert list(headers(spec.load("nginx")["nginx_headers"]["default"], "nginx_headers")) == []
