# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placeholder certificates, made and read by the real openssl."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree
from ansible_collections.daoman.fastapi.plugins.modules import placeholder_certificates as module

SHOP = {"name": "shop", "domains": ["shop.example.com", "www.shop.example.com"]}


class Place:
    def __init__(self, folder):
        self.params = {
            "certificates": [SHOP], "directory": str(folder / "placeholder"), "links": str(folder / "nginx" / "tls"),
            "lineages": str(folder / "live"), "days": 3650}
        self.shop = folder / "placeholder" / "shop"
        self.link = folder / "nginx" / "tls" / "shop"
        self.commands = 0

    def ensure(self, check=False, **params):
        return module.ensure({**self.params, **params}, check, self.run_command)

    def run_command(self, words, data=None):
        self.commands += 1
        done = subprocess.run(words, input=data, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def text(self, *options):
        return subprocess.run(
            ["openssl", "x509", "-in", str(self.link / "fullchain.pem"), "-noout", *options],
            capture_output=True, text=True, check=True).stdout


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_a_placeholder_is_made_and_linked_before_nginx_is_there(place):
    result = place.ensure()
    assert (result["changed"], result["issued"], result["linked"], result["kept"]) == (True, ["shop"], ["shop"], {})
    assert os.readlink(place.link) == str(place.shop)
    assert "DNS:shop.example.com, DNS:www.shop.example.com" in place.text("-ext", "subjectAltName")
    text = place.text("-text")
    assert "ASN1 OID: prime256v1" in text
    assert "CA:FALSE" in text
    assert "TLS Web Server Authentication" in text


def test_only_root_reads_the_key(place):
    place.ensure()
    assert stat.S_IMODE((place.shop / "privkey.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((place.shop / "fullchain.pem").stat().st_mode) == 0o644


def test_a_second_run_makes_nothing(place):
    place.ensure()
    serial = place.text("-serial")
    result = place.ensure()
    assert (result["changed"], result["issued"], result["linked"]) == (False, [], [])
    assert result["diff"] == {"before": "", "after": ""}
    assert place.text("-serial") == serial


@pytest.mark.parametrize("domains", [["shop.example.com"], ["shop.example.com", "new.example.com"]])
def test_other_names_make_another_placeholder(place, domains):
    place.ensure()
    result = place.ensure(certificates=[{"name": "shop", "domains": domains}])
    assert result["issued"] == ["shop"]
    assert "www.shop.example.com" in result["diff"]["before"]
    assert module.look(str(place.shop), place.run_command) == ({f"DNS:{name}" for name in domains}, None)


def test_the_order_and_case_of_names_do_not_matter(place):
    place.ensure()
    names = [name.upper() for name in reversed(SHOP["domains"])]
    assert not place.ensure(certificates=[{"name": "shop", "domains": names}])["changed"]


def test_addresses_are_names_too(place):
    certificate = {"name": "shop", "domains": ["127.0.0.1", "::1", "localhost"]}
    place.ensure(certificates=[certificate])
    assert "IP Address:127.0.0.1" in place.text("-ext", "subjectAltName")
    assert not place.ensure(certificates=[certificate])["changed"]


def test_a_placeholder_that_is_about_to_expire_is_replaced(place):
    place.ensure(days=10)
    assert place.ensure()["issued"] == ["shop"]
    assert not place.ensure()["changed"]


@pytest.mark.parametrize("spoil", [
    lambda shop: (shop / "privkey.pem").unlink(),
    lambda shop: (shop / "fullchain.pem").unlink(),
    lambda shop: (shop / "fullchain.pem").write_text("nonsense"),
    lambda shop: (shop / "privkey.pem").write_text("nonsense"),
    lambda shop: shutil.copyfile(shop.parent / "other" / "privkey.pem", shop / "privkey.pem"),
])
def test_a_spoilt_placeholder_is_replaced(place, spoil):
    both = [SHOP, {"name": "other", "domains": ["other.example.com"]}]
    place.ensure(certificates=both)
    spoil(place.shop)
    assert place.ensure(certificates=both)["issued"] == ["shop"]
    assert not place.ensure(certificates=both)["changed"]


def test_a_key_that_all_can_read_is_closed_again(place):
    place.ensure()
    (place.shop / "privkey.pem").chmod(0o644)
    result = place.ensure()
    assert (result["changed"], result["issued"]) == (True, [])
    assert stat.S_IMODE((place.shop / "privkey.pem").stat().st_mode) == 0o600


def test_certificate_and_key_are_replaced_together_where_directories_cannot_be_exchanged(place, monkeypatch):
    monkeypatch.setattr(tree, "exchange", lambda one, other: False)
    place.ensure()
    place.ensure(certificates=[{"name": "shop", "domains": ["new.example.com"]}])
    assert module.look(str(place.shop), place.run_command) == ({"DNS:new.example.com"}, None)
    assert sorted(os.listdir(place.shop.parent)) == ["shop"]


def link_to_a_lineage(link):
    link.symlink_to("/etc/letsencrypt/live/shop")
    return "/etc/letsencrypt/live/shop"


def a_directory(link):
    link.mkdir()
    return "not a link"


@pytest.mark.parametrize("put", [link_to_a_lineage, a_directory])
def test_what_is_not_a_placeholder_is_left_alone(place, put):
    place.link.parent.mkdir(parents=True)
    what = put(place.link)
    result = place.ensure()
    assert (result["changed"], result["kept"]) == (False, {"shop": what})
    assert not place.shop.exists()


def test_check_mode_predicts_and_does_nothing(place):
    predicted = place.ensure(check=True)
    assert not place.shop.parent.exists() and not place.link.parent.exists()
    assert place.commands == 0, "openssl may not be there yet"
    assert predicted == place.ensure()


@pytest.mark.parametrize("certificates, message", [
    ([{"name": "../etc", "domains": ["a"]}], "not a name"),
    ([{"name": ".hidden", "domains": ["a"]}], "not a name"),
    ([{"name": "", "domains": ["a"]}], "not a name"),
    ([{"name": "a/b", "domains": ["a"]}], "not a name"),
    ([{"name": "shop", "domains": []}], "has no domains"),
    ([SHOP, SHOP], "is there twice"),
    ([{"name": "shop", "domains": ["a,DNS:b"]}], "is not a domain"),
    ([{"name": "shop", "domains": ["a\n[x]"]}], "is not a domain"),
    ([{"name": "shop", "domains": [""]}], "is not a domain"),
])
def test_bad_input_is_refused_before_anything_is_made(place, certificates, message):
    with pytest.raises(module.Failure, match=message):
        place.ensure(certificates=certificates)
    assert not place.shop.parent.exists()


def test_a_failure_of_openssl_is_reported_and_leaves_nothing(place):
    def failing(words, data=None):
        return 1, "", "openssl says no"

    with pytest.raises(module.Failure, match="openssl says no"):
        module.ensure(place.params, False, failing)
    assert os.listdir(place.shop.parent) == []
    assert not place.link.parent.exists()


def test_an_absent_one_is_removed_with_its_link(place):
    place.ensure()
    absent = [{**SHOP, "state": "absent"}]
    assert place.ensure(check=True, certificates=absent)["changed"] and place.link.is_symlink()
    assert place.ensure(certificates=absent)["changed"]
    assert not place.link.is_symlink() and not place.shop.exists()
    assert not place.ensure(certificates=absent)["changed"]


def test_a_real_certificate_is_not_removed_with_the_placeholder(place):
    place.ensure()
    place.link.unlink()
    place.link.symlink_to("/etc/letsencrypt/live/shop")
    result = place.ensure(certificates=[{**SHOP, "state": "absent"}])
    assert place.link.is_symlink() and not place.shop.exists()
    assert result["kept"] == {"shop": "/etc/letsencrypt/live/shop"}
