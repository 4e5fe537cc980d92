# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release is: its source, its manifest, its id, its files on the host. Pure: no host is touched here.

A release is everything that decides how an app runs. The manifest lists it; the digest of the manifest tells whether
anything differs from what is live; the id is `<utc time>-<first 12 hex digits of the digest>`.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import time
from urllib.parse import urlsplit, urlunsplit

FORMAT = 1
ARCHIVES = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tar", ".zip")
ID = re.compile(r"^\d{8}T\d{6}Z-[0-9a-f]{12}$")
# git's short form of an SSH URL: user@host:path.
SSH = re.compile(r"^[\w.-]+@[\w.-]+:")
COMMIT = re.compile(r"^[0-9a-f]{40}$")
# PEP 508: a name, optional extras, then a comparison, a URL or nothing more.
REQUIREMENT = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9._, -]*\])?\s*(([<>=!~]=?|@).*)?$")


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


def build_packages(apps):
    """Debian packages with which the apps are fetched and built; git, with its thirty others, only where it is used."""
    sources = [app["source"] for app in apps if app_source_type(app) == "git"]
    packages = ["ca-certificates", "python3", "python3-pip-whl"]
    if sources:
        packages.append("git")
    if any(source.startswith("ssh://") or SSH.match(source) for source in sources):
        packages.append("openssh-client")
    return packages


def redact_url(url):
    """The URL without user and password."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


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
    if path == "env":
        return 0o600  # secrets: systemd reads it before it drops root
    return 0o755 if path.endswith(".sh") else 0o644


def digest(data):
    return sha256(json.dumps(data, sort_keys=True, separators=(",", ":")))


def release_id(digest_, now=None):
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)) + "-" + digest_[:12]


class Layout:
    """Paths of one app. `root` is there for tests."""

    def __init__(self, name, root="/"):
        self.name = name
        self.base = os.path.join(root, "srv", name)
        self.releases = os.path.join(self.base, "releases")
        self.venvs = os.path.join(self.base, "venvs")
        self.repository = os.path.join(self.base, "repository.git")
        self.shared = os.path.join(self.base, "shared")
        self.live = os.path.join(self.base, "live.sock")
        self.current = os.path.join(self.base, "current")
        self.lock = os.path.join(self.base, ".lock")
        self.cache = os.path.join(root, "var/cache", name)
        self.run = os.path.join(root, "run", name)
        self.units = os.path.join(root, "etc/systemd/system")

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

    def live_id(self):
        """Id of the release that nginx is sent to, or None."""
        try:
            name = os.path.basename(os.readlink(self.live))
        except OSError:
            return None
        id_ = name.removesuffix(".sock")
        return id_ if ID.match(id_) else None

    def manifest(self, id_):
        """Manifest of a complete release, or None."""
        try:
            with open(self.release(id_, "manifest.json"), encoding="utf-8") as stream:
                return json.load(stream)
        except (OSError, ValueError):
            return None

    def failed(self, id_):
        return os.path.exists(self.release(id_, "failed.json"))

    def ids(self):
        """Ids of all release directories, oldest first, complete or not."""
        try:
            return sorted(name for name in os.listdir(self.releases) if ID.match(name))
        except OSError:
            return []

    def good(self):
        """Ids of releases that are complete and did not fail, oldest first."""
        return [id_ for id_ in self.ids() if self.manifest(id_) and not self.failed(id_)]


def prunable(good, failed, live, keep):
    """Ids to remove: good ones beyond the `keep` newest, and failed ones. Never the live one."""
    others = [id_ for id_ in good if id_ != live]
    spare = max(keep, 1) - (1 if live in good else 0)
    return sorted([id_ for id_ in failed if id_ != live] + (others[:-spare] if spare else others))


# What builds the virtual environment, in the order of trust: a lock with hashes first.
DEPENDENCY_FILES = ("uv.lock", "pylock.toml", "requirements.txt", "pyproject.toml")


def dependency_file(project):
    """The file in the project's directory that says what to install, or None."""
    for name in DEPENDENCY_FILES:
        if os.path.isfile(os.path.join(project, name)):
            return name
    return None


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


def installs_own_files(name, project):
    """Whether the environment holds files of the source itself, so that it may not outlive this revision."""
    text = read_text(os.path.join(project, name))
    pyproject = read_text(os.path.join(project, "pyproject.toml"))
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


def venv_key(data, project, name):
    """Name of the virtual environment that fits these inputs. Releases that differ in code alone share one."""
    parts = {key: data[key] for key in ("python", "extras", "groups", "server_requirements")}
    if name is None:  # a wheel or a requirement: the source is what is installed
        parts["revision"] = data["source"]["revision"]
    else:
        for path in (name, "pyproject.toml"):
            parts[path] = sha256(read_text(os.path.join(project, path)))
        if installs_own_files(name, project):
            parts["revision"] = data["source"]["revision"]
            parts["subdirectory"] = data["source"]["subdirectory"]
    return digest(parts)[:16]


def requirement_name(requirement):
    """Normalised name (PEP 503) of the package a requirement asks for."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement).group(0)).lower()


def requires_hashes(text):
    """Whether a requirements file carries hashes; then every requirement must match one."""
    return "--hash" in text


def unsafe_member(name, link=None):
    """Whether an archive's member would land outside the directory it is unpacked into."""
    target = (
        posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
        if link is not None
        else posixpath.normpath(name)
    )
    absolute = name.startswith("/") or (link or "").startswith("/")
    return absolute or target == ".." or target.startswith("../")


def redact(text, env):
    """The text without the values of the app's environment. Short ones hide nothing and would garble the text."""
    for key, value in sorted(env.items(), key=lambda item: -len(str(item[1]))):
        if len(str(value)) >= 8:
            text = text.replace(str(value), f"<{key}>")
    return text


def env_names(text):
    """Names in the text of an environment file, as env_file() writes it: a value may have lines that look like more."""
    return [match.group(1) for match in re.finditer(r'^(\w+)="(?:[^"\\]|\\.)*"$', text, re.MULTILINE | re.DOTALL)]


def journal_text(lines):
    """Lines of the journal as a person reads them: of a JSON line its message and its traceback."""
    result = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            result.append(line)
            continue
        message = entry.get("message", entry.get("event", entry.get("msg", line)))
        result.append(f"{entry.get('level', '')} {message}".strip())
        trace = entry.get("exc_info") or entry.get("exception") or entry.get("traceback") or entry.get("stack_info")
        if trace:
            result.append(str(trace))
    return "\n".join(result)
