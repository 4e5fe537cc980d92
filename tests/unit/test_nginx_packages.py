# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of Debian's packages of nginx, and how their files are had: from the cache of apt, or downloaded."""

from __future__ import annotations

import io
import os
import tarfile

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_packages as packages

WANTED = ["/etc/nginx/mime.types"]


def archive():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in (("./etc/nginx/mime.types", b"types"), ("./etc/nginx/koi-utf", b"koi")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("./etc/nginx/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        tar.addfile(link)
    return stream.getvalue()


class Run:
    """Stands for dpkg and apt: which words after `download` bring a package."""

    def __init__(self, version="1:1.26-3", had=()):
        self.version, self.had, self.asked = version, had, []

    def __call__(self, words, cwd=None, encoding="utf-8"):
        if words[0] == "dpkg-query":
            return 0 if self.version else 1, f"{self.version} all" if self.version else "", ""
        if words[0] == "dpkg-deb":
            assert encoding is None
            return 0, archive(), b""
        self.asked.append(words[-1])
        if words[-1] not in self.had:
            return 100, "", "E: not found"
        with open(os.path.join(cwd, "x.deb"), "wb"):
            pass
        return 0, "", ""


@pytest.mark.parametrize(
    "had, asked",
    [(["nginx-common=1:1.26-3"], 1), (["nginx-common"], 2), (["nginx-common=1:1.26-3", "nginx-common"], 1)],
)
def test_a_package_is_downloaded_in_its_version_or_the_next_one(tmp_path, had, asked):
    run = Run(had=had)
    assert packages.contents(run, "nginx-common", WANTED, str(tmp_path)) == {WANTED[0]: b"types"}
    assert len(run.asked) == asked


def test_a_package_in_the_cache_is_not_downloaded(tmp_path):
    (tmp_path / "nginx-common_1%3a1.26-3_all.deb").touch()
    run = Run()
    assert packages.contents(run, "nginx-common", [*WANTED, "/etc/nginx/link"], str(tmp_path)) == {WANTED[0]: b"types"}
    assert run.asked == []


@pytest.mark.parametrize("run", [Run(), Run(version="")])
def test_a_package_that_cannot_be_had_brings_nothing(tmp_path, run):
    assert packages.contents(run, "nginx-common", WANTED, str(tmp_path)) == {}


def test_where_dpkg_knows_nothing_there_is_nothing(tmp_path):
    info = str(tmp_path)
    assert packages.module_links(info) == packages.files("/etc/nginx", info) == {}
    assert packages.directories("/etc/nginx", info) == [] and not packages.is_installed("nginx", info)
