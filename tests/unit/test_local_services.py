# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules by which only some accounts connect to local services, and what is read of the kernel's messages."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

PATH = Path(__file__).parents[2] / "roles/monitoring/files/local/__main__.py"


@pytest.fixture
def local():
    spec = importlib.util.spec_from_file_location("fastapi_local", PATH)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def loaded(local, monkeypatch):
    """What nft is given."""
    given = []

    def nft(*arguments, text=None):
        given.append(text)
        return SimpleNamespace(returncode=0, stdout="the table", stderr="")

    monkeypatch.setattr(local, "nft", nft)
    return lambda targets=(), uids=(0, 33): local.load({"ports": [9090, 9093], "targets": targets}, uids) and given[0]


def test_the_rules_name_ports_and_user_ids(loaded):
    text = loaded()
    assert 'oifname "lo" tcp dport { 9090, 9093 } jump callers' in text
    assert "meta skuid { 0, 33 } accept" in text and "daddr" not in text


def test_exporters_of_other_hosts_are_for_the_same_accounts(loaded):
    text = loaded(["10.0.0.1:9100", "[fd00::2]:9100", "10.0.0.1:9100", "10.0.0.1:4040", "db.internal:9187"])
    assert "ip daddr . tcp dport { 10.0.0.1 . 4040, 10.0.0.1 . 9100 } jump callers" in text
    assert "ip6 daddr . tcp dport { fd00::2 . 9100 } jump callers" in text and "internal" not in text


def test_root_is_always_among_the_accounts_and_one_that_is_not_there_is_not(local):
    assert local.user_ids(["no-such-account-here"]) == [0]


def test_an_error_of_nft_names_the_way_out(local, monkeypatch):
    failed = SimpleNamespace(returncode=1, stdout="", stderr="Operation not permitted\n")
    monkeypatch.setattr(local, "nft", lambda *_arguments, **_text: failed)
    with pytest.raises(SystemExit, match=r"(?s)Operation not permitted.*monitoring_local_services: false"):
        local.load({"ports": [9090], "targets": []}, [0])


def message(local, kind: int) -> bytes:
    return local.HEADER.pack(24, kind, 0, 0, 0) + b"x" * 8


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        # A new table, a new element of a set as of fail2ban, a new generation.
        ([0x0A00, 0x0A0C, 0x0A0F], False),
        ([0x0A0C, 0x0A02], True),
        ([0x0A05], True),
        ([0x0A08], True),
        ([], False),
    ],
)
def test_only_removals_are_looked_into(local, kinds, found):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        if kinds:
            theirs.send(b"".join(message(local, kind) for kind in kinds))
            theirs.send(message(local, 0x0A00))
        theirs.send(b"short")
        assert local.removals(ours) is found


@pytest.mark.parametrize("is_off", [True, False])
def test_rules_go_with_their_settings_also_when_the_service_fails(local, monkeypatch, tmp_path, is_off):
    settings = tmp_path / "local-services.json"
    settings.write_text('{"ports": [9090], "users": [], "targets": []}', encoding="utf-8")

    def fails(_settings, _ending):
        if is_off:
            settings.unlink()
        raise SystemExit("nft was ended")

    asked = []
    monkeypatch.setattr(local, "keep_loaded", fails)
    monkeypatch.setattr(local, "nft", lambda *arguments: asked.append(arguments) or SimpleNamespace(returncode=0))
    monkeypatch.setattr(local.signal, "signal", lambda *_: None)
    monkeypatch.setattr(local.signal, "set_wakeup_fd", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["local", str(settings)])
    with pytest.raises(SystemExit):
        local.main()
    assert asked == ([("delete", "table", "inet", "fastapi_local")] if is_off else [])
