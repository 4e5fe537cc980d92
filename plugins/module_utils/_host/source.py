# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings an app's source to the host: git, directory, archive, wheel or requirement."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile

from .release import (
    COMMIT,
    ReleaseError,
    is_url,
    redact_url,
    unsafe_member,
)


class Source:
    """One source of an app. `revision()` costs as little as it can; `fetch()` brings the files."""

    def __init__(self, params, layout, shell):
        self.type = params["source_type"]
        self.location = params["source"]
        self.version = params["version"]
        self.checksum = params["checksum"]
        self.digest = params["source_digest"]
        self.upload = params["upload"]
        self.ssh_key_file = params["ssh_key_file"]
        self.layout = layout
        self.shell = shell

    @property
    def is_local(self):
        """Whether the source lies on the controller and has to be uploaded to be fetched."""
        return self.type in {"directory", "archive", "wheel"} and not is_url(self.location)

    def revision(self):
        """What tells this state of the source from any other: a commit, a digest, or the requirement itself."""
        if self.type == "git":
            return self._commit()
        if self.type == "requirement":
            return self.location
        return self.digest or self.checksum

    def fetch(self, target, revision):
        """Lay the source down in the empty directory `target`, in the state that revision() found."""
        if self.type == "git":
            self._checkout(target, revision)
        elif self.type in {"directory", "archive"}:
            unpack(self._file(target + ".download"), target, strip=self.type == "archive")
        elif self.type == "wheel":
            name = os.path.basename(self.location.split("?")[0].split("#")[0])
            shutil.move(self._file(target + ".download"), os.path.join(target, name))

    # git

    def _git(self, *arguments, message, check=True):
        env = {}
        if self.ssh_key_file or "@" in self.location or self.location.startswith("ssh://"):
            key = ["-i", self.ssh_key_file, "-o", "IdentitiesOnly=yes"] if self.ssh_key_file else []
            env["GIT_SSH_COMMAND"] = shlex.join(
                ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", *key]
            )
        try:
            return self.shell.run(["git", *arguments], "fetch", message, env=env, check=check)
        except ReleaseError as exc:
            exc.output = exc.output.replace(self.location, redact_url(self.location))
            raise

    def _commit(self):
        if COMMIT.match(self.version):
            return self.version
        shown = redact_url(self.location)
        output, _code = self._git(
            "ls-remote",
            "--",
            self.location,
            self.version,
            self.version + "^{}",
            message=f"cannot read the git repository {shown}",
        )
        refs = dict(reversed(line.split("\t", 1)) for line in output.splitlines() if re.match(r"^[0-9a-f]{40}\t", line))
        # An annotated tag is listed twice: the tag itself, and the commit it stands for, marked ^{}.
        order = [
            self.version,
            f"refs/tags/{self.version}^{{}}",
            f"refs/tags/{self.version}",
            f"refs/heads/{self.version}",
        ]
        for ref in order:
            if ref in refs:
                return refs[ref]
        if re.match(r"^[0-9a-f]{7,39}$", self.version):
            return self._abbreviated()
        raise ReleaseError(
            "fetch",
            f"version '{self.version}' is no branch, tag or commit of {shown}. "
            f"Name one that `git ls-remote {shown}` lists.",
        )

    def _mirror(self, *refspecs):
        if not os.path.isdir(self.layout.repository):
            self._git("init", "--quiet", "--bare", self.layout.repository, message="cannot make the local repository")
        self._git(
            "-C",
            self.layout.repository,
            "fetch",
            "--quiet",
            "--force",
            "--tags",
            "--",
            self.location,
            *refspecs,
            message=f"cannot fetch from {redact_url(self.location)}",
        )

    def _abbreviated(self):
        self._mirror("+refs/heads/*:refs/heads/*")
        output, code = self._git(
            "-C",
            self.layout.repository,
            "rev-parse",
            "--verify",
            "--quiet",
            self.version + "^{commit}",
            message="",
            check=False,
        )
        if code:
            raise ReleaseError("fetch", f"no commit of {redact_url(self.location)} begins with '{self.version}'.")
        return output.strip()

    def _has(self, commit):
        repository = self.layout.repository
        if not os.path.isdir(repository):
            return False
        _output, code = self._git("-C", repository, "cat-file", "-e", commit + "^{commit}", message="", check=False)
        return code == 0

    def _checkout(self, target, commit):
        repository = self.layout.repository
        if not self._has(commit):
            self._mirror("+refs/heads/*:refs/heads/*")
        if not self._has(commit):
            self._mirror(commit)  # on no branch, such as a pull request's: servers give it by name
        message = f"commit {commit} is not in {redact_url(self.location)}"
        self._git("clone", "--quiet", "--shared", "--no-checkout", repository, target, message=message)
        self._git("-C", target, "checkout", "--quiet", "--detach", commit, message=message)
        if os.path.exists(os.path.join(target, ".gitmodules")):
            self._git("-C", target, "remote", "set-url", "origin", self.location, message="cannot name the origin")
            self._git(
                "-C",
                target,
                "submodule",
                "--quiet",
                "update",
                "--init",
                "--recursive",
                "--depth",
                "1",
                message="cannot fetch the submodules",
            )
        for directory, names, files in os.walk(target):
            if ".git" in names:
                shutil.rmtree(os.path.join(directory, ".git"))
                names.remove(".git")
            if ".git" in files:
                os.unlink(os.path.join(directory, ".git"))

    # files

    def _file(self, download):
        if self.is_local:
            return self.upload
        try:
            with open(download, "wb") as stream:
                request = urllib.request.Request(self.location, headers={"User-Agent": "daoman.fastapi"})
                with urllib.request.urlopen(request, timeout=60) as answer:
                    shutil.copyfileobj(answer, stream)
        except (urllib.error.URLError, OSError) as exc:
            raise ReleaseError("fetch", f"cannot download {redact_url(self.location)}: {exc}") from exc
        verify(download, self.checksum, redact_url(self.location))
        return download


def file_digest(path):
    value = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            value.update(block)
    return "sha256:" + value.hexdigest()


def verify(path, checksum, shown):
    """Fail unless a file has its checksum."""
    found = file_digest(path)
    if checksum and found != checksum.lower():
        raise ReleaseError("fetch", f"{shown} has checksum {found}, wanted {checksum}. Nothing of it was used.")


def unpack(path, target, strip):
    """Unpack a tar or zip archive. With `strip`, a single directory at its top is left out."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _refuse([(name, None) for name in archive.namelist()])
                archive.extractall(target)
        else:
            with tarfile.open(path) as archive:
                members = [
                    member
                    for member in archive
                    if member.isfile() or member.isdir() or member.issym() or member.islnk()
                ]
                _refuse([(member.name, member.linkname if member.issym() else None) for member in members])
                _refuse([(member.linkname, None) for member in members if member.islnk()])
                for member in members:
                    member.uid = member.gid = 0
                    member.uname = member.gname = ""
                # Python 3.12 brought filters, and Debian 12's 3.11 has them only in later builds.
                archive.extractall(target, members, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as exc:
        raise ReleaseError("fetch", f"the archive cannot be unpacked: {exc}") from exc
    finally:
        os.unlink(path)
    names = os.listdir(target)
    if strip and len(names) == 1 and os.path.isdir(os.path.join(target, names[0])):
        top = os.path.join(target, names[0])
        away = target + ".top"
        os.rename(top, away)
        os.rmdir(target)
        os.rename(away, target)


def _refuse(members):
    for name, link in members:
        if unsafe_member(name, link):
            raise ReleaseError(
                "fetch", f"the archive's member '{name}' would land outside the release. Nothing of it was used."
            )
