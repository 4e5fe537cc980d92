# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates that nginx serves, asked for as a browser does: what is on disk may not be what is served."""

from __future__ import annotations

import calendar
import glob
import os
import re
import socket
import ssl
import subprocess
import time

# Seconds between two looks, and for one handshake.
EVERY = 60.0
TIMEOUT = 5.0
SITE = re.compile(r"server_name\s+([^;]+);\s*ssl_certificate\s+\S*tls/([^/;]+)/[^;]*;")
PROXIED = re.compile(r"listen\s+[^;]*443[^;]*\bproxy_protocol\b")
RENEWAL = "certbot.service"


def sites(text):
    """[(name of the certificate, name that clients ask for, whether the PROXY protocol is spoken)] of a site's file."""
    proxied = PROXIED.search(text) is not None
    return [(name, names.split()[0], proxied) for names, name in SITE.findall(text)]


def fetch(name, proxied, address=("127.0.0.1", 443)):
    """The certificate in DER."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(address, timeout=TIMEOUT) as plain:
        if proxied:
            plain.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 65535 443\r\n")
        with context.wrap_socket(plain, server_hostname=name) as connection:
            return connection.getpeercert(binary_form=True)


def describe(der):
    """What openssl reads in it: from when and until when it is valid, and whether it has signed itself."""
    told = subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-noout", "-startdate", "-enddate", "-subject", "-issuer"],
        input=der,
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
    )
    fields = dict(line.split("=", 1) for line in told.stdout.decode("utf-8", "replace").splitlines() if "=" in line)
    return {
        "begins": moment(fields["notBefore"]),
        "expires": moment(fields["notAfter"]),
        "self_signed": fields["subject"].strip() == fields["issuer"].strip(),
    }


def moment(text):
    return calendar.timegm(time.strptime(text.strip(), "%b %d %H:%M:%S %Y GMT"))


def failed_renewal():
    """When the timer's service last failed, or None where it did not."""
    told = subprocess.run(
        ["systemctl", "show", RENEWAL, "--property=Result,ExecMainExitTimestamp", "--timestamp=unix"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    fields = dict(line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)
    ended = fields.get("ExecMainExitTimestamp", "").lstrip("@")
    return int(ended) if ended.isdigit() and fields.get("Result") != "success" else None


class Certificates:
    def __init__(self, directory="/etc/nginx/sites-enabled"):
        self.directory = directory
        self.looked = None
        self.found = {}
        self.failed = None

    def step(self, now):
        if self.looked is not None and 0 <= now - self.looked < EVERY:
            return
        self.looked = now
        found = {}
        for path in sorted(glob.glob(os.path.join(self.directory, "*"))):
            try:
                with open(path, encoding="utf-8", errors="replace") as stream:
                    wanted = sites(stream.read())
            except OSError:
                continue
            for name, domain, proxied in wanted:
                found[name] = self.look(domain, proxied)
        self.found = found
        self.failed = failed_renewal()

    @staticmethod
    def look(domain, proxied):
        try:
            return describe(fetch(domain, proxied))
        except (OSError, ValueError, KeyError, subprocess.SubprocessError):
            return None

    def values(self):
        served, expiry, own, renewed = [], [], [], []
        for name, found in sorted(self.found.items()):
            label = (("name", name),)
            served.append((label, int(found is not None)))
            if found:
                expiry.append((label, found["expires"]))
                own.append((label, int(found["self_signed"])))
                if not found["self_signed"]:
                    renewed.append(((*label, ("outcome", "success")), found["begins"]))
                    if self.failed:
                        renewed.append(((*label, ("outcome", "failure")), self.failed))
        yield "fastapi_certificate_served", "gauge", served
        yield "fastapi_certificate_expiry_timestamp_seconds", "gauge", expiry
        yield "fastapi_certificate_self_signed", "gauge", own
        yield "fastapi_certificate_renewal_timestamp_seconds", "gauge", renewed
