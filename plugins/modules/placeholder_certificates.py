#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: placeholder_certificates
short_description: Gives nginx something to start with until there is a real certificate
version_added: 0.1.0
description:
  - Makes self-signed certificates (EC P-256), and links C(<links>/<name>) to them, where nginx looks for
    C(fullchain.pem) and C(privkey.pem).
  - A name that is there already and is anything but the link to the placeholder, such as a link to a real certificate
    or a directory with one, is left alone, and no placeholder is made for it.
  - A link to a certificate of certbot's that nginx could not load, because of a file that is missing or damaged, is
    named in
    RV(damaged), and there is a placeholder for it.
  - A placeholder is made anew when its names change, when it is about to expire, and when its key does not fit.
options:
  certificates:
    description: The certificates.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the directory. Letters, digits, dots, dashes and underscores.
        type: str
        required: true
      domains:
        description: The names (and addresses) that the certificate is for.
        type: list
        elements: str
        required: true
      state:
        description: V(absent) removes the placeholder and the link to it. What is there instead of it is left alone.
        type: str
        choices: [present, absent]
        default: present
  directory:
    description: Where the placeholders are kept.
    type: path
    default: /var/lib/fastapi/placeholder
  links:
    description: Where the links to them are made. Need not exist yet.
    type: path
    default: /etc/nginx/tls
  lineages:
    description: Where certbot keeps its certificates.
    type: path
    default: /etc/letsencrypt/live
  days:
    description: Days for which a placeholder is valid.
    type: int
    default: 3650
attributes:
  check_mode:
    description: Predicts what would be made, without openssl being there yet.
    support: full
  diff_mode:
    description: Shows the names of certificates before and after, and the links.
    support: full
requirements:
  - openssl (the command)
author: The daoman.fastapi contributors (@daoman)
"""

EXAMPLES = r"""
- name: There is a certificate for every site
  daoman.fastapi.placeholder_certificates:
    certificates:
      - name: shop
        domains: [shop.example.com, www.shop.example.com]
"""

RETURN = r"""
issued:
  description: Names whose placeholder was made.
  returned: success
  type: list
  elements: str
  sample: [shop]
linked:
  description: Names whose link was made.
  returned: success
  type: list
  elements: str
  sample: [shop]
damaged:
  description: Names of certbot's certificates that nginx could not load, with the reason.
  returned: success
  type: dict
  sample: {shop: /etc/nginx/tls/shop/privkey.pem is missing}
kept:
  description: Names that have something else than a placeholder, with what it is.
  returned: success
  type: dict
  sample: {shop: /etc/letsencrypt/live/shop}
"""

import ipaddress
import os
import re
import shutil
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree
from ansible_collections.daoman.fastapi.plugins.module_utils._host import places
from ansible_collections.daoman.fastapi.plugins.module_utils._host import tls as tls_host

CERTIFICATE = "fullchain.pem"
KEY = "privkey.pem"
RENEW_BEFORE = 30 * 86400
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DOMAIN = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
CONFIG = """
[req]
prompt = no
distinguished_name = subject
x509_extensions = extensions
[subject]
O = Placeholder, not a real certificate
[extensions]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = %s
"""


class Failure(Exception):
    """What is wrong, in words for the user."""


def alternative_name(domain):
    """A domain or an address as openssl wants it."""
    try:
        return f"IP:{ipaddress.ip_address(domain)}"
    except ValueError as error:
        if not DOMAIN.fullmatch(domain):
            raise Failure(f"{domain!r} is not a domain.") from error
        return f"DNS:{domain.lower()}"


def checked(certificates):
    """{name: alternative names} of all certificates, or Failure."""
    result = {}
    for item in certificates:
        name = item["name"]
        if not NAME.fullmatch(name):
            raise Failure(f"{name!r} is not a name for a certificate.")
        if name in result:
            raise Failure(f"The certificate {name} is there twice.")
        if not item["domains"]:
            raise Failure(f"The certificate {name} has no domains.")
        result[name] = {alternative_name(domain) for domain in item["domains"]}
    return result


def look(path, run):
    """(alternative names, what is wrong) of the placeholder in a directory."""
    certificate, key = os.path.join(path, CERTIFICATE), os.path.join(path, KEY)
    if not os.path.isfile(certificate) or not os.path.isfile(key):
        return set(), "is not there"
    expires, out, _err = run([
        "openssl", "x509", "-in", certificate, "-noout", "-pubkey", "-ext", "subjectAltName",
        "-checkend", str(RENEW_BEFORE)])
    names = {f"DNS:{name}" for name in re.findall(r"DNS:([^,\s]+)", out)}
    names.update(f"IP:{ipaddress.ip_address(name)}" for name in re.findall(r"IP Address:([^,\s]+)", out))
    if not names:
        return names, "cannot be read"
    if expires:
        return names, "expires soon"
    failed, public, _err = run(["openssl", "pkey", "-in", key, "-pubout"])
    if failed or public.strip() not in out:
        return names, "has a key that does not fit"
    return names, None


def make(path, names, days, run):
    """Makes a placeholder, in one step for whoever reads it."""
    parent, name = os.path.split(path)
    places.make(parent)
    stage = tempfile.mkdtemp(prefix=f".{name}.", dir=parent)
    try:
        code, out, err = run(
            ["openssl", "req", "-config", "/dev/stdin", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-sha256", "-days", str(days), "-keyout", os.path.join(stage, KEY),
             "-out", os.path.join(stage, CERTIFICATE)],
            data=CONFIG % ",".join(sorted(names)))
        if code:
            raise Failure(f"openssl cannot make the certificate {path}: {(err or out).strip()}")
        secure(stage)
        if os.path.isdir(path):
            tree.swap(stage, path, [KEY, CERTIFICATE])
        else:
            os.rename(stage, path)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def modes(path):
    return {path: 0o755, os.path.join(path, CERTIFICATE): 0o644, os.path.join(path, KEY): 0o600}


def is_secure(path):
    found = {file: os.stat(file) for file in modes(path)}
    return all(
        stat.S_IMODE(found[file].st_mode) == mode and found[file].st_uid == os.geteuid()
        for file, mode in modes(path).items())


def secure(path):
    for file, mode in modes(path).items():
        os.chown(file, os.geteuid(), os.getegid())
        os.chmod(file, mode)


def ensure(params, check, run):
    """Does it all. Returns what the module returns."""
    result = {"changed": False, "issued": [], "linked": [], "damaged": {}, "kept": {},
              "diff": {"before": "", "after": ""}}
    absent = {item["name"] for item in params["certificates"] if item.get("state") == "absent"}
    for name, wanted in checked(params["certificates"]).items():
        path, link = os.path.join(params["directory"], name), os.path.join(params["links"], name)
        there = tree.read(link)
        if name in absent:
            remove(result, path, link, there, check)
            continue
        if there and there != tree.link_node(path):
            damage = damaged(link, there, os.path.join(params["lineages"], name), run)
            if not damage:
                result["kept"][name] = there.data if there.kind == "link" else "not a link"
                continue
            result["damaged"][name] = damage
        names, fault = look(path, run)
        if fault or names != wanted:
            result["issued"].append(name)
            before = f"{', '.join(sorted(names))} ({fault or 'other names'})" if names else ""
            note(result, path, before, ", ".join(sorted(wanted)))
            if not check:
                make(path, wanted, params["days"], run)
        elif not is_secure(path):
            note(result, path, "another owner or other permissions", "key and certificate as they should be")
            if not check:
                secure(path)
        if not there:
            result["linked"].append(name)
            note(result, link, "", f"link to {path}")
            if not check:
                tree.write(link, tree.link_node(path))
    return result


def damaged(link, there, lineage, run):
    """Why nginx could not load a certificate of certbot's, or None."""
    if there != tree.link_node(lineage):
        return None
    try:
        tls_host.read_pair(link, run)
    except tls_host.Fault as fault:
        return str(fault)
    return None


def remove(result, path, link, there, check):
    if there and there != tree.link_node(path):
        result["kept"][os.path.basename(link)] = there.data if there.kind == "link" else "not a link"
    elif there:
        note(result, link, f"link to {path}", "")
        if not check:
            os.unlink(link)
    if os.path.isdir(path):
        note(result, path, "a placeholder", "")
        if not check:
            shutil.rmtree(path)


def note(result, path, before, after):
    result["changed"] = True
    for key, text in (("before", before), ("after", after)):
        if text:
            result["diff"][key] += f"{path}: {text}\n"


def main():
    module = AnsibleModule(
        argument_spec=dict(
            certificates=dict(
                type="list", elements="dict", required=True,
                options=dict(
                    name=dict(type="str", required=True),
                    domains=dict(type="list", elements="str", required=True),
                    state=dict(type="str", choices=["present", "absent"], default="present"))),
            directory=dict(type="path", default="/var/lib/fastapi/placeholder"),
            links=dict(type="path", default="/etc/nginx/tls"),
            lineages=dict(type="path", default="/etc/letsencrypt/live"),
            days=dict(type="int", default=3650),
        ),
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        module.exit_json(**ensure(module.params, module.check_mode, module.run_command))
    except (Failure, OSError, tree.TreeError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
