# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of a unit that reads a source: `caged_fetch.py JOB ANSWER`, run as the build account.

Its text is handed to the unit, so it imports nothing of ours. JSON goes to ANSWER: `answer`, or `failed`, a sentence.
"""

# A program of its own: there is no module around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile


class Failed(Exception):
    """What is wrong, in a sentence."""


def main():
    with open(sys.argv[1], encoding="utf-8") as stream:
        job = json.load(stream)
    os.umask(0o022)
    try:
        check_readable(job)
        answer = {"answer": {"resolve": resolve, "fetch": fetch}[job["do"]](job)}
    except (Failed, OSError) as exc:
        answer = {"failed": str(exc)}
    with open(sys.argv[2], "w", encoding="utf-8") as stream:
        json.dump(answer, stream)
    return int("failed" in answer)


def check_readable(job):
    """Fail unless what is shown to this unit is what root has found there, without a link."""
    for path, identity in job.get("readable", {}).items():
        found = os.stat(path)
        if [found.st_dev, found.st_ino] != identity:
            raise Failed(f"{path} is not the directory that it was a moment ago. Nothing of it was used.")


# -- git --------------------------------------------------------------------------------------------------------------


def git(*arguments, message, check=True):
    done = subprocess.run(["git", *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        print((done.stdout + done.stderr).decode("utf-8", "replace"), flush=True)
        raise Failed(message)
    return done.stdout.decode("utf-8", "replace"), done.returncode


def resolve(job):
    """The commit that a version stands for."""
    url, shown, version = job["url"], job["shown"], job["version"]
    listed, _code = git(
        "ls-remote", "--", url, version, version + "^{}", message=f"cannot read the git repository {shown}"
    )
    refs = dict(reversed(line.split("\t", 1)) for line in listed.splitlines() if re.match(r"^[0-9a-f]{40}\t", line))
    # An annotated tag is listed twice: the tag itself, and the commit it stands for, marked ^{}.
    for ref in (version, f"refs/tags/{version}^{{}}", f"refs/tags/{version}", f"refs/heads/{version}"):
        if ref in refs:
            return refs[ref]
    if re.match(r"^[0-9a-f]{7,39}$", version):
        mirror(job, "+refs/heads/*:refs/heads/*")
        found, code = git(
            "-C", job["repository"], "rev-parse", "--verify", "--quiet", version + "^{commit}", message="", check=False
        )
        if code == 0:
            return found.strip()
        raise Failed(f"no commit of {shown} begins with '{version}'.")
    raise Failed(
        f"version '{version}' is not a branch, tag or commit of {shown}. Name one that `git ls-remote {shown}` lists."
    )


def mirror(job, *refspecs):
    repository = job["repository"]
    if not os.path.isdir(repository):
        git("init", "--quiet", "--bare", repository, message="cannot make the local repository")
    git(
        "-C", repository, "fetch", "--quiet", "--force", "--tags", "--", job["url"], *refspecs,
        message=f"cannot fetch from {job['shown']}",
    )  # fmt: skip


def has(repository, commit):
    if not os.path.isdir(repository):
        return False
    return git("-C", repository, "cat-file", "-e", commit + "^{commit}", message="", check=False)[1] == 0


def check_out(job):
    repository, commit, target = job["repository"], job["revision"], job["target"]
    if not has(repository, commit):
        mirror(job, "+refs/heads/*:refs/heads/*")
    if not has(repository, commit):
        mirror(job, commit)  # on no branch, such as a pull request's: servers give it by name
    message = f"commit {commit} is not in {job['shown']}"
    git("clone", "--quiet", "--shared", "--no-checkout", repository, target, message=message)
    git("-C", target, "checkout", "--quiet", "--detach", commit, message=message)
    if os.path.lexists(os.path.join(target, ".gitmodules")):
        # Relative URLs of submodules are read against the origin.
        git("-C", target, "remote", "set-url", "origin", job["url"], message="cannot name the origin")
        git(
            "-C", target, "submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1",
            message="cannot fetch the submodules. The key or password of the source is given to its own host only; "
            "submodules on other hosts must be public",
        )  # fmt: skip
    for directory, names, files in os.walk(target):
        if ".git" in names:
            shutil.rmtree(os.path.join(directory, ".git"))
            names.remove(".git")
        if ".git" in files:
            os.unlink(os.path.join(directory, ".git"))


# -- files ------------------------------------------------------------------------------------------------------------


def fetch(job):
    if job["type"] == "git":
        check_out(job)
    elif job["type"] in {"directory", "archive"}:
        unpack(file_of(job), job["target"], strip=job["type"] == "archive")
    elif job["type"] == "wheel":
        name = os.path.basename(urllib.parse.urlsplit(job["url"]).path)
        shutil.copyfile(file_of(job), os.path.join(job["target"], name))


def file_of(job):
    """The file that was uploaded, or that is downloaded now."""
    if job["upload"]:
        return job["upload"]
    path = os.path.join(job["scratch"], "download")
    request = urllib.request.Request(job["url"], headers={"User-Agent": "daoman.fastapi"})
    if job["login"]:
        # Not among those that are sent on to another host after a redirect.
        login = base64.b64encode(job["login"].encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {login}")
    try:
        with urllib.request.build_opener().open(request, timeout=60) as answer, open(path, "wb") as stream:
            shutil.copyfileobj(answer, stream)
    except (urllib.error.URLError, OSError) as exc:
        raise Failed(f"cannot download {job['shown']}: {exc}") from exc
    verify(path, job["checksum"], job["shown"])
    return path


def file_digest(path):
    with open(path, "rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def verify(path, checksum, shown):
    """Fail unless a file has its checksum."""
    found = file_digest(path)
    if checksum and found != checksum.lower():
        raise Failed(f"{shown} has checksum {found}, wanted {checksum}. Nothing of it was used.")


def unpack(path, target, strip):
    """Unpack a tar or zip archive. With `strip`, a single directory at its top is left out.

    Whatever its names and links say, the unit can write nothing but this directory.
    """
    inside = os.path.join(target, ".unpacked") if strip else target
    os.makedirs(inside, exist_ok=True)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                refuse((name, None) for name in archive.namelist())
                archive.extractall(inside)
                # zipfile forgets the permissions.
                for member in archive.infolist():
                    if member.external_attr >> 16 & 0o100 and not member.is_dir():
                        os.chmod(os.path.join(inside, member.filename), 0o755)
        else:
            with tarfile.open(path) as archive:
                members = [each for each in archive if each.isfile() or each.isdir() or each.issym() or each.islnk()]
                refuse((member.name, member.linkname if member.issym() else None) for member in members)
                refuse((member.linkname, None) for member in members if member.islnk())
                # Python 3.12 brought filters, and Debian 12's 3.11 has them only in later builds.
                archive.extractall(inside, members, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as exc:
        raise Failed(f"the archive cannot be unpacked: {exc}") from exc
    if not strip:
        return
    names = os.listdir(inside)
    top = os.path.join(inside, names[0]) if len(names) == 1 else inside
    if os.path.islink(top) or not os.path.isdir(top):
        top = inside
    away = os.path.join(target, ".unpacked-top")
    os.rename(top, away)
    shutil.rmtree(inside, ignore_errors=True)
    for name in os.listdir(away):
        os.rename(os.path.join(away, name), os.path.join(target, name))
    os.rmdir(away)


def refuse(members):
    for name, link in members:
        if unsafe_member(name, link):
            raise Failed(f"the archive's member {name!r} would land outside the release. Nothing of it was used.")


def unsafe_member(name, link=None):
    """Whether an archive's member would land outside the directory it is unpacked into."""
    target = os.path.normpath(os.path.join(os.path.dirname(name), link) if link is not None else name)
    absolute = name.startswith("/") or (link or "").startswith("/")
    return absolute or target == ".." or target.startswith("../")


if __name__ == "__main__":
    sys.exit(main())
