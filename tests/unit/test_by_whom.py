# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of a playbook that ended without letting its lock go is known on the host on which it ran."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
from ansible_collections.daoman.fastapi.plugins.plugin_utils import by_whom


def test_this_run_is_not_over():
    assert not by_whom.is_over(by_whom.this_run())
    assert by_whom.this_run() == by_whom.this_run()


def test_a_run_whose_process_has_ended_is_over(monkeypatch):
    with subprocess.Popen(["sleep", "60"]) as process:
        monkeypatch.setattr(os, "getppid", lambda: process.pid)
        run = by_whom.this_run()
        assert not by_whom.is_over(run)
        process.kill()
    assert by_whom.is_over(run)


def test_another_process_of_the_same_number_is_another_run():
    host, pid, started = by_whom.this_run().split()
    assert by_whom.is_over(f"{host} {pid} {int(started) - 1}")


@pytest.mark.parametrize("run", ["", "operator", "elsewhere 1 2", f"{socket.gethostname()} 1 "])
def test_of_others_nothing_is_known(run):
    assert not by_whom.is_over(run)
