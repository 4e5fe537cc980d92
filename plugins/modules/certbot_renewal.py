#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: certbot_renewal
short_description: Has certificates renewed twice a day
version_added: 0.2.0
description:
  - Sees to the units C(certbot.service) and C(certbot.timer), or a file for cron where systemd does not run the
    services, and to
    all that they need - certbot's deploy hook, the command that it calls, the CAs to trust, credentials for DNS.
  - The unit fails where a certificate cannot be renewed, and where nginx does not serve what was renewed. How the
    last renewal ended, and what there is of certificates, is written to C(/var/lib/fastapi/certificates.json), and for
    node_exporter.
options:
  certbot:
    description: The certbot to call. One that is not Debian's gets units of its own, in place of Debian's.
    type: path
    default: /usr/bin/certbot
  command:
    description: Text of the command that reloads nginx, and looks at what it serves.
    type: str
    required: true
  package:
    description: Files of the package C(fastapi_host) that the command imports, by path. The controller adds them.
    type: dict
    default: {}
  ca_bundle:
    description: CAs to trust about ACME servers, as PEM or as the path of a file on the host. Empty means the system's.
    type: str
    default: ""
  dns_credentials:
    description: Credentials of certbot's plugin for DNS, as its documentation has them. Empty means none.
    type: str
    default: ""
  env:
    description:
      - Environment for certbot, as JSON. Written to a file that only root reads.
      - It is one string because Ansible masks each secret value wherever it occurs, and of a dict with V(1) in it every
        number of the output would be.
    type: str
    default: ""
attributes:
  check_mode:
    description: Predicts the changes, without certbot being there yet.
    support: full
  diff_mode:
    description: Shows each file but those with secrets.
    support: full
author: The daoman.fastapi contributors (@daoman)
"""

EXAMPLES = r"""
- name: Certificates are renewed
  daoman.fastapi.certbot_renewal:
    command: "{{ lookup('ansible.builtin.file', 'fastapi_certificates.py') }}"
    env: "{{ {'HTTPS_PROXY': 'http://proxy.internal:3128'} | to_json }}"
"""

RETURN = r"""
paths:
  description: The files that changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/systemd/system/certbot.service.d/fastapi.conf]
"""

import json
import os
import zlib

from ansible_collections.daoman.fastapi.plugins.module_utils import certificates as plan
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree
from ansible_collections.daoman.fastapi.plugins.module_utils.program_files import PACKAGE, replace_directory, strangers
from ansible_collections.daoman.fastapi.plugins.module_utils.quiet import QuietModule

SECRETS = (plan.CREDENTIALS, plan.ENVIRONMENT)
TIMER = "certbot.timer"


def wanted(params, systemd):
    """{path below /: node or None}"""
    bundle = params["ca_bundle"]
    text = bundle if "-----BEGIN" in bundle else ""
    # Hosts do not all ask at once, and each at the same time every day.
    with_machine_id = tree.read("/etc/machine-id")
    files = plan.renewal_files(
        {
            **params,
            "env": json.loads(params["env"] or "{}"),
            "ca_bundle_text": text and text.rstrip("\n") + "\n",
            "ca_bundle_path": plan.CA_BUNDLE if text else bundle,
        },
        systemd,
        zlib.crc32(with_machine_id.data if with_machine_id else b"") % 720,
    )
    return {path[1:]: tree.file_node(*file) if file else None for path, file in files.items()}


def wanted_package(files):
    """{path: node}, and whether what is installed differs."""
    nodes = {os.path.join(PACKAGE, tree.checked(path)): tree.file_node(text) for path, text in files.items()}
    differs = any(tree.read(path) != node for path, node in nodes.items()) or strangers(PACKAGE, nodes)
    return nodes, bool(nodes and differs)


def timer_is_on(module):
    _code, out, _err = module.run_command(["systemctl", "show", "--property=ActiveState,UnitFileState", TIMER])
    return "ActiveState=active" in out and "UnitFileState=enabled" in out


def main():
    module = QuietModule(
        argument_spec=dict(
            certbot=dict(type="path", default="/usr/bin/certbot"),
            command=dict(type="str", required=True),
            package=dict(type="dict", default={}),
            ca_bundle=dict(type="str", default=""),
            dns_credentials=dict(type="str", default="", no_log=True),
            env=dict(type="str", default="", no_log=True),
        ),
        supports_check_mode=True,
    )
    os.umask(0o022)
    systemd = os.path.isdir("/run/systemd/system")
    try:
        package, renew_package = wanted_package(module.params["package"])
        nodes = wanted(module.params, systemd)
        changes = tree.plan("/", {path: node for path, node in nodes.items() if node}, nodes)
        on = timer_is_on(module) if systemd else True
        result = {"changed": bool(changes) or renew_package or not on, "paths": [f"/{path}" for path in changes]}
        if renew_package:
            result["paths"].append(PACKAGE)
        if module._diff:
            shown = {path: change for path, change in changes.items() if f"/{path}" not in SECRETS}
            result["diff"] = tree.diff("/", shown)
            if renew_package:
                result["diff"].append({"prepared": f"{PACKAGE}: another version\n"})
            if not on:
                result["diff"].append({"prepared": f"{TIMER}: enabled and started\n"})
        if not module.check_mode:
            # First, for the command and the hook import it. What they imported before goes with the other changes.
            if renew_package:
                replace_directory(PACKAGE, package)
            for path, (_before, after) in sorted(changes.items(), key=lambda item: item[1][1] is None):
                tree.write(f"/{path}", after)
            if systemd and any(path.startswith(plan.UNITS[1:]) for path in changes):
                module.run_command(["systemctl", "daemon-reload"], check_rc=True)
            if not on:
                module.run_command(["systemctl", "enable", "--now", TIMER], check_rc=True)
    except (OSError, tree.TreeError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
