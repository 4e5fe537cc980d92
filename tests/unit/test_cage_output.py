# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a unit prints is read while it runs, and never kept whole."""

from __future__ import annotations

import subprocess
import time

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host.cage import OUTPUT, Output


def said(path, command: str) -> str:
    with Output(str(path)) as output:
        subprocess.run(["sh", "-c", f"exec >{path}; {command}"], check=False)
    return output.text()


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("true", ""),
        ("echo one", "one\n"),
        ("echo one; sleep 0.3; echo two", "one\ntwo\n"),
        (r"printf '\377'", "\ufffd"),
    ],
)
def test_all_is_read(tmp_path, command, text):
    assert said(tmp_path / "output", command) == text


def test_of_much_the_beginning_and_the_end_are_kept(tmp_path):
    text = said(tmp_path / "output", "echo begin; head -c 20000000 /dev/zero; echo end")
    assert len(text) < OUTPUT + 100
    assert text.startswith("begin\n") and text.endswith("end\n")
    assert (tmp_path / "output").is_fifo()


def test_a_process_that_prints_on_is_not_waited_for(tmp_path):
    path = tmp_path / "output"
    begun = time.monotonic()
    try:
        with Output(str(path)) as output:
            process = subprocess.Popen(["sh", "-c", f"exec yes >{path}"])
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - begun < 5
    assert output.text().startswith("y\n")
