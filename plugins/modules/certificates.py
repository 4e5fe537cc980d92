#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: certificates
short_description: Has nginx serve certificates that certbot obtains
version_added: 0.2.0
description:
  - Looks at each certificate on the host and asks certbot for a new one only where something differs from what is
    wanted,
    has expired, or is damaged. With nothing to do no certificate is asked for, whether the ACME server answers or not.
  - Points C(<links>/<name>) to certbot's certificate, tests nginx, reloads it, and makes sure that nginx serves what
    is on disk. Until then, and where anything of this fails, what was served before is served on.
  - All certificates are worked through. Those that could not be had fail the module at its end, each with its reason.
  - Where the ACME server gives renewal information (ARI, RFC 9773) it is asked for, and a certificate whose time for
    renewal is over, as that of a revoked one, is replaced. A server that does not answer is no failure then.
options:
  certificates:
    description: The certificates.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the certificate, of certbot's lineage and of the link.
        type: str
        required: true
      domains:
        description: The names that it is for.
        type: list
        elements: str
        required: true
      state:
        description: V(absent) removes the certificate, its placeholder and the link.
        type: str
        choices: [present, absent]
        default: present
      obtain:
        description: Whether certbot is asked for it. V(false) leaves its placeholder.
        type: bool
        default: true
      key_type:
        description: Type of the key, by default O(key_type).
        type: str
        choices: [ecdsa, rsa]
      elliptic_curve:
        description: Curve of an ECDSA key, by default O(elliptic_curve).
        type: str
        choices: [secp256r1, secp384r1]
      rsa_key_size:
        description: Size of an RSA key, in bits, by default O(rsa_key_size).
        type: int
        choices: [2048, 3072, 4096]
      server:
        description: Directory of the ACME server. Empty means O(server).
        type: str
        default: ""
      profile:
        description: Profile to ask the ACME server for. Empty means its default.
        type: str
        default: ""
      renew_before_expiry:
        description: When the timer renews it, as V(30 days), V(48 hours) or V(33%) of its lifetime. Empty means
          O(renew_before_expiry).
        type: str
        default: ""
      challenge:
        description: How the names are proven, by default O(challenge).
        type: str
        choices: [webroot, dns]
      revoke:
        description: Whether a certificate that is V(absent) is revoked, too.
        type: bool
        default: false
  obtain:
    description: As O(certificates[].obtain), for all.
    type: bool
    default: true
  reissue:
    description: Names of certificates to replace even though nothing differs, for example because a key became known.
    type: list
    elements: str
    default: []
  unloadable:
    description:
      - Only these certificates, which nginx could not load. They are replaced, and where that cannot be done now, an
        older
        copy that is sound or the placeholder stands in for them. That is no failure, since another task tries again.
    type: list
    elements: str
    default: []
  plan:
    description: Only says what would be done, as in check mode.
    type: bool
    default: false
  dry_run:
    description: >-
      Only has certbot renew each certificate and throw the result away. Let's Encrypt is asked on its staging server,
      others directly.
    type: bool
    default: false
  key_type:
    description: Type of the keys.
    type: str
    choices: [ecdsa, rsa]
    default: ecdsa
  elliptic_curve:
    description: Curve of ECDSA keys.
    type: str
    choices: [secp256r1, secp384r1]
    default: secp256r1
  rsa_key_size:
    description: Size of RSA keys, in bits.
    type: int
    choices: [2048, 3072, 4096]
    default: 2048
  server:
    description: Directory of the ACME server.
    type: str
    default: https://acme-v02.api.letsencrypt.org/directory
  renew_before_expiry:
    description: As O(certificates[].renew_before_expiry). Empty means a third of the lifetime, half of one below ten
      days.
    type: str
    default: ""
  challenge:
    description: How names are proven.
    type: str
    choices: [webroot, dns]
    default: webroot
  email:
    description: Address for the account with the ACME server. Empty means none.
    type: str
    default: ""
  eab_kid:
    description: Key id for external account binding.
    type: str
    default: ""
  eab_hmac_key:
    description: Key for external account binding, as the CA gives it (base64url).
    type: str
    default: ""
  ca_bundle:
    description: File of the CAs to trust about ACME servers. Empty means the system's.
    type: str
    default: ""
  dns_plugin:
    description: Plugin of certbot that proves names by DNS, without its prefix, for example V(rfc2136).
    type: str
    default: ""
  dns_credentials:
    description: File with the plugin's credentials. Empty means that it takes none.
    type: str
    default: ""
  dns_propagation_seconds:
    description: Seconds that DNS has to spread the answer. 0 means what the plugin thinks.
    type: int
    default: 0
  env:
    description:
      - Environment for certbot, as JSON.
      - It is one string because Ansible masks each secret value wherever it occurs, and of a dict with V(1) in it every
        number of the output would be.
    type: str
    default: ""
  webroot:
    description: Directory that nginx answers HTTP challenges from.
    type: path
    default: /var/www/acme
  certbot:
    description: The certbot to call.
    type: path
    default: /usr/bin/certbot
  timeout:
    description: Seconds that certbot has for one certificate.
    type: int
    default: 300
attributes:
  check_mode:
    description: Predicts which certificates would be asked for. Whether they could be had is for the CA to say.
    support: full
  diff_mode:
    description: Shows each certificate that would be replaced with the reasons, and the links.
    support: full
requirements:
  - openssl (the command)
  - certbot
author: The daoman.fastapi contributors (@daoman)
"""

EXAMPLES = r"""
- name: The shop has its certificate
  daoman.fastapi.certificates:
    email: ops@example.com
    certificates:
      - name: shop
        domains: [shop.example.com, www.shop.example.com]
"""

RETURN = r"""
issued:
  description: Certificates that were asked for, with the reasons.
  returned: always
  type: dict
  sample: {shop: [there is none yet]}
removed:
  description: Certificates that were removed.
  returned: always
  type: list
  elements: str
  sample: [blog]
kept:
  description: Names under which nginx finds something that is not of this module, with what it is.
  returned: always
  type: dict
  sample: {own: /srv/certificates/own}
failures:
  description: The certificates that something went wrong with. The message says what.
  returned: always
  type: list
  elements: str
  sample: [shop]
"""

import contextlib
import glob
import json
import os
import re
import secrets
import shutil
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_text
from ansible.module_utils.urls import open_url
from ansible_collections.daoman.fastapi.plugins.module_utils import certificates as plan
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree
from ansible_collections.daoman.fastapi.plugins.module_utils._host import places
from ansible_collections.daoman.fastapi.plugins.module_utils._host import tls as tls_host
from ansible_collections.daoman.fastapi.plugins.module_utils._host.files import read_text
from ansible_collections.daoman.fastapi.plugins.module_utils._host.redact import Redactor
from ansible_collections.daoman.fastapi.plugins.module_utils._host.text import safe
from ansible_collections.daoman.fastapi.plugins.module_utils._host.tls import Fault

CERTIFICATE = dict(
    name=dict(type="str", required=True),
    domains=dict(type="list", elements="str", required=True),
    state=dict(type="str", choices=["present", "absent"], default="present"),
    obtain=dict(type="bool", default=True),
    key_type=dict(type="str", choices=["ecdsa", "rsa"], no_log=False),
    elliptic_curve=dict(type="str", choices=["secp256r1", "secp384r1"]),
    rsa_key_size=dict(type="int", choices=[2048, 3072, 4096], no_log=False),
    server=dict(type="str", default=""),
    profile=dict(type="str", default=""),
    renew_before_expiry=dict(type="str", default=""),
    challenge=dict(type="str", choices=["webroot", "dns"]),
    revoke=dict(type="bool", default=False),
)
ARGUMENTS = dict(
    certificates=dict(type="list", elements="dict", required=True, options=CERTIFICATE),
    obtain=dict(type="bool", default=True),
    reissue=dict(type="list", elements="str", default=[]),
    unloadable=dict(type="list", elements="str", default=[]),
    plan=dict(type="bool", default=False),
    dry_run=dict(type="bool", default=False),
    key_type=dict(type="str", choices=["ecdsa", "rsa"], default="ecdsa", no_log=False),
    elliptic_curve=dict(type="str", choices=["secp256r1", "secp384r1"], default="secp256r1"),
    rsa_key_size=dict(type="int", choices=[2048, 3072, 4096], default=2048, no_log=False),
    server=dict(type="str", default=plan.LETS_ENCRYPT),
    renew_before_expiry=dict(type="str", default=""),
    challenge=dict(type="str", choices=["webroot", "dns"], default="webroot"),
    email=dict(type="str", default=""),
    eab_kid=dict(type="str", default=""),
    eab_hmac_key=dict(type="str", default="", no_log=True),
    ca_bundle=dict(type="str", default=""),
    dns_plugin=dict(type="str", default=""),
    # a path
    dns_credentials=dict(type="str", default="", no_log=False),
    dns_propagation_seconds=dict(type="int", default=0),
    env=dict(type="str", default="", no_log=True),
    webroot=dict(type="path", default="/var/www/acme"),
    certbot=dict(type="path", default="/usr/bin/certbot"),
    timeout=dict(type="int", default=300),
)
DEFAULTS = ("key_type", "elliptic_curve", "rsa_key_size", "server", "renew_before_expiry", "challenge")
FILES = ("cert", "chain", "fullchain", "privkey")
# What is served while a damaged certificate is replaced, and what is left of that one until then.
HELD = f"{plan.CONFIG}/fastapi/held"
DAMAGED = f"{plan.CONFIG}/fastapi/damaged"
CHALLENGES = ".well-known/acme-challenge"
BUSY_TRIES = 20
BUSY_SECONDS = 3


class Lineage:
    """One certificate as certbot keeps it, what is wanted of it, and what is to be done about that."""

    def __init__(self, wanted):
        self.wanted, self.name = wanted, wanted["name"]
        self.link = os.path.join(tls_host.LINKS, self.name)
        self.live = f"{plan.CONFIG}/live/{self.name}"
        self.archive = f"{plan.CONFIG}/archive/{self.name}"
        self.renewal = f"{plan.CONFIG}/renewal/{self.name}.conf"
        self.placeholder = f"{tls_host.PLACEHOLDERS}/{self.name}"
        self.held = f"{HELD}/{self.name}"
        self.paths = (self.renewal, self.live, self.archive)
        self.reasons, self.damaged = [], False
        self.have = self.certificate = None

    def exists(self):
        return any(os.path.lexists(path) for path in self.paths)

    def linked(self):
        return tree.read(self.link)

    def is_ours(self):
        return self.linked() in (None, *map(tree.link_node, (self.live, self.placeholder, self.held)))

    def look(self, run):
        """Reads what is there, or Fault."""
        text = tree.read(self.renewal)
        if text is None or text.kind != "file":
            raise Fault(f"{self.renewal} is missing")
        try:
            self.have = plan.parse_renewal(text.data.decode("utf-8", "replace"))
        except Fault as fault:
            raise Fault(f"{self.renewal} {fault}") from fault
        content = {}
        for file in FILES:
            path = os.path.join(self.live, f"{file}.pem")
            if not os.path.islink(path) or os.path.dirname(os.path.realpath(path)) != os.path.realpath(self.archive):
                raise Fault(f"{path} is not certbot's link")
            if not os.path.exists(path):
                raise Fault(f"{path} leads nowhere")
            content[file] = tree.read(os.path.realpath(path)).data
        if content["fullchain"] != content["cert"] + content["chain"]:
            raise Fault(f"{self.live}/fullchain.pem is damaged")
        self.certificate = tls_host.read_pair(self.live, run)

    def usable(self, run):
        """The newest directory or pair of files that could be served: (certificate, key), or None."""
        numbers = [
            re.search(r"fullchain(\d+)\.pem$", path)
            for path in glob.glob(f"{glob.escape(self.archive)}/fullchain*.pem")
        ]
        pairs = [(f"{self.live}/fullchain.pem", f"{self.live}/privkey.pem")]
        for number in sorted((int(match.group(1)) for match in numbers if match), reverse=True):
            pairs.append((f"{self.archive}/fullchain{number}.pem", f"{self.archive}/privkey{number}.pem"))
        for pair in pairs:
            with contextlib.suppress(Fault):
                certificate = tls_host.read_certificate(pair[0], run)
                tls_host.check_key(pair[1], certificate, run)
                if certificate["not_after"] > time.time():
                    return pair
        return None


class Certificates:
    def __init__(self, module):
        self.module, self.params = module, module.params
        self.check = module.check_mode or self.params["plan"]
        self.issued, self.removed, self.kept, self.failures = {}, [], {}, {}
        self.changed = False
        self.lines = {"before": "", "after": ""}
        self.directories = {}
        self.redact = Redactor(secrets_of(self.params))

    def shown(self, text):
        """What certbot, its plugins, a proxy or the CA said: they may repeat what they were given."""
        return safe(self.redact(text))

    def run_command(self, words):
        return self.module.run_command(words)

    def run(self):
        lineages = [Lineage(self.settled(item)) for item in self.params["certificates"]]
        present = [item for item in lineages if item.wanted["state"] == "present"]
        for item in [item for item in present if not item.is_ours()]:
            node = item.linked()
            self.kept[item.name] = node.data if node.kind == "link" else "not a link"
        present = [item for item in present if item.wanted["obtain"] and item.name not in self.kept]
        if self.params["dry_run"]:
            self.rehearse(present)
            return
        if self.params["unloadable"]:
            lineages = present = [item for item in present if item.name in self.params["unloadable"]]
        for item in present:
            self.plan(item)
        self.ask_when_to_renew([item for item in present if item.certificate and not item.reasons])
        had = {item.name: item.certificate for item in present}
        for item in present:
            if item.reasons:
                self.obtain(item)
        if self.params["unloadable"]:
            for item in [item for item in present if item.name in self.failures]:
                self.stand_in(item)
                self.module.warn(self.failures.pop(item.name))
                present.remove(item)
        good = [item for item in present if item.name not in self.failures]
        for item in good:
            self.schedule(item)
        self.serve(good, had)
        for item in lineages:
            if item.wanted["state"] == "absent":
                self.remove(item)
        if (self.changed or self.failures) and not self.check:
            tls_host.record(self.run_command)

    def settled(self, item):
        wanted = plan.settled(item, {name: self.params[name] for name in DEFAULTS})
        wanted["obtain"] = wanted["obtain"] and self.params["obtain"]
        wanted["authenticator"] = "webroot" if wanted["challenge"] == "webroot" else f"dns-{self.params['dns_plugin']}"
        return wanted

    def note(self, name, before, after):
        self.changed = True
        for key, text in (("before", before), ("after", after)):
            self.lines[key] += f"{name}: {text}\n" if text else ""

    # -- What is to be done --------------------------------------------------------------------------------------------

    def plan(self, item):
        if not item.exists():
            item.reasons.append("there is none yet")
            return
        try:
            item.look(self.run_command)
        except Fault as fault:
            item.damaged = True
            item.reasons.append(str(fault))
            return
        item.reasons += plan.differences(item.wanted, item.have, item.certificate, time.time(), self.params["webroot"])
        if item.name in self.params["reissue"]:
            item.reasons.append("it was asked for")

    def directory(self, server, timeout):
        """The directory of an ACME server, or Fault. Asked for once."""
        if server not in self.directories:
            try:
                self.directories[server] = self.get(server, timeout)
            except Fault as fault:
                self.directories[server] = fault
        if isinstance(self.directories[server], Fault):
            raise self.directories[server]
        return self.directories[server]

    def get(self, url, timeout):
        try:
            with open_url(url, timeout=timeout, ca_path=self.params["ca_bundle"] or None) as answer:
                found = json.loads(to_text(answer.read()))
        except Exception as error:
            # whatever it is: it is not the reason for a failure of its own, but is told as one
            raise Fault(self.shown(f"{url} does not answer: {getattr(error, 'reason', None) or error}")) from error
        if not isinstance(found, dict):
            raise Fault(f"{url} is not of an ACME server")
        return found

    def ask_when_to_renew(self, lineages):
        for item in lineages:
            with contextlib.suppress(Fault):
                where = self.directory(item.wanted["server"], 5).get("renewalInfo")
                if where and item.certificate["issuer_key"]:
                    answer = self.get(f"{where.rstrip('/')}/{plan.ari_id(item.certificate)}", 5)
                    if plan.ari_overdue(answer, time.time()):
                        item.reasons.append("its CA wants it replaced by now, as one that is revoked")

    # -- certbot -------------------------------------------------------------------------------------------------------

    def obtain(self, item):
        before = f"{self.describe(item)}" if item.exists() else ""
        if self.check:
            self.issue(item, before, "a new certificate")
            return
        moved = {}
        try:
            self.ready(item)
            if item.damaged:
                moved = self.set_aside(item)
            self.certbot(plan.order(item.wanted, self.params), account=True)
            item.look(self.run_command)
        except Fault as fault:
            for path, place in moved.items():
                if not os.path.lexists(path):
                    shutil.move(place, path)
            self.failures[item.name] = self.failed(item, fault)
            return
        shutil.rmtree(f"{DAMAGED}/{item.name}", ignore_errors=True)
        self.issue(item, before, self.describe(item))

    def issue(self, item, before, after):
        self.issued[item.name] = item.reasons
        self.note(item.name, before, f"{after} ({'; '.join(item.reasons)})")

    def describe(self, item):
        if not item.certificate:
            return "a damaged certificate"
        return (
            f"{', '.join(sorted(item.certificate['names']))}, "
            f"{item.certificate['key_type']} {item.certificate['key']}, "
            f"until {plan.day(item.certificate['not_after'])}, serial {item.certificate['serial']}"
        )

    def failed(self, item, fault):
        return (
            f"{item.name}: there is no new certificate for {', '.join(item.wanted['domains'])} "
            f"from {item.wanted['server']}. "
            f"{fault}. {self.goes_on(item)}"
        )

    def goes_on(self, item):
        """What is served in spite of a failure."""
        node = item.linked()
        if node == tree.link_node(item.placeholder):
            return "The site is served with its self-signed placeholder. The next run tries again."
        with contextlib.suppress(Fault):
            until = tls_host.read_certificate(f"{item.link}/fullchain.pem", self.run_command)["not_after"]
            word = "expires" if until > time.time() else "expired"
            return (
                f"The site is served with the certificate before, which {word} on {plan.day(until)}. "
                "The next run tries again.")
        return "nginx serves what it has loaded until it is restarted. The next run tries again."

    def ready(self, item):
        """Fault where the CA cannot but refuse: each refusal counts against its limits."""
        if not os.access(self.params["certbot"], os.X_OK):
            raise Fault(f"There is no certbot at {self.params['certbot']}")
        self.directory(item.wanted["server"], 15)
        if item.wanted["authenticator"] != "webroot":
            return
        folder = os.path.join(self.params["webroot"], CHALLENGES)
        places.make(folder)
        name = f"fastapi-{secrets.token_hex(8)}"
        path = os.path.join(folder, name)
        try:
            with open(path, "w", encoding="ascii") as stream:
                stream.write(name)
            for domain in item.wanted["domains"]:
                status, body = tls_host.fetch(domain, f"/{CHALLENGES}/{name}")
                if not status:
                    raise Fault(
                        f"nginx on this host does not answer for {domain} on port 80: {body}. The CA was not asked"
                    )
                if status != 200 or body.strip() != name:
                    raise Fault(
                        f"nginx on this host answers {status} for a challenge of {domain} on port 80. Is there a site "
                        "for that name? The CA was not asked"
                    )
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def set_aside(self, item):
        """Moves a damaged certificate away, which certbot would not touch. What is served is a sound copy, if there
        is one."""
        self.stand_in(item)
        folder = f"{DAMAGED}/{item.name}"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o700)
        os.chmod(os.path.dirname(DAMAGED), 0o700)
        moved = {}
        for path in item.paths:
            if os.path.lexists(path):
                moved[path] = os.path.join(folder, path.split("/")[3])
                shutil.move(path, moved[path])
        return moved

    def stand_in(self, item):
        """Points the link to something that nginx can load, the newest first."""
        if item.linked() != tree.link_node(item.live):
            return
        pair = item.usable(self.run_command)
        if pair:
            os.makedirs(item.held, mode=0o700, exist_ok=True)
            for path, file in zip(pair, ("fullchain.pem", "privkey.pem")):
                node = tree.read(os.path.realpath(path))
                tree.write(os.path.join(item.held, file), node._replace(mode=0o600))
            tree.write(item.link, tree.link_node(item.held))
        elif os.path.isdir(item.placeholder):
            tree.write(item.link, tree.link_node(item.placeholder))

    def certbot(self, words, account=False):
        """Runs certbot, or Fault with its reason."""
        command = ["timeout", "--kill-after=10", str(self.params["timeout"]), self.params["certbot"], *words]
        secret = None
        try:
            if account and self.params["eab_kid"]:
                # On the command line everybody on the host could read it.
                handle, secret = tempfile.mkstemp(prefix="fastapi-eab-")
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(f"eab-kid = {self.params['eab_kid']}\neab-hmac-key = {self.params['eab_hmac_key']}\n")
                command += ["--config", secret]
            for _try in range(BUSY_TRIES):
                code, out, err = self.run_command(command)
                if plan.BUSY not in out + err:
                    break
                time.sleep(BUSY_SECONDS)
        finally:
            if secret:
                os.unlink(secret)
        if code == 124:
            raise Fault(f"certbot did not end within {self.params['timeout']} s")
        if code:
            raise Fault(self.shown(plan.explain(f"{err}\n{out}")))

    def rehearse(self, lineages):
        for item in lineages:
            # one that is not there has failed, or is still to be obtained
            if item.exists() and not self.check:
                try:
                    self.certbot(plan.rehearsal(item.wanted))
                except Fault as fault:
                    self.failures[item.name] = f"{item.name}: would not be renewed. {fault}"

    # -- What certbot has is renewed in time, and served ---------------------------------------------------------------

    def schedule(self, item):
        if not item.certificate:
            return
        seconds, capped = plan.renew_before(item.wanted, item.certificate)
        if capped:
            self.module.warn(
                f"{item.name}: renew_before_expiry is {item.wanted['renew_before_expiry']}, too much of its lifetime. "
                "It is renewed when a third of that is over."
            )
        node = tree.read(item.renewal)
        if item.damaged and self.check:
            return
        text = node.data.decode("utf-8", "replace")
        wanted = plan.with_renew_before(text, seconds)
        if wanted != text:
            self.note(item.renewal, "", f"renewed by the timer {seconds / 86400:.1f} days before it expires")
            if not self.check:
                tree.write(item.renewal, node._replace(data=wanted.encode("utf-8")))

    def serve(self, lineages, had):
        """Points the links to what certbot has, and has nginx serve it. Undone where nginx refuses."""
        before, expected = {}, {}
        for item in lineages:
            there = item.linked()
            if there != tree.link_node(item.live):
                self.note(item.link, f"link to {there.data}" if there else "", f"link to {item.live}")
                before[item.name] = (item, there)
                if not self.check:
                    tree.write(item.link, tree.link_node(item.live))
            if (self.check and item.reasons) or not (tls_host.nginx_uses(item.name) and tls_host.nginx_runs()):
                continue
            names = item.certificate["names"]
            if item.name in self.issued or item.name in before:
                expected[item.live] = names
            elif tls_host.mismatch(item.live, names):
                self.note(item.name, "nginx serves another certificate", "nginx serves the one that certbot has")
                expected[item.live] = names
        if self.check or not expected:
            return
        try:
            tls_host.reload(expected, self.run_command)
        except Fault as fault:
            for item, there in before.values():
                tree.write(item.link, there)
            for item in lineages:
                if item.live in expected:
                    self.failures[item.name] = (
                        f"{item.name}: certbot has the certificate, but nginx does not serve it. {fault}. "
                        f"{self.goes_on(item)}"
                    )
            return
        for item in lineages:
            shutil.rmtree(item.held, ignore_errors=True)

    # -- Removal -------------------------------------------------------------------------------------------------------

    def remove(self, item):
        if not item.is_ours():
            node = item.linked()
            self.kept[item.name] = node.data if node.kind == "link" else "not a link"
            return
        there = [path for path in (item.link, item.placeholder, item.held, *item.paths) if os.path.lexists(path)]
        if not there:
            return
        user = tls_host.nginx_uses(item.name)
        if user and not self.check:
            self.failures[item.name] = f"{item.name}: is to be removed, but {user} still uses it. It was left as it is"
            return
        if not self.check:
            try:
                self.forget(item)
            except Fault as fault:
                self.failures[item.name] = f"{item.name}: could not be revoked, and was not removed. {fault}"
                return
            for path in (item.link, item.placeholder, item.held, *item.paths):
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                elif os.path.lexists(path):
                    os.unlink(path)
        self.removed.append(item.name)
        for path in there:
            self.note(path, "is there" + (", to be revoked" if item.wanted["revoke"] and path == item.live else ""), "")

    def forget(self, item):
        """Has certbot revoke the certificate where that is asked for. The files go in any case."""
        if not (item.wanted["revoke"] and item.exists()):
            return
        try:
            item.look(self.run_command)
        except Fault as fault:
            raise Fault(f"It is damaged, and with it the key that would prove the right to do so ({fault})") from fault
        self.certbot(
            [
                "revoke",
                "--non-interactive",
                "--cert-name",
                item.name,
                "--server",
                item.have["server"],
                "--no-delete-after-revoke",
            ]
        )

    # -- The result ----------------------------------------------------------------------------------------------------

    def result(self):
        found = {
            "changed": self.changed,
            "issued": self.issued,
            "removed": self.removed,
            "kept": self.kept,
            "failures": list(self.failures),
        }
        if self.module._diff:
            found["diff"] = self.lines
        return found


def environment(params):
    return {name: str(value) for name, value in json.loads(params["env"] or "{}").items()}


def secrets_of(params):
    """What must not be in a message: the environment, the key of the account's binding, the credentials for DNS."""
    text = read_text(params["dns_credentials"]) if params["dns_credentials"] else ""
    credentials = dict(re.findall(r"^\s*([\w.-]+)\s*=\s*(\S+)", text, re.M))
    return {**environment(params), **credentials, "eab_hmac_key": params["eab_hmac_key"]}


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    os.umask(0o022)
    params = module.params
    os.environ.update(environment(params))
    os.environ[tls_host.QUIET] = "1"
    if params["ca_bundle"]:
        os.environ["REQUESTS_CA_BUNDLE"] = params["ca_bundle"]
    run = Certificates(module)
    run.run()
    if run.failures:
        module.fail_json(msg="\n\n".join(run.failures.values()), **run.result())
    module.exit_json(**run.result())


if __name__ == "__main__":
    main()
