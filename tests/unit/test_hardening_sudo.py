# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What visudo refused before the run is said in its own words; what the run itself puts right is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils.hardening_topics import Sudo, TopicError

OURS = "/etc/sudoers.d/zz-fastapi-hardening"
WRONG = "{}: bad permissions, should be mode 0440"


def judged(tmp_path, before):
    def run(command):
        whole = command == ("visudo", "-c")
        return (1, f"/etc/sudoers: parsed OK\n{before}") if whole and before else (0, "")

    Sudo(SimpleNamespace(run=run), {OURS: "x"}).test(str(tmp_path))


def test_a_file_that_was_wrong_before_is_named(tmp_path):
    with pytest.raises(TopicError) as error:
        judged(tmp_path, WRONG.format("/etc/sudoers.d/x"))
    assert str(error.value) == (
        "visudo refuses what was on the host before this run, so sudo is not changed:\n"
        + WRONG.format("/etc/sudoers.d/x")
    )


@pytest.mark.parametrize("before", ["", WRONG.format(OURS)])
def test_what_this_run_puts_right_stops_nothing(tmp_path, before):
    judged(tmp_path, before)
