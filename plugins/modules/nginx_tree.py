#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_tree
short_description: Configures nginx as one transaction
version_added: 0.1.0
description:
  - Renders all given files on the controller and hands them to the host in one round trip. There a complete copy of
    the configuration is staged beside the real one, changed, and tested with C(nginx -t). Only if nginx accepts it, it
    is swapped in, in one step where the file system can, and nginx is reloaded, or started if it was not running.
  - The reload is verified by nginx's workers, because neither C(nginx -t) nor the reload itself notices, for example, a
    port that another process holds. If the reload does not take, the old configuration is swapped back.
  - A configuration that is refused leaves disk and process untouched. The failure names file, line and variable.
  - Files which an earlier run wrote and which are no longer given are removed. All others in the directory are kept,
    and are part of the test.
  - With nothing to do, nothing is staged or tested. A stopped or disabled nginx, files edited or removed by hand, and
    an nginx that has not loaded what is on disk count as something to do.
options:
  files:
    description: The files to write.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Path below O(root).
          - With O(files[].each), keys of the item in braces are filled in, as in V(sites-available/{name}.conf).
        type: str
        required: true
      template:
        description:
          - Template to render on the controller. Looked for as by the module M(ansible.builtin.template), then in
            C(templates/) beside the inventory and below the current directory, so that a playbook from a collection
            finds the templates of the user's project.
          - Blocks are trimmed on both sides (C(trim_blocks), C(lstrip_blocks)).
          - Lines that end in a comment such as C(# only nginx >= 1.25.1) or C(# only nginx < 1.25.1) are left out for
            other versions of nginx.
          - Raw text from a variable belongs between the comments C(# from VARIABLE) and C(# end of VARIABLE). A failure
            in it then names the variable.
        type: str
      content:
        description: The text, instead of O(files[].template).
        type: str
      each:
        description:
          - Name of a variable that holds a list of dicts. The file is written once for each of them.
        type: str
      as:
        description: What the template calls the item of O(files[].each).
        type: str
        default: item
      override:
        description: Key of the item that, where it is set, names another template than O(files[].template).
        type: str
      vars:
        description: Further variables for the template.
        type: dict
        default: {}
      origin:
        description: The variable that the file comes from, for failures. With O(files[].each) it is known.
        type: str
      mode:
        description:
          - Permissions. nginx's master process reads the configuration as root; its workers and other users do not need
            it, and raw text may have secrets in it.
        type: str
        default: "0640"
  links:
    description: The symbolic links to make.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path below O(root), as O(files[].path).
        type: str
        required: true
      target:
        description: What the link points to, as O(files[].path).
        type: str
        required: true
      each:
        description: As O(files[].each).
        type: str
  group:
    description: >-
      Group of the files. That of logs, by default, for programs that read both. Empty means that of the process.
    type: str
    default: adm
  packages:
    description:
      - Debian packages that nginx needs for the files. Where some are not installed, as before a first run, check mode
        warns of what nginx refuses and does not fail.
    type: list
    elements: str
    default: []
  absent:
    description: >-
      Paths below O(root) to remove even though no earlier run wrote them. What is not Debian's, as it came, is foreign.
    type: list
    elements: str
    default: []
  kept:
    description:
      - Names of what O(files[].each) no longer has. Where O(files) and O(links) of an earlier run have such a name,
        they stay as they are.
    type: list
    elements: str
    default: []
  included:
    description:
      - Patterns of paths below O(root) that nginx includes. Files there which this module does not own are foreign.
    type: list
    elements: str
    default: []
  foreign:
    description:
      - What becomes of foreign files. V(keep) leaves them, and lists them in the diff and in RV(foreign); V(fail)
        changes nothing and names them; V(remove) removes them.
      - A foreign file where one of O(files) or O(links) is to be is a failure, unless this is V(remove), which replaces
        it.
      - Files with the header of a role of this collection, and those of Debian's packages as they came, are not
        foreign.
    type: str
    choices: [keep, fail, remove]
    default: keep
  role:
    description: >-
      Role of this collection. Templates then see its variables as its argument spec has them: of the right types, with
      the defaults of nested options filled in.
    type: str
  root:
    description: The directory of C(nginx.conf).
    type: path
    default: /etc/nginx
  manifest:
    description:
      - File in which the paths that this module owns are recorded. C(digests.json) beside it has their SHA-256, by
        which other programs can tell whether somebody has changed them.
    type: path
    default: /var/lib/fastapi/nginx/manifest.json
  binary:
    description: The nginx to test with.
    type: path
    default: /usr/sbin/nginx
  service:
    description: Systemd unit to reload, start and enable. Empty leaves processes alone, as for an image.
    type: str
    default: nginx
  error_log:
    description: Log in which nginx says why a reload failed.
    type: path
    default: /var/log/nginx/error.log
  timeout:
    description: Seconds in which a reload must have taken.
    type: int
    default: 15
attributes:
  check_mode:
    description: >-
      All is done but the swap. A certificate that is still missing is stood in for. Where nginx is not installed yet,
      its test is left out.
    support: full
  diff_mode:
    description: >-
      One unified diff per file. In raw text from variables, what looks like a secret is replaced by a mark, which
      differs where the value has changed.
    support: full
notes:
  - Nothing of the arguments is in the journal or in the result, since the texts may have secrets in them.
  - Fails before any change where a file of users and passwords (C(auth_basic_user_file)) is missing or not readable by
    nginx, and where a log is to be in a directory in which others than root can make links. nginx opens logs as root.
  - Included files, certificates and keys must be named relative to O(root), or the test does not see the staged ones.
  - A symbolic link below O(root) to an absolute path below O(root) is tested with what it points to now.
author: The daoman.fastapi contributors (@daoman)
"""

EXAMPLES = r"""
- name: Nginx serves the sites
  daoman.fastapi.nginx_tree:
    role: nginx
    files:
      - path: nginx.conf
        template: nginx.conf.j2
      - path: sites-available/{name}.conf
        template: site.conf.j2
        each: nginx_sites
        as: site
    links:
      - path: sites-enabled/{name}.conf
        target: ../sites-available/{name}.conf
        each: nginx_sites
    absent:
      - sites-enabled/default
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [swap, reload]
foreign:
  description: The files that nginx includes and this module does not own.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/conf.d/mine.conf]
paths:
  description: The files and links that changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/sites-available/shop.conf]
reasons:
  description: Why something was done.
  returned: success
  type: list
  elements: str
  sample: [2 files differ]
swapped:
  description: How the tree was put in place.
  returned: when it was
  type: str
  sample: exchange
version:
  description: Version of nginx. Empty where it is not installed.
  returned: success
  type: str
  sample: 1.26.3
file:
  description: The file that nginx refuses.
  returned: when nginx refuses the configuration and names one
  type: str
line:
  description: Line in RV(file).
  returned: when nginx refuses the configuration and names one
  type: int
origin:
  description: Variable that the line comes from.
  returned: when nginx refuses the configuration and it is known
  type: str
"""

import contextlib
import glob
import grp
import os
import pwd
import re
import shutil
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_packages as packages
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree
from ansible_collections.daoman.fastapi.plugins.module_utils._host import places
from ansible_collections.daoman.fastapi.plugins.module_utils._host.lock import exclusive

ARGUMENTS = dict(
    files=dict(
        type="list",
        elements="dict",
        default=[],
        options={
            "path": dict(type="str", required=True),
            "template": dict(type="str"),
            "content": dict(type="str"),
            "each": dict(type="str"),
            "as": dict(type="str", default="item"),
            "override": dict(type="str"),
            "vars": dict(type="dict", default={}),
            "origin": dict(type="str"),
            "mode": dict(type="str", default="0640"),
        },
    ),
    links=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            path=dict(type="str", required=True), target=dict(type="str", required=True), each=dict(type="str")),
    ),
    group=dict(type="str", default="adm"),
    absent=dict(type="list", elements="str", default=[]),
    packages=dict(type="list", elements="str", default=[]),
    kept=dict(type="list", elements="str", default=[]),
    included=dict(type="list", elements="str", default=[]),
    foreign=dict(type="str", choices=["keep", "fail", "remove"], default="keep"),
    role=dict(type="str"),
    root=dict(type="path", default="/etc/nginx"),
    manifest=dict(type="path", default="/var/lib/fastapi/nginx/manifest.json"),
    binary=dict(type="path", default="/usr/sbin/nginx"),
    service=dict(type="str", default="nginx"),
    error_log=dict(type="path", default="/var/log/nginx/error.log"),
    timeout=dict(type="int", default=15),
)
UNTOUCHED = "Nothing was changed, neither on disk nor in the running nginx."
RESTORED = "The configuration that was there before is back."
# The kernel counts a process's start in ticks of 10 ms.
CLOCK_TICKS = 0.05


class Transaction:
    def __init__(self, module):
        self.module = module
        self.check = module.check_mode
        self.params = module.params
        self.root = os.path.realpath(self.params["root"])
        self.parent, name = os.path.split(self.root)
        self.prefix = f".{name}-staging-"
        self.recorded = None
        self.texts = {}
        self.digests = os.path.join(os.path.dirname(self.params["manifest"]), "digests.json")
        self.origins = {item["path"]: item["origin"] for item in self.params["files"] if item["origin"]}

    def run(self):
        version = self.version()
        wanted = self.wanted(version)
        with self.lock():
            manifest = self.recorded = tree.load_manifest(self.params["manifest"])
            wanted = {**self.kept(wanted), **wanted}
            strange = self.strange(wanted, manifest["paths"])
            self.refuse_taken(strange & wanted.keys())
            unwanted = sorted({*manifest["paths"], *self.params["absent"]} - strange)
            foreign = tree.foreign(self.root, self.params["included"], {*wanted, *unwanted})
            if foreign and self.params["foreign"] == "fail":
                names = "\n".join(os.path.join(self.root, path) for path in foreign)
                raise tree.TreeError(f"nginx includes files that are not of this configuration:\n{names}\n{UNTOUCHED}")
            if self.params["foreign"] == "remove":
                unwanted += foreign
            missing = self.missing(wanted, unwanted) if version else {}
            changes = tree.plan(self.root, {**missing, **wanted}, unwanted)
            if version:
                self.refuse_unsafe(wanted)
            unit = self.unit() if version else {}
            reasons, actions = self.todo(changes, wanted, manifest, unit)
            result = {
                "changed": bool(actions),
                "actions": actions,
                "reasons": reasons,
                "version": version,
                "paths": [os.path.join(self.root, path) for path in changes],
                "foreign": [os.path.join(self.root, path) for path in foreign],
            }
            if self.module._diff:
                result["diff"] = tree.diff(self.root, changes)
                if foreign and self.params["foreign"] == "keep":
                    kept = "".join(f"{path}\n" for path in result["foreign"])
                    result["diff"].append({"prepared": f"kept, and not of this configuration:\n{kept}"})
            if not version:
                self.module.warn("nginx is not installed yet: its test of the configuration is left out.")
            elif actions:
                result["swapped"] = self.apply(wanted, changes, manifest, unit, actions)
            if not self.check:
                for path in packages.directories(self.root):
                    places.make(path)
                self.record(wanted, False)
                tree.save_digests(self.digests, wanted)
        return result

    # -- What is, and what is to be ------------------------------------------------------------------------------------

    def version(self):
        binary = self.params["binary"]
        if not os.access(binary, os.X_OK):
            if self.check:
                return ""
            raise tree.TreeError(f"There is no nginx at {binary}.")
        _code, out, err = self.module.run_command([binary, "-v"])
        match = re.search(r"/([0-9.]+)", out + err)
        if not match:
            raise tree.TreeError(f"{binary} -v names no version: {(out + err).strip()}")
        return match.group(1)

    def wanted(self, version):
        try:
            group = grp.getgrnam(self.params["group"]).gr_gid if self.params["group"] else None
        except KeyError as error:
            raise tree.TreeError(f"There is no group '{self.params['group']}' for the files of {self.root}.") from error
        # As for the newest nginx, where there is none yet.
        number = tuple(int(part) for part in (version or "999").split("."))
        nodes = [(item["path"], tree.link_node(item["target"])) for item in self.params["links"]]
        for item in self.params["files"]:
            text = self.texts[item["path"]] = tree.for_version(item["content"] or "", number)
            nodes.append((item["path"], tree.file_node(text, int(item["mode"], 8), group)))
        if len(dict(nodes)) < len(nodes):
            raise tree.TreeError("A path is given twice: " + ", ".join(sorted(path for path, _node in nodes)))
        return dict(nodes)

    def kept(self, wanted):
        """What the action plugin made paths of, as it lies there."""
        there = {path: tree.read(os.path.join(self.root, tree.checked(path))) for path in self.params["kept"]}
        return {path: node for path, node in there.items() if node}

    def strange(self, wanted, owned):
        """What lies where a file or link is to be, or is to go, and is neither ours nor Debian's."""
        there = {path: tree.read(os.path.join(self.root, path)) for path in {*wanted, *owned, *self.params["absent"]}}
        digests = tree.load_digests(self.digests)

        def unknown(packaged):
            return {path for path, node in there.items()
                    if not tree.ours(path, node, wanted, owned, digests, packaged)}

        # asked only where it matters: it takes as long as all the rest
        return unknown({}) and unknown(self.packaged())

    def missing(self, wanted, unwanted):
        """Files of Debian's packages, and links to modules, that are gone: {path: node}."""
        def gone(path):
            return not os.path.lexists(os.path.join(self.root, path)) and path not in {*wanted, *unwanted}

        # A package that was removed has left this behind, and so has who is about to install it again.
        found = {path: tree.link_node(target) for path, target in packages.module_links().items()
                 if gone(path) and not os.path.lexists(os.path.join(self.root, path + ".removed"))}
        by_package = {}
        for path, package in packages.files(self.root).items():
            if gone(path):
                by_package.setdefault(package, []).append(path)
        for package, paths in sorted(by_package.items()):
            full = {os.path.join(self.root, path): path for path in paths}
            had = packages.contents(self.module.run_command, package, full)
            found.update((full[path], tree.Node("file", data, 0o644, os.geteuid(), os.getegid()))
                         for path, data in had.items())
            if len(had) < len(full):
                names = ", ".join(sorted(set(full) - set(had)))
                self.module.warn(
                    f"{names} of the package {package} is missing, and the package could not be downloaded to bring it "
                    "back. Run the playbook again when the package mirror answers.")
        return found

    def packaged(self):
        """What Debian's packages of nginx brought into the tree, as it came: {path: MD5}."""
        if not shutil.which("dpkg-query"):
            return {}
        _code, out, _err = self.module.run_command(["dpkg-query", "--show", "--showformat=${Conffiles}\n", "nginx*"])
        known = dict(line.split()[:2] for line in out.splitlines() if len(line.split()) == 2)
        found = {}
        for path, checksum in known.items():
            name = os.path.relpath(path, self.params["root"])
            node = None if name.startswith("../") else tree.read(path)
            if node and node.kind == "file" and tree.md5(node) == checksum:
                found[name] = found[path] = checksum
        return found

    def refuse_taken(self, taken):
        if taken and self.params["foreign"] != "remove":
            names = "\n".join(tree.described(os.path.join(self.root, path)) for path in sorted(taken))
            raise tree.TreeError(
                f"Files of somebody else are where this configuration has its own:\n{names}\nMove them away, give the "
                f"site another name, or have them replaced (nginx_foreign_files: remove).\n{UNTOUCHED}")

    def refuse_unsafe(self, wanted):
        """What nginx's own test does not see: passwords that it cannot read, logs where others can make links."""
        for path, name in tree.password_files(self.texts).items():
            real = os.path.join(self.root, path)
            where = f"{path}, named by {self.origins.get(name, name)} as auth_basic_user_file,"
            reason = None if path in wanted else tree.unreadable(real)
            if reason and self.check:
                self.module.warn(f"{where} {reason} yet.")
            elif reason:
                raise tree.TreeError(f"{where} {reason}. Nobody could log in.\n{UNTOUCHED}")
            elif os.path.isfile(real) and tree.SLOW_HASH.search(self.text(real)):
                self.module.warn(
                    f"{path} has passwords with a slow hash, such as bcrypt. nginx serves nobody else while it checks "
                    "one. Use long random passwords with a fast hash: openssl passwd -apr1")
        for path in tree.log_files(self.texts.values()):
            folder = tree.not_only_roots(path)
            if folder:
                raise tree.TreeError(
                    f"{path} cannot be a log of nginx: others than root can write in {folder}, and nginx opens logs as "
                    f"root. Put it below /var/log.\n{UNTOUCHED}")

    @staticmethod
    def text(path):
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    @contextlib.contextmanager
    def lock(self):
        """One run at a time. In a file that root alone can open: any user may lock a directory that all may read."""
        path = os.path.join(os.path.dirname(self.params["manifest"]), "lock")
        with contextlib.ExitStack() as stack:
            # A prediction makes no file. Without one no run has changed this configuration yet.
            if not self.check or os.path.exists(path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                try:
                    stack.enter_context(exclusive(path, wait=0))
                except BlockingIOError as error:
                    raise tree.TreeError(f"Another run is changing {self.root} right now.") from error
            yield

    def unit(self):
        """The service as systemd knows it."""
        if not self.params["service"]:
            return {}
        out = self.systemctl("show", "--property=MainPID,ActiveState,UnitFileState")
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    def todo(self, changes, wanted, manifest, unit):
        reasons, actions = [], []
        if changes:
            reasons.append(f"{len(changes)} of {len(set(wanted) | set(changes))} paths differ")
            actions.append("swap")
        if not unit:
            return reasons, actions
        if unit["ActiveState"] not in ("active", "reloading"):
            reasons.append("nginx is not running")
            actions.append("start")
        else:
            # The record is exact for an interrupted run. The times also show what others have changed.
            started = tree.workers(unit["MainPID"]).values()
            if manifest["pending"]:
                reasons.append("a run was interrupted before nginx had loaded its configuration")
            elif not changes and (not started or min(started) + CLOCK_TICKS < tree.newest_change(self.root)):
                reasons.append("nginx has not loaded what is on disk")
            if reasons:
                actions.append("reload")
        if unit["UnitFileState"] == "disabled":
            reasons.append("nginx does not start at boot")
            actions.append("enable")
        return reasons, actions

    # -- The transaction -----------------------------------------------------------------------------------------------

    def apply(self, wanted, changes, manifest, unit, actions):
        """Stages, tests and swaps in. Returns how it was swapped."""
        if not self.check:
            for leftover in glob.glob(os.path.join(glob.escape(self.parent), self.prefix + "*")):
                shutil.rmtree(leftover)
        stage = tempfile.mkdtemp(prefix=self.prefix, dir=self.parent)
        logs = []
        try:
            self.build(stage, changes)
            # nginx makes the directories of caches even when it only tests
            made = [path for path in tree.cache_directories(self.texts.values()) if not os.path.exists(path)]
            logs += self.make_logs()
            logs += made
            self.test(stage)
            if self.check:
                remove_empty(logs)
                return None
            return self.swap(stage, wanted, changes, manifest, unit, actions)
        except BaseException:
            remove_empty(logs)
            raise
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def build(self, stage, changes):
        """A complete copy with the changes made; in check mode also with the certificates that are to come."""
        if os.path.isdir(self.root):
            self.command("cp", "-a", self.root + "/.", stage)
        else:
            os.chmod(stage, 0o755)
        for path, (_before, after) in changes.items():
            tree.write(os.path.join(stage, path), after)
        missing = [
            (kind, path) for kind, path in tree.certificate_files(self.texts.values())
            if not os.path.exists(os.path.join(stage, path))]
        if missing and self.check:
            self.stand_in(stage, missing)

    def stand_in(self, stage, missing):
        pair = {kind: os.path.join(stage, "." + kind) for kind in ("certificate", "certificate_key")}
        self.command(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", "/CN=stand-in", "-keyout", pair["certificate_key"], "-out", pair["certificate"])
        for kind, path in missing:
            path = os.path.join(stage, path)
            for link in (os.path.dirname(path), path):
                if os.path.islink(link):
                    os.unlink(link)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copyfile(pair[kind], path)

    def make_logs(self):
        """nginx makes missing logs readable for all, even when it only tests. So make them first, as logrotate does."""
        made = []
        for path in tree.log_files(self.texts.values()):
            if os.path.exists(path) or not os.path.isdir(os.path.dirname(path)):
                continue
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
            made.append(path)
            with contextlib.suppress(KeyError, PermissionError):
                os.fchown(descriptor, pwd.getpwnam("www-data").pw_uid, grp.getgrnam("adm").gr_gid)
            os.close(descriptor)
        return made

    def test(self, stage):
        new = [path for path in tree.pid_files(self.texts.values()) if not os.path.exists(path)]
        # Without -p: what is relative to nginx's own prefix, such as its modules, stays where it is.
        code, out, err = self.module.run_command(
            [self.params["binary"], "-e", "stderr", "-t", "-c", os.path.join(stage, "nginx.conf")])
        # A test leaves an empty one behind, which systemd would stumble on.
        remove_empty(new)
        output = (out + err).strip()
        if code:
            message, details = tree.explain(output, stage, self.root, self.texts, self.origins)
            missing = self.to_be_installed() if self.check else []
            if missing:
                names = ", ".join(missing)
                said = message.splitlines()[0]
                self.module.warn(f"What nginx would say is not known: {names} will be installed first. Now: {said}")
                return
            raise tree.TreeError(f"nginx refuses the configuration: {message}\n{UNTOUCHED}", **details)
        clash = tree.conflict(output, stage, self.root, self.texts)
        if clash:
            raise tree.TreeError(f"nginx would not serve a site. {clash}\n{UNTOUCHED}")
        for warning in tree.WARNING.findall(output):
            self.module.warn("nginx: " + warning.replace(stage, self.root))

    def to_be_installed(self):
        """The packages that are still to be installed."""
        if not shutil.which("dpkg-query"):
            return []
        names = [name.partition("=")[0] for name in self.params["packages"]]
        _code, out, _err = self.module.run_command(
            ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n", "--", *names])
        there = {line.split()[1] for line in out.splitlines() if line.startswith("installed ")}
        return [name for name in names if name not in there]

    def swap(self, stage, wanted, changes, manifest, unit, actions):
        # Recorded before it is true: should this run be killed, the next one knows what to remove and to reload.
        self.record({*manifest["paths"], *wanted}, bool(unit))
        how = None
        try:
            if changes:
                os.makedirs(self.root, exist_ok=True)
                how = tree.swap(stage, self.root, changes)
            self.activate(unit, actions)
        except BaseException as error:
            if how:
                tree.swap(stage, self.root, changes)
            refused = getattr(error, "details", {}).get("refused")
            self.record(manifest["paths"], manifest["pending"] or not refused)
            if how and "reload" in actions and not refused:
                # Perhaps it is only late. Then it is about to load what is no longer there.
                self.systemctl("reload")
            if how and isinstance(error, tree.TreeError):
                raise tree.TreeError(f"{error}\n{RESTORED}", **error.details) from error
            raise
        if "enable" in actions:
            self.systemctl("enable")
        return how

    def record(self, paths, pending):
        manifest = {"paths": sorted(paths), "pending": pending}
        if manifest != self.recorded:
            tree.save_manifest(self.params["manifest"], manifest)
            self.recorded = manifest

    # -- The process ---------------------------------------------------------------------------------------------------

    def activate(self, unit, actions):
        log = self.params["error_log"]
        offset = os.path.getsize(log) if os.path.exists(log) else 0
        if "reload" in actions:
            before = set(tree.workers(unit["MainPID"]))
            self.systemctl("reload")
            self.wait(unit["MainPID"], before, offset)
        elif "start" in actions:
            try:
                self.systemctl("start")
            except tree.TreeError as error:
                raise tree.TreeError(f"nginx does not start:\n{self.said(offset) or error}", refused=True) from error
            self.wait(self.unit()["MainPID"], set(), offset)

    def wait(self, master, before, offset):
        """Until all workers are new ones. nginx keeps the old ones when it cannot load a configuration."""
        deadline = time.monotonic() + self.params["timeout"]
        while True:
            now = set(tree.workers(master))
            if now and not now & before:
                return
            said = self.said(offset)
            # It tries to bind five times before it gives up, and then says more than 'bind() to'.
            refused = any(f"[emerg] {master}#" in line and "bind() to" not in line for line in said.splitlines())
            late = time.monotonic() > deadline
            if late and now - before and not refused:
                return  # an old worker is too busy to notice that it is to go
            if refused or late:
                when = "" if refused else f" within {self.params['timeout']} s"
                said = said or f"It gave no reason in {self.params['error_log']}."
                raise tree.TreeError(
                    f"nginx accepted the configuration, but did not load it{when}:\n{said}", refused=refused)
            time.sleep(0.05)

    def said(self, offset):
        """The last lines that nginx has logged since."""
        try:
            with open(self.params["error_log"], "rb") as stream:
                stream.seek(offset)
                return "\n".join(stream.read().decode("utf-8", "replace").splitlines()[-20:])
        except OSError:
            return ""

    def systemctl(self, verb, *arguments):
        return self.command("systemctl", verb, *arguments, self.params["service"])

    def command(self, *words):
        code, out, err = self.module.run_command(list(words))
        if code:
            raise tree.TreeError(f"{' '.join(words)} failed: {(err or out).strip()}")
        return out


def remove_empty(paths):
    for path in paths:
        if os.path.isdir(path):
            if not os.listdir(path):
                os.rmdir(path)
        elif os.path.exists(path) and not os.path.getsize(path):
            os.unlink(path)


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    os.umask(0o022)
    if not module.check_mode:
        places.correct()
    try:
        module.exit_json(**Transaction(module).run())
    except tree.TreeError as error:
        module.fail_json(msg=str(error), **error.details)


if __name__ == "__main__":
    main()
