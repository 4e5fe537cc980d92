# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/security.md promises nothing without a test: each row names one, and each that is named is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:molecule|tests)/[^`]*)`", TEXT)))
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| who")]
PEOPLE = ("visitor", "app, while", "app's author", "package", "deploy user", "local user", "monitoring", "inventory")


@pytest.mark.parametrize("name", NAMED)
def test_a_named_test_is_there(name):
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    if function:
        assert re.search(rf"^def {function}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_names_a_test(row):
    assert re.search(r"`(?:molecule|tests)/[^`]*`", row.split("|")[4])


@pytest.mark.parametrize("who", PEOPLE)
def test_the_table_names_everybody(who):
    assert any(who in row.split("|")[1] for row in ROWS)


def test_readme_leads_to_it():
    assert "docs/security.md" in (ROOT / "README.md").read_text(encoding="utf-8")
