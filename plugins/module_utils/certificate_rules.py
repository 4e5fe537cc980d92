# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules for certificates, as those of rules.py: what certbot or the CA would refuse is refused before anything
changes."""

from __future__ import annotations

import ipaddress

from ansible_collections.daoman.fastapi.plugins.module_utils import certificates
from ansible_collections.daoman.fastapi.plugins.module_utils.spec import join, nearest, problem

# Those of which both Debians have a package, to find the one that was meant.
PLUGINS = (
    "cloudflare",
    "digitalocean",
    "dnsimple",
    "gehirn",
    "google",
    "infomaniak",
    "linode",
    "ovh",
    "rfc2136",
    "route53",
    "sakuracloud",
)
# These take their credentials from the environment or the machine.
WITHOUT_CREDENTIALS = ("google", "route53")
PLACEHOLDERS = "certbot_tls_obtain: false leaves all sites with placeholders"


def variables(values):
    """The role's variables, and its certificates against them."""
    version, plugin = (values.get(f"certbot_tls_{name}") for name in ("version", "dns_plugin"))
    if plugin and plugin.startswith("dns-"):
        yield problem("certbot_tls_dns_plugin", "is given with its prefix", plugin, mend=f"Write '{plugin[4:]}'")
    elif plugin and not version and plugin not in PLUGINS:
        close = nearest(plugin, PLUGINS)
        mend = (
            f"Did you mean '{close}'?"
            if close
            else "Debian has: {}. For others set certbot_tls_version".format(", ".join(PLUGINS))
        )
        yield problem("certbot_tls_dns_plugin", "is no plugin that Debian has a package of", plugin, mend=mend)
    if values.get("certbot_tls_staging") and values.get("certbot_tls_server") != certificates.LETS_ENCRYPT:
        yield problem(
            "certbot_tls_staging",
            "is of Let's Encrypt, and certbot_tls_server is another one",
            True,
            mend="Give the other one's own staging server as certbot_tls_server",
        )
    kid, key = (values.get(f"certbot_tls_eab_{name}") for name in ("kid", "hmac_key"))
    if bool(kid) != bool(key):
        yield problem(
            "certbot_tls_eab_{}".format("hmac_key" if kid else "kid"),
            "is required as well",
            hidden=True,
            mend="External account binding takes the key's id and the key",
        )
    if (values.get("certbot_tls_dns_propagation_seconds") or 0) < 0:
        yield problem(
            "certbot_tls_dns_propagation_seconds", "must be at least 0", values["certbot_tls_dns_propagation_seconds"]
        )
    for index, item in enumerate(values.get("certbot_tls_certificates") or []):
        where = join("certbot_tls_certificates", index)
        names = [(join(f"{where}.domains", at), name) for at, name in enumerate(item.get("domains") or [])]
        yield from one(item, where, names, values)


def of_apps(apps, values):
    """The certificates of fastapi_apps against the role's variables."""
    for index, app in enumerate(apps or []):
        where = join("fastapi_apps", index)
        names = [(f"{where}.domain", app.get("domain"))]
        names += [(join(f"{where}.aliases", at), name) for at, name in enumerate(app.get("aliases") or [])]
        item = {**(app.get("certificate") or {}), "state": app.get("state")}
        yield from one(item, f"{where}.certificate", names, values)


def one(item, path, names, values):
    """One certificate: its own options, and where it has none, the role's."""
    if item.get("state") == "absent" or not item.get("obtain", True) or not values.get("certbot_tls_obtain", True):
        return
    kind = item.get("key_type") or values.get("certbot_tls_key_type")
    for option, its in (("rsa_key_size", "rsa"), ("elliptic_curve", "ecdsa")):
        if item.get(option) and kind != its:
            yield problem(
                f"{path}.{option}",
                f"means nothing to a key of the type '{kind}'",
                item[option],
                mend=f"Give key_type: {its}, or leave it out",
            )
    plugin = values.get("certbot_tls_dns_plugin")
    dns = (item.get("challenge") or values.get("certbot_tls_challenge")) == "dns"
    if dns and not plugin:
        own = f"{path}.challenge" if item.get("challenge") else "certbot_tls_challenge"
        yield problem(own, "needs a plugin that makes records in the DNS", "dns", mend="Set certbot_tls_dns_plugin")
    elif dns and plugin not in WITHOUT_CREDENTIALS and not values.get("certbot_tls_dns_credentials"):
        yield problem(
            "certbot_tls_dns_credentials",
            f"is required by the plugin '{plugin}'",
            hidden=True,
            mend="What the plugin's documentation wants in its file of credentials",
        )
    major = (values.get("certbot_tls_version") or "0").partition(".")[0]
    if item.get("profile") and int(major) < certificates.PROFILES_SINCE:
        yield problem(
            f"{path}.profile",
            "would be forgotten at the first renewal",
            item["profile"],
            mend="Set certbot_tls_version to 5.0.0 or later: Debian's certbot does not keep it",
        )
    yield from certifiable(names, item, values)


def certifiable(names, item, values):
    public = (item.get("server") or values.get("certbot_tls_server")) == certificates.LETS_ENCRYPT
    for where, name in names:
        if not isinstance(name, str):
            continue
        try:
            ipaddress.ip_address(name)
        except ValueError:
            reason = certificates.nobody_certifies(name) if public else None
        else:
            reason = "is an address, for which certbot gets no certificate here"
        if reason:
            yield problem(
                where,
                f"{reason}, so Let's Encrypt gives no certificate for it" if public else reason,
                name,
                mend=f"{PLACEHOLDERS}, 'obtain: false' a single one; certbot_tls_server can name a CA of your own",
            )
