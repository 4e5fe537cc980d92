# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules `certificates` and `certbot_renewal` decide: what differs, what certbot is to do, what its words
mean.

Nothing here touches the host. Times are seconds since the epoch.
"""

from __future__ import annotations

import base64
import calendar
import ipaddress
import math
import re
import time

from ansible_collections.daoman.fastapi.plugins.module_utils._host.tls import Fault

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
CONFIG = "/etc/letsencrypt"
CA_BUNDLE = f"{CONFIG}/fastapi-ca.pem"
CREDENTIALS = f"{CONFIG}/fastapi-dns.ini"
ENVIRONMENT = f"{CONFIG}/fastapi.env"
COMMAND = "/usr/local/sbin/fastapi-certificates"
# What collection 0.2.0 installed; the package fastapi_host has replaced it.
FORMER_LIBRARY = "/usr/local/lib/fastapi/tls_host.py"
# The first version that asks for the profile again when it renews; Debian's do not.
PROFILES_SINCE = 5

DAY = 86400
# As certbot 4 and later does it without a setting: https://github.com/certbot/certbot, 4.0.0 in its CHANGELOG.md.
SHORT_LIVED = 10 * DAY
PERIOD = re.compile(r"^([1-9]\d*) ?(days?|hours?|%)$")
# More would have certbot renew at each of its two runs a day.
LARGEST_SHARE = 2 / 3

# Names for which no public CA issues, because nobody owns them: RFC 2606, 6761, 6762 (local), 8375 (home.arpa), 9476
# (alt), and ICANN's reservation of 2024 (internal).
SPECIAL = (
    "alt",
    "example",
    "example.com",
    "example.net",
    "example.org",
    "home.arpa",
    "internal",
    "invalid",
    "local",
    "localhost",
    "test",
)


def nobody_certifies(name):
    """Why no public CA issues a certificate for a name, or None."""
    name = name.lower().rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return "is an address"
    for special in SPECIAL:
        if name == special or name.endswith(f".{special}"):
            return f"belongs to '{special}', which is reserved and nobody's"
    return None if "." in name else "is not below a public domain"


def settled(certificate, defaults):
    """A certificate with the role's settings where it has none of its own."""
    return {**certificate, **{name: value for name, value in defaults.items() if not certificate.get(name)}}


# -- What certbot has -------------------------------------------------------------------------------------------------


def parse_renewal(text):
    """A renewal configuration of certbot: the values that matter, or Fault."""
    values, section = {}, ""
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.strip("[] ")
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise Fault(f"is broken at {line[:40]!r}")
        if section in ("", "renewalparams"):
            values[key.strip()] = value.strip()
    missing = [
        key for key in ("cert", "privkey", "chain", "fullchain", "server", "authenticator") if not values.get(key)
    ]
    if missing:
        raise Fault(f"is broken: it has no {missing[0]}")
    return values


def differences(wanted, have, certificate, now, webroot):
    """Why certbot is to be asked for a new certificate: reasons in words, none where all is as wanted.

    :arg wanted: the certificate as settled() has it
    :arg have: parse_renewal()
    :arg certificate: tls_host.read_certificate()
    """
    reasons = []
    names = {name.lower() for name in wanted["domains"]}
    for text, changed in (("new", names - certificate["names"]), ("no longer wanted", certificate["names"] - names)):
        if changed:
            reasons.append(f"{', '.join(sorted(changed))}: {text}")
    key = wanted["elliptic_curve"] if wanted["key_type"] == "ecdsa" else wanted["rsa_key_size"]
    if (certificate["key_type"], certificate["key"]) != (wanted["key_type"], key):
        reasons.append(f"key: {certificate['key_type']} {certificate['key']} to {wanted['key_type']} {key}")
    elif have.get("key_type", wanted["key_type"]) != wanted["key_type"]:
        reasons.append(f"key at the next renewal: {have['key_type']} to {wanted['key_type']}")
    if have["server"] != wanted["server"]:
        reasons.append(f"server: {have['server']} to {wanted['server']}")
    if have["authenticator"] != wanted["authenticator"]:
        reasons.append(f"challenge: {have['authenticator']} to {wanted['authenticator']}")
    elif wanted["authenticator"] == "webroot" and have.get("webroot_path", "").strip(", ") != webroot:
        reasons.append(f"webroot: {have.get('webroot_path', '').strip(', ')} to {webroot}")
    if (have.get("required_profile") or "") != wanted["profile"]:
        reasons.append(
            f"profile: {have.get('required_profile') or 'the default'} to {wanted['profile'] or 'the default'}"
        )
    if certificate["not_after"] <= now:
        reasons.append(f"expired on {day(certificate['not_after'])}")
    elif certificate["not_after"] - now < renew_before(wanted, certificate)[0] / 2:
        reasons.append(f"expires on {day(certificate['not_after'])}, and the timer has not renewed it")
    return reasons


def day(moment):
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


# -- When the timer renews --------------------------------------------------------------------------------------------


def renew_before(wanted, certificate):
    """(seconds before expiry at which the timer renews, whether that is less than was asked for)."""
    lifetime = certificate["not_after"] - certificate["not_before"]
    match = PERIOD.match(wanted["renew_before_expiry"] or "")
    if not match:
        return lifetime / (2 if lifetime < SHORT_LIVED else 3), False
    number, unit = int(match.group(1)), match.group(2)
    asked = lifetime * number / 100 if unit == "%" else number * (DAY if unit.startswith("day") else 3600)
    return min(asked, lifetime * LARGEST_SHARE), asked > lifetime * LARGEST_SHARE


def with_renew_before(text, seconds):
    """A renewal configuration in which certbot finds when to renew."""
    # Whole hours, and never 0: certbot's own notation knows no fractions.
    line = f"renew_before_expiry = {max(1, math.ceil(seconds / 3600))} hours"
    changed, count = re.subn(r"^[ \t]*#?[ \t]*renew_before_expiry[ \t]*=.*$", line, text, count=1, flags=re.M)
    return changed if count else f"{line}\n{text}"


# -- Renewal information (ARI, RFC 9773) ------------------------------------------------------------------------------


def ari_id(certificate):
    """What a certificate is called where its CA says when to renew it."""
    serial = certificate["serial"].rjust(len(certificate["serial"]) + len(certificate["serial"]) % 2, "0")
    # DER keeps a positive number's first bit free.
    serial = "00" + serial if int(serial[0], 16) >= 8 else serial
    parts = (bytes.fromhex(certificate["issuer_key"]), bytes.fromhex(serial))
    return ".".join(base64.urlsafe_b64encode(part).decode("ascii").rstrip("=") for part in parts)


def ari_overdue(answer, now):
    """Whether the time in which the CA wants the certificate renewed is over, as it is for a revoked one."""
    try:
        end = calendar.timegm(time.strptime(answer["suggestedWindow"]["end"][:19], "%Y-%m-%dT%H:%M:%S"))
    except (KeyError, TypeError, ValueError):
        return False
    return end < now


# -- certbot ----------------------------------------------------------------------------------------------------------


def order(wanted, params):
    """The command that has a certificate issued, whether there is one already or not."""
    words = [
        "certonly",
        "--non-interactive",
        "--agree-tos",
        "--cert-name",
        wanted["name"],
        "--server",
        wanted["server"],
        "--force-renewal",
        "--renew-with-new-domains",
        "--no-eff-email",
        "--key-type",
        wanted["key_type"],
    ]
    words += ["--email", params["email"]] if params["email"] else ["--register-unsafely-without-email"]
    if wanted["key_type"] == "ecdsa":
        words += ["--elliptic-curve", wanted["elliptic_curve"]]
    else:
        words += ["--rsa-key-size", str(wanted["rsa_key_size"])]
    if wanted["profile"]:
        words += ["--required-profile", wanted["profile"]]
    if wanted["server"] == STAGING:
        words.append("--break-my-certs")
    authenticator = wanted["authenticator"]
    if authenticator == "webroot":
        words += ["--webroot", "--webroot-path", params["webroot"]]
    else:
        words.append(f"--{authenticator}")
        if params["dns_credentials"]:
            words += [f"--{authenticator}-credentials", params["dns_credentials"]]
        if params["dns_propagation_seconds"]:
            words += [f"--{authenticator}-propagation-seconds", str(params["dns_propagation_seconds"])]
    for domain in wanted["domains"]:
        words += ["--domain", domain]
    return words


def rehearsal(wanted):
    """The command that has certbot renew a certificate and throw the new one away."""
    words = ["renew", "--dry-run", "--cert-name", wanted["name"], "--no-random-sleep-on-renew"]
    # Without a server certbot asks Let's Encrypt's staging one, which is right for Let's Encrypt only.
    return words + ([] if wanted["server"] in (LETS_ENCRYPT, STAGING) else ["--server", wanted["server"]])


PROBLEM = re.compile(
    r"^\s*(?:Domain|Identifier): +(.+)\n\s*Type: +(.+)\n\s*Detail: +((?:.+\n?)+?)(?=\n|\s*(?:Domain|Identifier):|\Z)",
    re.M,
)
NOISE = re.compile(
    r"^(Saving debug log|Ask for help|Hint:|Some challenges have failed|An unexpected error occurred|"
    r"See the logfile|/var/log/|"
    r"Certbot failed to authenticate|Requesting a certificate|Renewing an existing|Account registered|Processing |"
    r"The following (simulated )?renewals? |All (simulated )?renewals failed|- - -|Simulating renewal|"
    r"  /etc/letsencrypt/live/|\d+ (simulated )?renew failure|  Domain:)"
)
RENEWAL_OF = re.compile(r"^Failed to renew certificate \S+ with error: ")
UNREACHABLE = re.compile(
    r"host='([^']+)', port=(\d+).*?(Connection refused|timed out|Name or service not known|"
    r"Temporary failure in name resolution|"
    r"No route to host|Network is unreachable|certificate verify failed[^'\"()]*)",
    re.S,
)
BUSY = "Another instance of Certbot is already running"


def explain(output):
    """Why certbot did not do it, in the words of the CA where they are there."""
    problems = [
        f"{name}: {' '.join(detail.split())} ({kind.strip()})" for name, kind, detail in PROBLEM.findall(output)
    ]
    if problems:
        return "; ".join(dict.fromkeys(problems))
    lines = [
        " ".join(RENEWAL_OF.sub("", line).split())
        for line in output.splitlines()
        if line.strip() and not NOISE.match(line)
    ]
    text = " ".join(dict.fromkeys(lines))
    match = UNREACHABLE.search(text)
    if match:
        return f"{match.group(1)}:{match.group(2)} cannot be reached: {match.group(3).strip()}"
    return text or "certbot gave no reason"


# -- What renews ------------------------------------------------------------------------------------------------------

TEXT = "# Ansible managed\n# Role daoman.fastapi.certbot_tls.\n"
HOOK = f"#!/bin/sh\n{TEXT}exec {COMMAND} deploy\n"
SERVICE = (
    TEXT
    + """[Unit]
Description=Certbot
Documentation=https://certbot.eff.org/docs

[Service]
Type=oneshot
PrivateTmp=true
ExecStart={certbot} -q renew --no-random-sleep-on-renew
"""
)
TIMER = (
    TEXT
    + """[Unit]
Description=Run certbot twice daily

[Timer]
OnCalendar=*-*-* 00,12:00:00
RandomizedDelaySec=43200
Persistent=true

[Install]
WantedBy=timers.target
"""
)
DROP_IN = (
    TEXT
    + """[Service]
{environment}LockPersonality=yes
NoNewPrivileges=yes
PrivateTmp=yes
ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
# A deploy hook that fails does not fail certbot, so that nginx has the new certificates is looked at here.
ExecStartPost={command} check
ExecStopPost={command} record
"""
)
CRON = (
    TEXT
    + """SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
{minute} {hours} * * * root {line}
"""
)
CRON_LINE = (
    "test -d /run/systemd/system || {{ {environment}{certbot} -q renew --no-random-sleep-on-renew && "
    "{command} check && {command} record success || {{ {command} record failed; false; }}; }}"
)
UNITS = "/etc/systemd/system"


def renewal_files(params, systemd, minute=0):
    """What renews certificates on a host: {path: (text, mode)}; None for what must not be there.

    :arg params: those of the module certbot_renewal
    :arg systemd: whether it is what runs services here; cron does it elsewhere
    :arg minute: when cron does it, 0 to 719 minutes after midnight and noon
    """
    env = {**params["env"], **({"REQUESTS_CA_BUNDLE": params["ca_bundle_path"]} if params["ca_bundle_path"] else {})}
    venv = params["certbot"] != "/usr/bin/certbot"
    values = {"certbot": params["certbot"], "command": COMMAND}
    files = {
        FORMER_LIBRARY: None,
        COMMAND: (f"#!/usr/bin/python3 -IB\n{TEXT}{params['command']}", 0o755),
        f"{CONFIG}/renewal-hooks/deploy/fastapi-nginx": (HOOK, 0o755),
        CA_BUNDLE: (params["ca_bundle_text"], 0o644) if params["ca_bundle_text"] else None,
        CREDENTIALS: (params["dns_credentials"], 0o600) if params["dns_credentials"] else None,
        ENVIRONMENT: ("".join(f"{name}={quoted(value)}\n" for name, value in sorted(env.items())), 0o600)
        if env
        else None,
    }
    if systemd:
        source = f"EnvironmentFile={ENVIRONMENT}\n" if env else ""
        files[f"{UNITS}/certbot.service"] = (SERVICE.format(**values), 0o644) if venv else None
        files[f"{UNITS}/certbot.timer"] = (TIMER, 0o644) if venv else None
        files[f"{UNITS}/certbot.service.d/fastapi.conf"] = (DROP_IN.format(environment=source, **values), 0o644)
    else:
        source = f"set -a; . {ENVIRONMENT}; set +a; " if env else ""
        line = CRON_LINE.format(environment=source, **values)
        hour = minute // 60
        files["/etc/cron.d/fastapi-certbot"] = (
            CRON.format(minute=minute % 60, hours=f"{hour},{hour + 12}", line=line),
            0o644,
        )
    return files


def quoted(value):
    """A value as both systemd and a shell read it."""
    return '"' + re.sub(r'([\\"$`])', r"\\\1", str(value)) + '"'
