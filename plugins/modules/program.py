#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: program
short_description: Installs a program with its settings and secrets
version_added: 0.3.0
description:
  - Writes directories of files, single files and secrets in one round trip, each file in one step, owned by root.
  - What else lies in such a directory is removed, so that no module of an older version is left there.
options:
  directories:
    description: Directories to write.
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description:
          - Directory on the controller, looked for as files are, in C(files/) of the role. Its C(*.py) are the program.
        type: str
        required: true
      dest:
        description: Directory on the host. All that is in it is the module's.
        type: path
        required: true
  files:
    description: Single files to write.
    type: list
    elements: dict
    default: []
    suboptions:
      dest:
        description: Path on the host.
        type: path
        required: true
      src:
        description: File on the controller, looked for as files are.
        type: str
      content:
        description: The text, instead of O(files[].src).
        type: str
      mode:
        description: Permissions.
        type: str
        default: "0644"
  secrets:
    description: Files with mode 0600 whose content is never shown.
    type: list
    elements: dict
    default: []
    suboptions:
      dest:
        description: Path on the host.
        type: path
        required: true
      content:
        description: The secret. Empty removes the file.
        type: str
        required: true
  absent:
    description: Files, and directories with all that is in them, to remove.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    description: Predicts the changes.
    support: full
  diff_mode:
    description: Shows each file, but of secrets only that they differ.
    support: full
author: The daoman.fastapi contributors (@daoman)
"""

EXAMPLES = r"""
- name: Report | The program is installed
  daoman.fastapi.program:
    directories:
      - {src: report, dest: /usr/local/lib/report}
    files:
      - {src: report.sh, dest: /usr/local/sbin/report, mode: "0755"}
      - {content: "{{ report_settings | to_nice_json }}", dest: /etc/report.json}
    secrets:
      - {content: "{{ report_token }}", dest: /etc/report.token}
"""

RETURN = r"""
digest:
  description:
    - Changes when something of the program does. In a unit's section C(Unit), as C(X-Digest), it has
      M(daoman.fastapi.systemd_units) restart the service. Secrets go into it by a slow hash (PBKDF2, 200,000 rounds).
  returned: always
  type: str
paths:
  description: What was changed, or would be in check mode.
  returned: always
  type: list
  elements: str
"""

import hashlib
import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree
from ansible_collections.daoman.fastapi.plugins.module_utils._host import places

ROUNDS = 200000
# `entries` is what the controller's part makes of a directory.
ARGUMENTS = {
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"src": {"type": "str", "required": True}, "dest": {"type": "path", "required": True}},
    },
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "dest": {"type": "path", "required": True},
            "src": {"type": "str"},
            "content": {"type": "str"},
            "mode": {"type": "str", "default": "0644"},
        },
    },
    "secrets": {
        "no_log": False,  # but their content
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "dest": {"type": "path", "required": True},
            "content": {"type": "str", "required": True, "no_log": True},
        },
    },
    "absent": {"type": "list", "elements": "path", "default": []},
}


def digest(files, secrets):
    """One for all of it. `files` are triples of path, mode and content, `secrets` pairs of path and content."""
    whole = hashlib.sha256()
    for path, mode, content in sorted(files):
        whole.update(f"{path}\0{mode}\0{content}\0".encode())
    for path, content in sorted(secrets):
        whole.update(hashlib.pbkdf2_hmac("sha256", content.encode(), path.encode(), ROUNDS))
    return whole.hexdigest()[:16]


def strangers(directory, known):
    """What lies in a directory and is not known, deepest first; directories that are left empty too."""
    found = []
    for folder, folders, files in os.walk(directory, topdown=False):
        found += [os.path.join(folder, name) for name in files if os.path.join(folder, name) not in known]
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.islink(path) or not any(other.startswith(path + "/") for other in known):
                found.append(path)
    return found


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def plan(params):
    """What is to be written, {path: (node before, node after)}, and what removed, [path]."""
    wanted = {item["dest"]: tree.file_node(item["content"], int(item["mode"], 8)) for item in params["files"]}
    unwanted = list(params["absent"])
    for item in params["secrets"]:
        if item["content"]:
            wanted[item["dest"]] = tree.file_node(item["content"], 0o600)
        else:
            unwanted.append(item["dest"])
    changes = {path: (tree.read(path), node) for path, node in wanted.items()}
    gone = [path for path in unwanted if os.path.lexists(path)]
    for item in params["directories"]:
        gone += strangers(item["dest"], wanted)
    return {path: pair for path, pair in changes.items() if pair[0] != pair[1]}, gone


def diff(changes, gone, hidden):
    shown = []
    for path, pair in changes.items():
        if path in hidden:
            shown.append({"prepared": f"{path}: the secret differs\n"})
        else:
            shown += tree.diff("/", {path: pair})
    return shown + [{"prepared": f"{path} is removed\n"} for path in gone]


def main():
    # Or all of the program would go to the journal, at each run.
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True, no_log=True)
    os.umask(0o022)
    if not module.check_mode:
        places.correct()
    params = module.params
    changes, gone = plan(params)
    if not module.check_mode:
        for path in gone:
            remove(path)
        for path, (_before, after) in changes.items():
            tree.write(path, after)
    module.exit_json(
        changed=bool(changes or gone),
        paths=sorted([*changes, *gone]),
        digest=digest(
            [(item["dest"], item["mode"], item["content"]) for item in params["files"]],
            [(item["dest"], item["content"]) for item in params["secrets"]],
        ),
        diff=diff(changes, gone, {item["dest"] for item in params["secrets"]}),
    )


if __name__ == "__main__":
    main()
