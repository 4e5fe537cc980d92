# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Debian's packages of nginx have below its directory, and how that is brought back where it is missing.

dpkg takes a file of a configuration that is gone for one that the administrator has removed, and `apt-get install
--reinstall` restarts nginx, whose configuration is incomplete at that moment. So the files are taken from the package,
and become part of the tree that is tested before anything is replaced.

`run` is AnsibleModule.run_command or one like it.
"""

from __future__ import annotations

import glob
import io
import os
import re
import shutil
import tarfile
import tempfile

INFO = "/var/lib/dpkg/info"
AVAILABLE = "/usr/share/nginx/modules-available"
ARCHIVES = "/var/cache/apt/archives"
# Seconds for a package to be downloaded.
DOWNLOAD = 60
# As dh_nginx writes them into a package's script: the file of a module, and the name of its link.
PAIR = re.compile(r"\b(mod-[\w.-]+\.conf):(\d+-mod-[\w.-]+\.conf)\b")


def module_links(info=INFO, available=AVAILABLE):
    """{path: target} of the links that load the modules of installed packages. A module that was removed has none."""
    found = {}
    for script in glob.glob(os.path.join(info, "libnginx-mod-*.postinst")):
        with open(script, encoding="utf-8", errors="replace") as stream:
            for file, link in PAIR.findall(stream.read()):
                target = os.path.join(available, file)
                if os.path.isfile(target):
                    found[f"modules-enabled/{link}"] = target
    return found


def files(root, info=INFO):
    """{path below root: package} of the files that packages of nginx have in its directory."""
    found = {}
    for listing in glob.glob(os.path.join(info, "*nginx*.conffiles")):
        package = os.path.basename(listing).removesuffix(".conffiles").partition(":")[0]
        with open(listing, encoding="utf-8", errors="replace") as stream:
            for path in map(str.strip, stream):
                if path.startswith(root + "/"):
                    found[os.path.relpath(path, root)] = package
    return found


def directories(root, info=INFO):
    """Paths of the directories that packages of nginx have in its directory, and that may be empty."""
    try:
        with open(os.path.join(info, "nginx-common.list"), encoding="utf-8") as stream:
            listed = [line.strip() for line in stream if line.startswith(root + "/")]
    except OSError:
        return []
    # All files of a package in /etc are files of a configuration.
    known = files(root, info=info)
    return [path for path in listed if os.path.relpath(path, root) not in known]


def is_installed(package, info=INFO):
    """Not one that was removed, of which its list remains."""
    return os.path.exists(os.path.join(info, package + ".md5sums"))


def contents(run, package, paths, archives=ARCHIVES):
    """{path: bytes} of files of an installed package, by absolute path; nothing where the package cannot be had."""
    code, out, _err = run(["dpkg-query", "--show", "--showformat=${Version} ${Architecture}", package])
    version, _blank, architecture = out.strip().partition(" ")
    if code or not version:
        return {}
    kept = os.path.join(archives, f"{package}_{version.replace(':', '%3a')}_{architecture}.deb")
    if os.path.isfile(kept):
        return _unpacked(run, kept, paths)
    directory = tempfile.mkdtemp(prefix="fastapi-nginx-")
    try:
        # The version that is installed may have left the archive by now: then the next one.
        for word in (f"{package}={version}", package):
            code, _out, _err = run(["timeout", str(DOWNLOAD), "apt-get", "--quiet", "download", word], cwd=directory)
            made = glob.glob(os.path.join(directory, "*.deb"))
            if not code and made:
                return _unpacked(run, made[0], paths)
        return {}
    finally:
        shutil.rmtree(directory)


def _unpacked(run, package, paths):
    code, out, _err = run(["dpkg-deb", "--fsys-tarfile", package], encoding=None)
    found = {}
    if not code:
        with tarfile.open(fileobj=io.BytesIO(out)) as archive:
            for member in archive:
                path = "/" + member.name.removeprefix("./").lstrip("/")
                if path in paths and member.isfile():
                    found[path] = archive.extractfile(member).read()
    return found
