# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Security headers and the values that their standards know: a browser ignores any other, and says so to nobody."""

from __future__ import annotations

import re

from ansible_collections.daoman.fastapi.plugins.module_utils.spec import join, nearest, problem

HSTS = re.compile(r"^max-age=(?P<seconds>\d+)(; ?includeSubDomains)?(?P<preload>; ?preload)?$")
FEATURE = re.compile(r'^[a-z-]+=(\*|\(( ?(self|src|\*|"https?://[^"\s]+"))*\))$')

# https://w3c.github.io/webappsec-referrer-policy/#referrer-policies
REFERRER = (
    *("no-referrer", "no-referrer-when-downgrade", "origin", "origin-when-cross-origin", "same-origin"),
    *("strict-origin", "strict-origin-when-cross-origin", "unsafe-url"),
)
KNOWN = {
    "Strict-Transport-Security": ("RFC 6797", "max-age=63072000; includeSubDomains"),
    "X-Content-Type-Options": ("https://fetch.spec.whatwg.org/#x-content-type-options-header", ("nosniff",)),
    "X-Frame-Options": ("RFC 7034", ("DENY", "SAMEORIGIN")),
    "Referrer-Policy": ("https://w3c.github.io/webappsec-referrer-policy/", REFERRER),
    "Permissions-Policy": ("https://w3c.github.io/webappsec-permissions-policy/", "camera=(), geolocation=(self)"),
    "Cross-Origin-Opener-Policy": (
        "https://html.spec.whatwg.org/#the-coop-headers",
        ("same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"),
    ),
    "Cross-Origin-Embedder-Policy": (
        "https://html.spec.whatwg.org/#coep",
        ("require-corp", "credentialless", "unsafe-none"),
    ),
    "Cross-Origin-Resource-Policy": (
        "https://fetch.spec.whatwg.org/#cross-origin-resource-policy-header",
        ("same-origin", "same-site", "cross-origin"),
    ),
    "Content-Security-Policy": ("https://w3c.github.io/webappsec-csp/", "default-src 'self'"),
    "Content-Security-Policy-Report-Only": ("https://w3c.github.io/webappsec-csp/", "default-src 'self'"),
}
# https://hstspreload.org/#submission-requirements
PRELOAD = 31536000


def headers(value, path):
    """Response headers, name to value; an empty value leaves the header to the application."""
    proper = {name.lower(): name for name in KNOWN}
    for name, text in (value or {}).items():
        where = join(path, name)
        known = proper.get(name.lower())
        if known is None:
            close = nearest(name.lower(), proper, 0.85)
            if close:
                yield problem(where, "is no header that browsers know", text, mend=f"Did you mean '{proper[close]}'?")
        elif text:
            yield from _value(known, text, where)


def _value(name, text, path):
    source, fit = KNOWN[name]
    if isinstance(fit, tuple):
        # A list of referrer policies is one to fall back along; browsers take the last that they know.
        words = [word.strip() for word in text.split(",")] if name == "Referrer-Policy" else [text]
        for word in words:
            if word.lower() not in map(str.lower, fit):
                close = nearest(word, fit)
                mend = f"Did you mean '{close}'?" if close else f"There are: {', '.join(fit)}"
                yield problem(path, f"is no value of it ({source})", text, mend=mend)
    elif name == "Strict-Transport-Security":
        match = HSTS.match(text)
        if not match:
            yield problem(path, f"is no value of it ({source})", text, mend=f"For example: {fit}")
        elif match["preload"] and ("includeSubDomains" not in text or int(match["seconds"]) < PRELOAD):
            mend = f"The lists of browsers want includeSubDomains and a max-age of at least {PRELOAD}"
            yield problem(path, "cannot be preloaded", text, mend=mend)
    elif name == "Permissions-Policy":
        for feature in text.split(","):
            if not FEATURE.match(feature.strip()):
                yield problem(path, f"has '{feature.strip()}' in it ({source})", text, mend=f"For example: {fit}")
