# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings an app's source to the host: git, directory, archive, wheel or requirement.

All of it is read in a build unit. Only that unit sees the key or the password of the source, in files that its account
alone can read, and they are used for the source's own host only: a repository can name submodules anywhere.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from urllib.parse import unquote, urlsplit, urlunsplit

from . import caged_fetch
from .files import opened
from .redact import redact_url
from .release import COMMIT, SSH, ReleaseError, is_url
from .shell import read_bounded
from .tree import FILE

# As OpenSSH looks for them.
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
ROOT_SSH = "/root/.ssh"
# Of `ssh -G`: what root's own configuration says of a host.
KEPT = ("hostname", "port", "user", "hostkeyalias", "proxyjump")
# What git runs when it wants a login. It asks with `get`, and tells what became of it with other words.
LOGIN_HELPER = r"!f() { test \"$1\" != get || cat {work}/login; }; f"
UNSAFE_WORD = re.compile(r"[\s\"'\\]")


class Source:
    """One source of an app. `revision()` costs as little as it can; `fetch()` brings the files."""

    def __init__(self, params, layout, cage, shell):
        self.type = params["source_type"]
        self.location = params["source"]
        self.version = params["version"]
        self.checksum = params["checksum"]
        self.digest = params["source_digest"]
        self.upload = params["upload"]
        self.ssh_key_file = params["ssh_key_file"]
        self.env = {**params["build_env"], **params["build_secrets"]}
        self.layout = layout
        self.cage = cage
        self.shell = shell
        self.url, self.login = split_login(self.location)

    @property
    def is_local(self):
        """Whether the source lies on the controller and has to be uploaded to be fetched."""
        return self.type in {"directory", "archive", "wheel"} and not is_url(self.location)

    def revision(self):
        """What tells this state of the source from any other: a commit, a digest, or the requirement itself."""
        if self.type == "git":
            if COMMIT.match(self.version):
                return self.version
            job = {"do": "resolve", "version": self.version}
            commit = self._program(job, "cannot read the git repository", label="resolve")
            if not COMMIT.match(commit):
                raise ReleaseError("fetch", f"git resolves '{self.version}' to {commit[:80]!r}: that is not a commit.")
            return commit
        if self.type == "requirement":
            return redact_url(self.location)
        return self.digest or self.checksum

    def fetch(self, target, revision):
        """Lay the source down in the empty directory `target`, in the state that revision() found."""
        if self.type == "requirement":
            return
        job = {"do": "fetch", "revision": revision, "target": target, "upload": "", "checksum": self.checksum}
        uploaded = target + ".upload"
        if self.is_local:
            job["upload"] = self._lay_down(uploaded)
        try:
            self._program(job, "cannot fetch the source", writable=[target])
        finally:
            if self.is_local:
                os.unlink(job["upload"])
                os.rmdir(uploaded)

    def _lay_down(self, directory):
        """The uploaded file, where the build account can read it and nobody else, under its own name."""
        group = pwd.getpwnam(self.layout.build_account).pw_gid
        os.mkdir(directory, 0o700)
        os.chown(directory, 0, group)
        os.chmod(directory, 0o750)
        path = os.path.join(directory, os.path.basename(self.location) if self.type != "directory" else "source.tar.gz")
        descriptor = os.open(self.upload, FILE)
        with os.fdopen(descriptor, "rb") as source, open(path, "xb") as target:
            shutil.copyfileobj(source, target)
            os.fchown(target.fileno(), 0, group)
            os.fchmod(target.fileno(), 0o640)
        os.unlink(self.upload)
        return path

    def _program(self, job, message, writable=(), label=""):
        git = self.type == "git"
        readable = local_repository(self.url if git else "")
        files = git_files(self, self.shell) if git else {}
        env = {"HOME": self.layout.scratch, "TMPDIR": self.layout.scratch, "GIT_TERMINAL_PROMPT": "0", **self.env}
        if git:
            env.update(GIT_CONFIG_GLOBAL="{work}/gitconfig", GIT_SSH_COMMAND="ssh -F {work}/ssh_config")
        return self.cage.program(
            caged_fetch,
            {
                **job,
                "type": self.type,
                "url": self.url,
                "login": self.login,
                "shown": redact_url(self.location),
                "repository": self.layout.repository,
                "scratch": self.layout.scratch,
                "readable": {path: identity(path) for path in readable},
            },
            "fetch",
            message,
            env=env,
            writable=[self.layout.fetched, self.layout.scratch, *writable],
            readable=readable,
            files=files,
            label=label,
            fetches=True,
        )


def split_login(location):
    """A URL without user and password, and `user:password` of it. Of an SSH URL the user stays, who is no secret."""
    parts = urlsplit(location) if is_url(location) else None
    if parts is None or "@" not in parts.netloc or parts.scheme not in {"http", "https"}:
        return location, ""
    login, _at, host = parts.netloc.rpartition("@")
    user, _colon, password = login.partition(":")
    return urlunsplit(parts._replace(netloc=host)), f"{unquote(user)}:{unquote(password)}"


def local_repository(url):
    """The path of a repository on this host, which a unit could not see below a home directory."""
    path = urlsplit(url).path if url.startswith("file://") else url
    return [path] if path.startswith(("/root/", "/home/")) else []


def identity(path):
    """Device and inode of a directory that no link leads away from.

    systemd shows the unit what lies at the path, by root's rights. Who owns the home directory could lay a link there,
    to the repository of somebody else. The unit looks whether it has got this directory.
    """
    try:
        with opened(path, os.O_PATH | os.O_DIRECTORY) as descriptor:
            found = os.fstat(descriptor)
    except OSError as exc:
        raise ReleaseError(
            "fetch", f"{path} is not a directory, or lies behind a link: {exc.strerror}. Name where it really is."
        ) from exc
    return [found.st_dev, found.st_ino]


# -- what git is told -------------------------------------------------------------------------------------------------


def git_files(source, shell):
    """Files of the unit that fetches: git's configuration, ssh's, the keys, and the host keys that root knows."""
    lines = [
        "[safe]\n\tdirectory = *",  # of a repository on this host, whoever owns it
        "[core]\n\thooksPath = /dev/null",
        '[protocol "ext"]\n\tallow = never',
    ]
    files = {}
    if source.login:
        # Asked for by git when a host wants a login, and for this host only. A header of its own would go along when
        # the host, or a repository on it, sends git on to another one.
        parts = urlsplit(source.url)
        lines.append(f'[credential "{parts.scheme}://{parts.netloc}"]\n\thelper = "{LOGIN_HELPER}"')
        user, _colon, password = source.login.partition(":")
        files["login"] = f"username={user}\npassword={password}\n"
    files["gitconfig"] = "\n".join(lines) + "\n"
    host = ssh_host(source.url)
    if host or source.ssh_key_file:
        files.update(ssh_files(source, host, shell))
    else:
        files["ssh_config"] = ssh_config("", [], {}, source.layout)
    return files


def ssh_host(url):
    """The host of an SSH URL as it is written, or nothing."""
    if url.startswith("ssh://"):
        return urlsplit(url).hostname or ""
    match = SSH.match(url)
    return match.group(0).split("@", 1)[1].rstrip(":") if match else ""


def ssh_files(source, host, shell):
    known = ssh_settings(host, shell) if host else {}
    paths = [source.ssh_key_file] if source.ssh_key_file else default_keys(known)
    keys = {}
    for path in paths:
        text = read_key(path)
        if text:
            keys[f"key{len(keys)}"] = text
        elif source.ssh_key_file:
            raise ReleaseError("fetch", f"ssh_key_file: there is no private key at '{path}' on this host.")
    certificates = {
        f"{name}-cert.pub": text
        for name, path in zip(keys, paths, strict=False)
        for text in [read_key(path + "-cert.pub")]
        if text
    }
    trusted = read_bounded(os.path.join(ROOT_SSH, "known_hosts"), 4 << 20)
    return {
        **keys,
        **certificates,
        "known_hosts": trusted,
        "ssh_config": ssh_config(host, list(keys), known, source.layout),
    }


def ssh_settings(host, shell):
    """What root's configuration of ssh says of a host: people name hosts and keys there."""
    if not os.path.exists(os.path.join(ROOT_SSH, "config")):
        return {}
    output, code = shell.run(["ssh", "-G", "--", host], "fetch", "", check=False)
    found = {}
    for line in output.splitlines() if code == 0 else []:
        key, _space, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


def default_keys(known):
    """Root's own keys, in the order in which ssh tries them."""
    named = [os.path.expanduser(path.replace("~", "/root", 1)) for path in known.get("identityfile", [])]
    return named or [os.path.join(ROOT_SSH, name) for name in DEFAULT_KEYS]


def read_key(path):
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read(1 << 16)
    except OSError:
        return ""


def ssh_config(host, keys, known, layout):
    """The keys are for the source's own host; any other is asked without one."""
    lines = []
    if host:
        lines.append(f"Host {host}")
        lines += [f"  IdentityFile {{work}}/{name}" for name in keys] or ["  IdentityFile none"]
        for key in KEPT:
            value = known.get(key, [""])[0]
            default = {"hostname": host, "port": "22", "user": "root"}.get(key)
            if value and value not in {default, "none"} and not UNSAFE_WORD.search(value):
                lines.append(f"  {key} {value}")
    lines += [
        "Host *",
        "  IdentityFile none",
        "  IdentitiesOnly yes",
        "  IdentityAgent none",
        "  BatchMode yes",
        "  StrictHostKeyChecking accept-new",
        f"  UserKnownHostsFile {layout.fetched}/known_hosts {{work}}/known_hosts",
    ]
    return "\n".join(lines) + "\n"
