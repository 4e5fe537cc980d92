# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes text of others safe for a terminal. What an app logs could set a title, fill a clipboard, or hide lines.

Control characters, invisible ones, and those that turn the direction of writing are shown escaped. Newline and tab
stay. Colours are left out: a line says nothing by them that its words do not say.
"""

from __future__ import annotations

import re
import unicodedata

# Characters of a line that are shown. What people write, tracebacks included, has less.
LONGEST = 4000
COLOUR = re.compile("\\x1b\\[[0-9;:]*m")
# Joiners that scripts need, and the soft hyphen: the only formats that change nothing but glyphs.
WRITTEN = "\u200c\u200d\u00ad"
# Controls, surrogates (bytes that are no UTF-8), formats, separators of lines and paragraphs.
UNSAFE = {"Cc", "Cs", "Cf", "Zl", "Zp"}
PLAIN = re.compile(r"[\n\t -~]*")


def safe(data, longest=LONGEST):
    """The text, or the texts of plain data, so that a terminal shows all of it and obeys none of it."""
    if isinstance(data, str):
        return _text(data, longest)
    if isinstance(data, dict):
        return {safe(key, longest): safe(value, longest) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [safe(item, longest) for item in data]
    return data


def one_line(text, longest=LONGEST):
    """The same on one line: text of others that must not begin a line of ours."""
    return " ".join(_text(text, longest).split())


def _text(text, longest):
    text = COLOUR.sub("", text.replace("\r\n", "\n"))
    if not PLAIN.fullmatch(text):
        text = "".join(map(_shown, text))
    return "\n".join(_cut(each, longest) for each in text.split("\n"))


def _shown(character):
    if character in "\n\t" or character in WRITTEN or unicodedata.category(character) not in UNSAFE:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as surrogateescape decodes it
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return "\\r" if character == "\r" else f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cut(text, longest):
    return text if len(text) <= longest else f"{text[:longest]} ... ({len(text) - longest} more characters)"
