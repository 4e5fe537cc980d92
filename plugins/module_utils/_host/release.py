# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release is: its source, its manifest, its id, its files on the host. Pure: no host is touched here.

A release is everything that decides how an app runs. The manifest lists it; the digest of the manifest tells whether
anything differs from what is live; the id is `<utc time>-<first 12 hex digits of the digest>`.

A release never changes. What became of it is in its `state.json`: it is good once it has served and was not found
wanting, failed, or rolled back. Without that file it is complete and nobody knows yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from urllib.parse import urlsplit

from . import records
from .text import safe

FORMAT = 1
VENV_FORMAT = 2
# Also the name of a user, of which useradd wants at most 32 characters.
APP_NAME = re.compile(r"^[a-z][a-z0-9-]{0,30}\Z")
ARCHIVES = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tar", ".zip")
ID = re.compile(r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}\Z")
# git's short form of an SSH URL: user@host:path.
SSH = re.compile(r"^[\w.-]+@[\w.-]+:")
COMMIT = re.compile(r"^[0-9a-f]{40}\Z")
# PEP 508: a name, optional extras, then a comparison, a URL or nothing more.
REQUIREMENT = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9._, -]*\])?\s*(([<>=!~]=?|@).*)?$")


# State files of a release. Formats of before 0.3 have no number.
MANIFEST_FORMAT = STATE_FORMAT = 1
MANIFEST = {
    "format?": int,
    "id": str,
    "digest": str,
    "created": str,
    "by": str,
    "version": str,
    "sequence?": int,
    "inputs": {"source": {"revision": str, "subdirectory?": str}},
    "serve?": dict,
}
STATE = {"format?": int, "state": str, "sequence?": int, "deployed?": str, "reason?": str}


class ReleaseError(Exception):
    """A phase of a release that failed: `phase`, a sentence, and what the app or the tool said."""

    def __init__(self, phase, message, output=""):
        super().__init__(message)
        self.phase = phase
        self.message = message
        self.output = output


def source_type(source):
    """Tell what a source is from its look: git, directory, archive, wheel or requirement."""
    if re.match(r"^[A-Za-z0-9._-]+(\[[^]]*\])?\s*@\s", source):
        return "requirement"  # PEP 508 with a URL: name @ url
    path = urlsplit(source).path if is_url(source) else source
    if path.endswith(".whl"):
        return "wheel"
    if path.endswith(ARCHIVES):
        return "archive"
    if is_url(source) or path.endswith(".git") or SSH.match(source):
        return "git"
    if source.startswith(("/", "./", "../", "~")) or source in (".", ".."):
        return "directory"
    if REQUIREMENT.match(source):
        return "requirement"
    return "directory"


def app_source_type(app):
    """The source type of an app: as it says, or from the look of its source."""
    return source_type(app["source"]) if app["source_type"] == "auto" else app["source_type"]


def is_url(source):
    return "://" in source


def is_task_file(hook):
    """Whether a hook is a file of tasks, and not a command."""
    return re.match(r"^\S+\.ya?ml$", hook) is not None


# Where a release can wait, and the hook whose tasks are then due.
POINTS = (
    ("fetch", "before_build"),
    ("build", "after_build"),
    ("migrate", "migrate"),
    ("ready", "before_switch"),
    ("switch", "after_switch"),
)


def steps(app, hosts, batch="25%", wait=False):
    """The steps of a release on several hosts, or with hooks that are files of tasks; one step where nothing waits."""
    hooks = app["release"]["hooks"]
    waits = [stage for stage, hook in POINTS if any(map(is_task_file, hooks[hook]))]
    several = len(hosts) > 1

    def step(until, chosen=(), once=False):
        return {"until": until, "hosts": list(chosen), "once": once, "migrate": once or not several}

    before = [step(stage) for stage in waits if stage in {"fetch", "build"}]
    built = [step("seal")] if several else []
    migrate = [step("migrate", once=several)] if "migrate" in waits or (several and hooks["migrate"]) else []
    after = [stage for stage in waits if stage in {"ready", "switch"}] + ["done"]
    # All locks before anything is built.
    locks = [step("lock")] if several and wait else []
    size = batch_size(batch, len(hosts))
    batches = [hosts[first : first + size] for first in range(0, len(hosts), size)] if several else [()]
    return [*locks, *before, *built, *migrate, *(step(stage, chosen) for chosen in batches for stage in after)]


def batch_size(batch, count):
    """How many of `count` hosts a batch has: a number, or a share of them, and at least one."""
    number = int(str(batch).rstrip("%"))
    return max(count * number // 100 if str(batch).endswith("%") else number, 1)


def build_packages(apps):
    """Debian packages with which the apps are fetched and built; git, with its thirty others, only where it is used."""
    sources = [app["source"] for app in apps if app.get("state") != "absent" and app_source_type(app) == "git"]
    packages = ["ca-certificates", "python3", "python3-pip-whl"]
    if sources:
        packages.append("git")
    if any(source.startswith("ssh://") or SSH.match(source) for source in sources):
        packages.append("openssh-client")
    return packages


def sha256(text):
    return hashlib.sha256(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")).hexdigest()


def inputs(params, revision, python):
    """Everything that decides how the app runs, as plain data. Two equal results are one release."""
    return {
        "format": FORMAT,
        "app": params["name"],
        "source": {
            "type": params["source_type"],
            "revision": revision,
            "subdirectory": params["subdirectory"],
        },
        "python": python,
        "extras": sorted(params["extras"]),
        "groups": sorted(params["groups"]),
        "shared_paths": sorted(params["shared_paths"]),
        # These make files of the release; the other hooks leave it as it is.
        "hooks": params["build_hooks"],
        "server_requirements": list(params["server_requirements"]),
        "static_paths": sorted(params["static_paths"]),
        "socket_group": params["socket_group"],
        "files": {path: sha256(text) for path, text in sorted(release_files(params).items())},
    }


def release_files(params):
    """Text files of a release beside its code, by relative path."""
    files = dict(params["files"])
    files["env"] = params["env_file"]
    for kind in ("service", "socket"):
        files["systemd/" + kind] = params["units"][kind]
    return files


def file_mode(path):
    if path == "env" or path.startswith("systemd/"):
        return 0o600  # secrets: systemd reads it before it drops root
    return 0o750 if path.endswith(".sh") else 0o640


def digest(data):
    return sha256(json.dumps(data, sort_keys=True, separators=(",", ":")))


def release_id(digest_, now=None):
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)) + "-" + digest_[:12]


def fresh_id(layout, digest_):
    """An id that no release has: a clock that was set back would give one twice."""
    now = time.time()
    while os.path.lexists(layout.release(release_id(digest_, now))):
        now += 1
    return release_id(digest_, now)


def linked_id(link, suffix=""):
    """Id of the release that the target of a link is named after, or None."""
    try:
        id_ = os.path.basename(os.readlink(link)).removesuffix(suffix)
    except OSError:
        return None
    return id_ if ID.match(id_) else None


class Layout:
    """Paths of one app. `root` is there for tests."""

    def __init__(self, name, root="/"):
        # It becomes a part of paths, and a word of commands.
        if not APP_NAME.match(name):
            raise ReleaseError("choose", f"{name!r} is not a valid app name.")
        self.top = root
        self.name = name
        # The account that fetches and builds. No app can have its name: those begin with a letter.
        self.build_account = f"_{name}"
        self.base = os.path.join(root, "srv", name)
        self.releases = os.path.join(self.base, "releases")
        self.venvs = os.path.join(self.base, "venvs")
        self.build = os.path.join(self.base, "build")
        # The builder's: what outlives a build, and what does not.
        self.fetched = os.path.join(self.build, "fetched")
        self.scratch = os.path.join(self.build, "scratch")
        self.repository = os.path.join(self.fetched, "repository.git")
        # Of 0.2.0, readable for everybody.
        self.old_repository = os.path.join(self.base, "repository.git")
        self.shared = os.path.join(self.base, "shared")
        self.live = os.path.join(self.base, "live.sock")
        self.current = os.path.join(self.base, "current")
        self.previous = os.path.join(self.base, "previous")
        self.history = os.path.join(self.base, "history.jsonl")
        self.order = os.path.join(self.base, "order.json")
        self.lock = os.path.join(self.base, ".lock")
        self.cache = os.path.join(root, "var/cache", name)
        self.run = os.path.join(root, "run", name)
        self.units = os.path.join(root, "etc/systemd/system")
        self.logs = os.path.join(root, "var/log/nginx")  # as the role nginx names them

    def entries(self):
        """Names of all that the role makes in the app's directory, complete or still being written."""
        names = {os.path.basename(path) for path in vars(self).values() if os.path.dirname(path) == self.base}
        return names | {name + ".new" for name in names}

    def foreign(self, names):
        """Of names in the app's directory those that the role did not make; what was set aside is its own."""
        return sorted(name for name in names if name.partition(records.ASIDE)[0] not in self.entries())

    def release(self, id_, *path):
        return os.path.join(self.releases, id_, *path)

    def socket(self, id_):
        return os.path.join(self.run, id_ + ".sock")

    def service_unit(self, id_):
        return f"{self.name}@{id_}.service"

    def socket_unit(self, id_):
        return f"{self.name}@{id_}.socket"

    def unit_paths(self, id_):
        return [os.path.join(self.units, name) for name in (self.socket_unit(id_), self.service_unit(id_))]

    def log(self, kind):
        """nginx's log of the app: access or error."""
        return os.path.join(self.logs, f"{self.name}.{kind}.log")

    def live_id(self):
        """Id of the release that nginx is sent to, or None."""
        return linked_id(self.live, ".sock")

    def previous_id(self):
        """Id of the release that served before, as a link tells it; or None."""
        return linked_id(self.previous)

    def current_id(self):
        """Id of the release that `current` leads to, or None."""
        return linked_id(self.current)

    def read_manifest(self, id_):
        """Manifest of a complete release and nothing, or None and why it does not fit."""
        found, wrong = records.read(self.release(id_, "manifest.json"), MANIFEST, MANIFEST_FORMAT)
        if found and found["id"] != id_:
            return None, f"its id is {found['id']!r}"
        return found, wrong

    def read_state(self, id_):
        return records.read(self.release(id_, "state.json"), STATE, STATE_FORMAT)

    def manifest(self, id_):
        """Manifest of a complete release, or None."""
        return self.read_manifest(id_)[0]

    def state(self, id_):
        """What became of a release.

        `state` is good, failed, rolled back, does not start, or built where that is all that is known.
        """
        return {"state": "built", **(self.read_state(id_)[0] or {})}

    def is_incomplete(self, id_):
        """Whether a release was never completed. One whose manifest is damaged was."""
        try:
            names = os.listdir(self.release(id_))
        except OSError:
            return True
        return not any(name == "manifest.json" or name.startswith("manifest.json" + records.ASIDE) for name in names)

    def damaged(self):
        """State files of releases that do not fit, and why."""
        for id_ in self.ids():
            for name, found in (("manifest.json", self.read_manifest(id_)), ("state.json", self.read_state(id_))):
                if found[1]:
                    yield self.release(id_, name), found[1]

    def ids(self):
        """Ids of all release directories, oldest first, complete or not."""
        try:
            return sorted(name for name in os.listdir(self.releases) if ID.match(name))
        except OSError:
            return []

    def releases_by_age(self):
        """Manifest and state, as one dict, of the complete releases: the one that came to serve last comes last.

        Those of before 0.3 have no number. They come first, in the order that their times tell.
        """
        found = []
        for id_ in self.ids():
            manifest = self.manifest(id_)
            if manifest:
                found.append({"sequence": 0, **manifest, **self.state(id_)})
        return sorted(found, key=lambda item: (item["sequence"], item.get("deployed") or item["created"], item["id"]))


def read_json(path):
    """The dict in a file, or an empty one."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def prunable(releases, kept, way_back, keep):
    """Ids to remove of releases_by_age(): failed ones, and those beyond `keep`, first what lies on no way back.

    :arg kept: ids of those that stay whatever `keep` is
    :arg way_back: ids to which rollbacks lead, the first one first
    """
    others = [item["id"] for item in releases if item["state"] != "failed" and item["id"] not in kept]
    # The farthest of the way back go before the nearest, and what is not on it before both.
    others = [id_ for id_ in others if id_ not in way_back] + [id_ for id_ in reversed(way_back) if id_ in others]
    spare = max(keep - len(kept), 0)
    failed = [item["id"] for item in releases if item["state"] == "failed" and item["id"] not in kept]
    return failed + (others[:-spare] if spare else others)


def short(revision):
    """Of a digest or a commit the first digits, which tell enough; a requirement is short by itself."""
    return re.sub(r"^(sha256:)?([0-9a-f]{12})[0-9a-f]{28,}$", r"\2", revision)


def release_table(releases):
    """Lines of a table of releases, as the module release_info returns them."""
    rows = [("app", "order", "release", "version", "revision", "released by", "when", "state", "live")]
    for item in releases:
        when = (item["deployed"] or item["created"]).replace("T", " ").rstrip("Z")
        revision = short(item["revision"])
        live = "live" if item["live"] else "rollback goes here" if item["rollback"] else ""
        order = str(item["order"] or "")
        rows.append(
            (item["app"], order, item["id"], item["version"], revision, item["by"], when, item["state"], live)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def is_named(item, wanted):
    """Whether a user means this release: by its id or a part of it, its version, or the beginning of its commit."""
    revision = item["inputs"]["source"]["revision"]
    return wanted in item["id"] or wanted == item["version"] or (len(wanted) >= 7 and revision.startswith(wanted))


# What builds the virtual environment, in the order of trust: a lock with hashes first.
DEPENDENCY_FILES = ("uv.lock", "pylock.toml", "requirements.txt", "pyproject.toml")


def dependency_file(read):
    """The file in the project's directory that says what to install, or None. `read` gives a file's text, or None."""
    return next((name for name in DEPENDENCY_FILES if read(name) is not None), None)


def read_text(path):
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def is_package(pyproject):
    """Whether the project itself is installed, not only its dependencies: uv's rule, read without a TOML parser."""
    package = re.search(r"^\s*package\s*=\s*(true|false)", pyproject, re.MULTILINE)
    if package:
        return package.group(1) == "true"
    return re.search(r"^\s*\[build-system\]", pyproject, re.MULTILINE) is not None


def installs_own_files(name, read):
    """Whether the environment holds files of the source itself, so that it may not outlive this revision."""
    text = read(name) or ""
    pyproject = read("pyproject.toml") or ""
    if name == "uv.lock":
        own = re.findall(r"source = \{ (?:editable|directory|path|virtual) = \"([^\"]*)\"", text)
        return is_package(pyproject) or any(path != "." for path in own)
    if name == "pylock.toml":
        return re.search(r"^\s*(directory|path)\s*=|\bpath\s*=", text, re.MULTILINE) is not None
    if name == "requirements.txt":
        return (
            re.search(r"^\s*(-r|-c|-e|--requirement|--constraint|--editable|\.|/|file:)|@\s*file:", text, re.MULTILINE)
            is not None
        )
    return is_package(pyproject)


def venv_key(data, read, name):
    """Name of the virtual environment that fits these inputs. Releases that differ in code alone share one."""
    parts = {key: data[key] for key in ("python", "extras", "groups", "server_requirements")}
    # Not one that was built with the app's own rights, beside a cache that every build could write.
    parts["format"] = VENV_FORMAT
    if name is None:  # a wheel or a requirement: the source is what is installed
        parts["revision"] = data["source"]["revision"]
    else:
        for path in (name, "pyproject.toml"):
            parts[path] = sha256(read(path) or "")
        if installs_own_files(name, read):
            parts["revision"] = data["source"]["revision"]
            parts["subdirectory"] = data["source"]["subdirectory"]
    return digest(parts)[:16]


def requires_hashes(text):
    """Whether a requirements file carries hashes; then every requirement must match one."""
    return "--hash" in text


def env_values(text):
    """Names and values in the text of an environment file of systemd, where values may have many lines."""
    found = {}
    pattern = r'^\s*(\w+)=(?:"((?:[^"\\]|\\.)*)"|\'([^\']*)\'|([^\n]*))$'
    for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        double, single, bare = match.group(2), match.group(3), match.group(4)
        if double is not None:
            found[match.group(1)] = re.sub(r"\\(.)", r"\1", double, flags=re.DOTALL)
        else:
            found[match.group(1)] = single if single is not None else bare.strip()
    return found


def journal_text(lines):
    """Lines of the journal as a person reads them: of a JSON line its message and its traceback; terminal-safe.

    An app that fails all requests logs the same traceback for each: it is shown where it came last.
    """
    result = [safe(_entry(line)) for line in lines]
    last = {text: index for index, text in enumerate(result)}
    return "\n".join(text for index, text in enumerate(result) if "\n" not in text or last[text] == index)


def _entry(line):
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if not isinstance(entry, dict):
        return line
    message = entry.get("message", entry.get("event", entry.get("msg", line)))
    trace = entry.get("exc_info") or entry.get("exception") or entry.get("traceback") or entry.get("stack_info")
    return f"{entry.get('level', '')} {message}".strip() + (f"\n{trace}" if trace else "")
