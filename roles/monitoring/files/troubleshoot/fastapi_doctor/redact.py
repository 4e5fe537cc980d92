# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes secrets out of whatever is reported: the values of the apps' environments, and what looks like a secret."""

from __future__ import annotations

import json
import re
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "<hidden>"
SECRET_NAME = re.compile(
    r"secret|token|passw|pwd|passphrase|private|credential|api_?key|auth|dsn|salt|_key$|^key", re.I
)
# Shorter values hide nothing by being left out, and would garble the text.
SHORTEST = 4
HARMLESS = re.compile(
    r"^(true|false|yes|no|on|off|none|null|debug|info|warning|error|critical|production|staging|development"
    r"|[0-9.]+|memory://|localhost|127\.0\.0\.1|utf-?8|c\.utf-8)$",
    re.I,
)

PATTERNS = (
    # A key in its armour, on one line or many.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), HIDDEN),
    # The password of a URL: with its user, who may be a token.
    (re.compile(r"(?<=://)[^\s/@\"'<>]*:[^\s/\"'<>]*@(?=[^\s@]*)"), HIDDEN + "@"),
    (re.compile(r"(?<=://)[^\s/@:\"'<>]{8,}@"), HIDDEN + "@"),
    (
        re.compile(r"(https://hooks\.slack\.com/services/|https://discord(?:app)?\.com/api/webhooks/)[\w/-]+"),
        r"\1" + HIDDEN,
    ),
    (
        re.compile(
            r"((?:proxy-)?authorization[\"']?\s*[:=,]\s*(?:[bB](?=[\"']))?[\"']?)(?:(?:bearer|basic|digest|token)\s+)?[^\s\"',]+",
            re.I,
        ),
        r"\1" + HIDDEN,
    ),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.I), r"\1 " + HIDDEN),
    (re.compile(r"((?:set-)?cookie[\"']?\s*[:=,]\s*(?:[bB](?=[\"']))?[\"']?)[^\"'\n]+", re.I), r"\1" + HIDDEN),
    (
        re.compile(
            r"([\w-]*(?:secret|token|passw(?:or)?d|passphrase|pwd|api[_-]?key|access[_-]?key|private[_-]?key|credential|session(?:id)?"
            r"|signature)[\w-]*[\"']?\s*(?:[=:]|\bis\b)\s*[bB]?)(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s\"'&,;)}\]]+)",
            re.I,
        ),
        r"\1" + HIDDEN,
    ),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),
    (
        re.compile(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|sk-[\w-]{20,})"
        ),
        HIDDEN,
    ),
)


def env_values(text):
    """Names and values in the text of an environment file of systemd, quoted or not."""
    found = {}
    pattern = r'^\s*(\w+)=(?:"((?:[^"\\]|\\.)*)"|\'([^\']*)\'|([^\n]*))$'
    for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        double, single, bare = match.group(2), match.group(3), match.group(4)
        if double is not None:
            found[match.group(1)] = re.sub(r"\\(.)", r"\1", double)
        else:
            found[match.group(1)] = single if single is not None else bare.strip()
    return found


def secrets_of(env, harmless=()):
    """What must not be seen of an environment: {text: what to write instead}. `harmless` are names that are public."""
    public = {item.lower() for item in harmless}
    found = {}
    for name, value in env.items():
        parts = re.split(r"[\s,;]+", value)
        plain = all(HARMLESS.match(part) or part.lower() in public for part in parts)
        if len(value) < SHORTEST or (plain and not SECRET_NAME.search(name)):
            continue
        for form in forms(value):
            found[form] = f"<{name}>"
    return found


def forms(value):
    """A value as it may turn up: as it is, in JSON, in a URL, line by line, and the password that is in it."""
    lines = [line for line in value.splitlines() if len(line) >= 8]
    found = set()
    for text in (value, *lines):
        found |= {text, json.dumps(text)[1:-1], repr(text)[1:-1], quote(text), quote(text, safe="")}
    try:
        password = urlsplit(value).password or ""
    except ValueError:
        password = ""
    if len(password) >= SHORTEST:
        found.update({password, unquote(password), json.dumps(unquote(password))[1:-1]})
    return {form for form in found if len(form) >= SHORTEST}


class Redactor:
    """Callable on text, and on plain data with text in it."""

    def __init__(self, secrets=None):
        # The longest first: one may be a part of another.
        self._secrets = sorted((secrets or {}).items(), key=lambda item: -len(item[0]))

    def __call__(self, data):
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, dict):
            return {self(key): self(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self(item) for item in data]
        return data

    def text(self, text):
        for secret, instead in self._secrets:
            text = text.replace(secret, instead)
        for pattern, instead in PATTERNS:
            text = pattern.sub(instead, text)
        return text
