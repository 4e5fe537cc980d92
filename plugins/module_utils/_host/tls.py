# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host can say of its certificates by itself: what lies on disk, what nginx serves, what monitoring reads.

The module `certificates` uses it in a run, certbot's deploy hook and the unit that renews use it on the host: there is
one way to reload nginx and one to look at what it serves. `run` is a function as AnsibleModule.run_command: words to
(exit code, stdout, stderr).
"""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import re
import socket
import ssl
import tempfile
import time

from .files import read_bytes

LINKS = "/etc/nginx/tls"
CONFIG = "/etc/letsencrypt"
PLACEHOLDERS = "/var/lib/fastapi/placeholder"
STATE = "/var/lib/fastapi/certificates.json"
# Where Debian's prometheus-node-exporter reads metrics from files.
TEXTFILE = "/var/lib/prometheus/node-exporter/fastapi_certificates.prom"
NGINX = "/usr/sbin/nginx"
PID = "/run/nginx.pid"
ERROR_LOG = "/var/log/nginx/error.log"
ROOT = "/etc/nginx"
# Set by whoever reloads nginx and looks at the result itself.
QUIET = "FASTAPI_CERTIFICATES"

RELOAD_TIMEOUT = 15
CONNECT_TIMEOUT = 5
BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\s+(.+?)\s+-----END CERTIFICATE-----", re.S)
CURVES = {"prime256v1": "secp256r1"}
# Sent before TLS or HTTP to an nginx that expects the PROXY protocol (version 1) on its ports.
PROXY = b"PROXY TCP4 127.0.0.1 127.0.0.1 65535 443\r\n"


class Fault(Exception):
    """What is wrong, in words for the user."""


# -- Files ------------------------------------------------------------------------------------------------------------


def blocks(path):
    """The certificates in a PEM file as DER, the host's own first; Fault where there is none or one is cut off."""
    try:
        # A link to a directory of somebody else's is in order there, and what they put into it may be a fifo.
        text = read_bytes(path, links=True).decode("ascii", "replace")
    except OSError as error:
        raise Fault(f"{path} cannot be read: {error.strerror or error}") from error
    found = BLOCK.findall(text)
    if not found or text.count("-----BEGIN") != len(found):
        raise Fault(f"{path} is damaged")
    try:
        return [base64.b64decode("".join(block.split()), validate=True) for block in found]
    except ValueError as error:
        raise Fault(f"{path} is damaged") from error


def read_certificate(path, run):
    """What the first certificate in a file says: a dict, or Fault. Times are seconds since the epoch."""
    blocks(path)
    code, out, _err = run(["openssl", "x509", "-in", path, "-noout", "-text", "-pubkey"])
    if code:
        raise Fault(f"{path} is damaged")
    return parse_certificate(out)


def parse_certificate(text):
    """The output of `openssl x509 -text -pubkey`."""
    try:
        # On the same line for short serials, on the next one for long ones.
        serial = re.search(r"Serial Number:\s*(?:\d+ \(0x([0-9a-f]+)\)|([0-9a-f:]+))", text)
        names = {name.lower() for name in re.findall(r"DNS:([^,\s]+)", text)}
        names.update(re.findall(r"IP Address:([^,\s]+)", text))
        curve = re.search(r"ASN1 OID: (\S+)", text)
        size = int(re.search(r"Public-Key: \((\d+) bit\)", text).group(1))
        issuer_key = re.search(r"Authority Key Identifier:[^\n]*\n\s*(?:keyid:)?([0-9A-F:]+)", text)
        return {
            "serial": (serial.group(1) or serial.group(2)).replace(":", "").lower(),
            "not_before": ssl.cert_time_to_seconds(re.search(r"Not Before\s*: (.+)", text).group(1).strip()),
            "not_after": ssl.cert_time_to_seconds(re.search(r"Not After\s*: (.+)", text).group(1).strip()),
            "names": names,
            "key_type": "ecdsa" if curve else "rsa",
            "key": CURVES.get(curve.group(1), curve.group(1)) if curve else size,
            "public_key": re.search(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", text, re.S).group(0),
            "issuer_key": issuer_key.group(1).replace(":", "").lower() if issuer_key else "",
        }
    except (AttributeError, ValueError) as error:
        raise Fault("is no certificate that can be read") from error


def read_pair(directory, run):
    """The certificate in a directory that nginx could serve from, or Fault: both files whole, the key fits."""
    certificate = read_certificate(os.path.join(directory, "fullchain.pem"), run)
    check_key(os.path.join(directory, "privkey.pem"), certificate, run)
    return certificate


def check_key(path, certificate, run):
    if not os.path.exists(path):
        raise Fault(f"{path} is missing")
    code, out, _err = run(["openssl", "pkey", "-in", path, "-pubout"])
    if code:
        raise Fault(f"{path} is damaged")
    if out.strip() != certificate["public_key"].strip():
        raise Fault(f"{path} is not the key of the certificate")


# -- nginx ------------------------------------------------------------------------------------------------------------


def nginx_runs(pid_file=PID):
    try:
        with open(pid_file, encoding="ascii") as stream:
            return os.path.exists(f"/proc/{int(stream.read())}")
    except (OSError, ValueError):
        return False


def nginx_uses(name, root=ROOT):
    """Whether nginx's configuration names a certificate of /etc/nginx/tls: the file that does, or None."""
    wanted = re.compile(rf"^\s*ssl_certificate\s+(?:{re.escape(root)}/)?tls/{re.escape(name)}/", re.M)
    for pattern in ("nginx.conf", "conf.d/*.conf", "sites-enabled/*"):
        for path in sorted(glob.glob(os.path.join(glob.escape(root), pattern))):
            with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
                if wanted.search(stream.read()):
                    return path
    return None


def served(name, address=("127.0.0.1", 443)):
    """The certificate, as DER, that is served to those who ask for a name; None where the name is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # To be seen is what is served, whoever signed it.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    asked = name.replace("*", "certificate-check", 1)
    for greeting in (b"", PROXY):
        try:
            with socket.create_connection(address, CONNECT_TIMEOUT) as plain:
                plain.sendall(greeting)
                with context.wrap_socket(plain, server_hostname=asked) as connection:
                    return connection.getpeercert(binary_form=True)
        except ssl.SSLError as error:
            if error.reason and "UNRECOGNIZED_NAME" in error.reason:
                return None
        except OSError:
            continue
    return None


def fetch(name, path, address=("127.0.0.1", 80)):
    """(status, body) that nginx answers for a path of a name over HTTP; status 0 and a reason where it does not."""
    request = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode("ascii")
    answer, reason = b"", "it closes the connection"
    for greeting in (b"", PROXY):
        answer = b""
        try:
            with socket.create_connection(address, CONNECT_TIMEOUT) as connection:
                connection.settimeout(CONNECT_TIMEOUT)
                connection.sendall(greeting + request)
                while len(answer) < 65536:
                    part = connection.recv(65536)
                    if not part:
                        break
                    answer += part
        except OSError as error:
            reason = error.strerror or str(error)
        status = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
        if status and status.group(1) != b"400":
            return int(status.group(1)), answer.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")
    return 0, reason


def mismatch(directory, names, serve=served):
    """What is wrong with what nginx serves for the names of a certificate, or None.

    A name for which nginx has no site, or a site with another certificate, is nobody's fault; but one of them at
    least must get what is in the directory.
    """
    expected = blocks(os.path.join(directory, "fullchain.pem"))[0]
    found = set()
    for name in sorted(names):
        now = serve(name)
        if now == expected:
            return None
        found.add(now)
    if found == {None}:
        return f"nginx serves no certificate for {', '.join(sorted(names))}"
    return f"nginx serves another certificate for {', '.join(sorted(names))} than the one in {directory}"


def test(run):
    """Fault where nginx refuses its configuration."""
    code, out, err = run([NGINX, "-t"])
    if code:
        raise Fault(f"nginx refuses its configuration, so it was not reloaded: {(out + err).strip()}")


def reload(expected, run, timeout=RELOAD_TIMEOUT):
    """Tests and reloads nginx, and waits until it serves what is on disk. Fault where it does not.

    :arg expected: {directory: names}
    """
    test(run)
    offset = os.path.getsize(ERROR_LOG) if os.path.exists(ERROR_LOG) else 0
    code, out, err = run([NGINX, "-s", "reload"])
    if code:
        raise Fault(f"nginx cannot be reloaded: {(out + err).strip()}")
    deadline = time.monotonic() + timeout
    while True:
        faults = [fault for fault in (mismatch(*item) for item in sorted(expected.items())) if fault]
        if not faults:
            return
        if time.monotonic() > deadline:
            raise Fault("; ".join(faults) + said(offset))
        time.sleep(0.1)


def said(offset):
    with contextlib.suppress(OSError), open(ERROR_LOG, "rb") as stream:
        stream.seek(offset)
        lines = [line for line in stream.read().decode("utf-8", "replace").splitlines() if "[emerg]" in line]
        if lines:
            return ". It logs: " + " ".join(lines[-3:])
    return ""


# -- What is there, for people and for monitoring ---------------------------------------------------------------------


def survey(run, links=LINKS, config=CONFIG, placeholders=PLACEHOLDERS):
    """What nginx finds in /etc/nginx/tls: {name: dict}."""
    found = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(links), "*"))):
        name, target = os.path.basename(path), os.path.realpath(path)
        kind = "other"
        if target.startswith(os.path.join(config, "")):
            kind = "certbot"
        elif target.startswith(os.path.join(placeholders, "")):
            kind = "placeholder"
        entry = found[name] = {"kind": kind, "fault": None, "served": None}
        try:
            certificate = read_pair(path, run)
            entry.update(
                names=sorted(certificate["names"]),
                serial=certificate["serial"].lstrip("0"),
                not_before=certificate["not_before"],
                not_after=certificate["not_after"],
            )
            if nginx_uses(name) and nginx_runs():
                entry["fault"] = mismatch(path, certificate["names"])
                entry["served"] = not entry["fault"]
        except Fault as error:
            entry["fault"] = str(error)
    return found


def metrics(state):
    """The state in the format of node_exporter's textfile collector."""
    lines = []

    def metric(name, text, samples):
        lines.extend([f"# HELP fastapi_certificate_{name} {text}", f"# TYPE fastapi_certificate_{name} gauge"])
        lines.extend(f"fastapi_certificate_{name}{labels} {value}" for labels, value in samples)

    entries = [('{name="%s"}' % name, entry) for name, entry in state["certificates"].items()]
    metric(
        "expiry_timestamp_seconds",
        "When the certificate expires.",
        [(label, entry["not_after"]) for label, entry in entries if "not_after" in entry],
    )
    metric(
        "placeholder",
        "1 where the certificate is a self-signed placeholder.",
        [(label, int(entry["kind"] == "placeholder")) for label, entry in entries],
    )
    metric(
        "served",
        "1 where nginx serves what is on disk.",
        [(label, int(entry["served"])) for label, entry in entries if entry["served"] is not None],
    )
    renewal = state.get("renewal") or {}
    if renewal:
        metric(
            "renewal_success",
            "1 where the last renewal by the timer did not fail.",
            [("", int(renewal["result"] == "success"))],
        )
        metric("renewal_timestamp_seconds", "When the last renewal by the timer ended.", [("", renewal["time"])])
    return "\n".join(lines) + "\n"


def load(path=STATE):
    try:
        with open(path, encoding="utf-8") as stream:
            state = json.load(stream)
        return state if isinstance(state, dict) else {}
    except (OSError, ValueError):
        return {}


def record(run, result=None):
    """Writes the state, and the metrics where something reads them.

    :arg result: how a renewal by the timer ended; without one, what is known of the last one stays
    """
    state = {"time": int(time.time()), "renewal": load().get("renewal"), "certificates": survey(run=run)}
    if result:
        state["renewal"] = {"result": result, "time": state["time"]}
    write(STATE, json.dumps(state, indent=1, sort_keys=True) + "\n")
    if os.path.isdir(os.path.dirname(TEXTFILE)):
        write(TEXTFILE, metrics(state))
    return state


def write(path, text):
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", dir=os.path.dirname(path))
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o644)
        stream.write(text)
    os.replace(temporary, path)
