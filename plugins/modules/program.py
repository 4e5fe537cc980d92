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
  - A directory is replaced as a whole, in one step, when anything in it differs. What imports from it meets the old
    files or the new ones, and no module of an older version is left there.
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
      module_utils:
        description: Directory of this collection's C(plugins/module_utils), instead of O(directories[].src).
        type: str
      dest:
        description: Directory on the host. All that is in it is the module's.
        type: path
        required: true
  folders:
    description: Directories to make, of root, with these permissions. What lies in them stays.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path on the host.
        type: path
        required: true
      mode:
        description: Permissions. Parents that are missing are made with V(0755).
        type: str
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
    description: Shows each file, but of secrets and of the collection's own code only that they differ.
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
import stat

from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree
from ansible_collections.daoman.fastapi.plugins.module_utils._host import places
from ansible_collections.daoman.fastapi.plugins.module_utils.program_files import remove, replace_directory, strangers
from ansible_collections.daoman.fastapi.plugins.module_utils.quiet import QuietModule

ROUNDS = 200000
# `entries` is what the controller's part makes of a directory.
ARGUMENTS = {
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "src": {"type": "str"},
            "module_utils": {"type": "str"},
            "dest": {"type": "path", "required": True},
        },
    },
    "folders": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"path": {"type": "path", "required": True}, "mode": {"type": "str", "required": True}},
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


def unfit(folders):
    """Those of the directories that are missing, another's, or have other permissions: [(path, mode)]."""
    found = []
    for item in folders:
        path, mode = item["path"], int(item["mode"], 8)
        info = os.lstat(path) if os.path.lexists(path) else None
        if info and not stat.S_ISDIR(info.st_mode):
            raise OSError(f"{path} is not a directory. Move it away.")
        if not info or (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) != (mode, os.geteuid(), os.getegid()):
            found.append((path, mode))
    return found


def make(folders):
    for path, mode in folders:
        os.makedirs(path, mode=0o755, exist_ok=True)
        os.chown(path, os.geteuid(), os.getegid())
        os.chmod(path, mode)


def nodes(params):
    """The files that are wanted: {path: node}."""
    return {item["dest"]: tree.file_node(item["content"], int(item["mode"], 8)) for item in params["files"]}


def plan(params):
    """What is to be written, {path: (node before, node after)}, and what removed, [path]."""
    wanted = nodes(params)
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


def apply(params, changes, gone):
    """Directories as a whole, then single files, and what is removed last: nothing is missed meanwhile."""
    wanted, done = nodes(params), []
    for item in params["directories"]:
        inside = item["dest"] + "/"
        if any(path.startswith(inside) for path in [*changes, *gone]):
            replace_directory(item["dest"], wanted)
            done.append(inside)
    for path, (_before, after) in changes.items():
        if not path.startswith(tuple(done)):
            tree.write(path, after)
    for path in gone:
        if not path.startswith(tuple(done)):
            remove(path)


def diff(changes, gone, hidden, own=()):
    """What changes, for people. Of secrets, and of the collection's own code below `own`, only that it does."""
    shown = []
    for path, pair in changes.items():
        if path in hidden:
            shown.append({"prepared": f"{path}: the secret differs\n"})
        elif path.startswith(tuple(own)):
            shown.append({"prepared": f"{path} differs\n" if pair[0] else f"{path} is new\n"})
        else:
            shown += tree.diff("/", {path: pair})
    return shown + [{"prepared": f"{path} is removed\n"} for path in gone]


def main():
    module = QuietModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    os.umask(0o022)
    if not module.check_mode:
        places.correct()
    params = module.params
    try:
        folders = unfit(params["folders"])
        changes, gone = plan(params)
        if not module.check_mode:
            make(folders)
            apply(params, changes, gone)
    except OSError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(changes or gone or folders),
        paths=sorted([*changes, *gone, *(path for path, _mode in folders)]),
        digest=digest(
            [(item["dest"], item["mode"], item["content"]) for item in params["files"]],
            [(item["dest"], item["content"]) for item in params["secrets"]],
        ),
        diff=diff(
            changes,
            gone,
            {item["dest"] for item in params["secrets"]},
            [item["dest"] + "/" for item in params["directories"] if item.get("module_utils")],
        )
        + [{"prepared": f"{path} becomes a directory with mode {mode:04o}\n"} for path, mode in folders],
    )


if __name__ == "__main__":
    main()
