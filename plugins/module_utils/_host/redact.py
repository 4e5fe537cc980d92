# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes secrets out of whatever is shown or kept: known values in all their forms, and text that looks like a secret.

A value of eight characters or more is hidden wherever it occurs. A shorter one is hidden only where its name tells of a
secret and where it stands as a word of its own: hidden as a part of words, `PIN=cat` would garble `concatenate`.
"""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "<hidden>"
# Characters. A shorter value is hidden as a word only, one below SHORTEST beside its name only.
LONG, SHORTEST = 8, 3
SECRET_NAME = re.compile(
    r"secret|token|passw|pwd|passphrase|private|credential|api_?key|access_?key|auth|dsn|salt|(?:^|_)pin$|_key$|^key",
    re.I,
)
# Settings of secrets that are none themselves, such as TOKEN_TTL=3600: of harmless values only.
SETTING_NAME = re.compile(
    r"(?:ttl|expir\w*|lifetime|age|seconds|minutes|hours|days|length|size|count|enabled|required|algorithm|type|mode"
    r"|header|scheme|backend|prefix|user|username|host|port|provider|url|file|path)$",
    re.I,
)
HARMLESS = re.compile(
    r"^(true|false|yes|no|on|off|none|null|debug|info|warning|error|critical|production|staging|development|local|test"
    r"|[0-9.]+|memory://|localhost|127\.0\.0\.1|utf-?8|c\.utf-8|https?)$",
    re.I,
)
# What stands for a password in URLs whose user is a token.
DUMMY_PASSWORDS = {"", "x-oauth-basic", "x-token-auth", "oauth2"}

# With bounds, or a long word without a blank would take as long as an app likes.
NAME = (
    r"(?<![\w-])[\w-]{0,80}?(?:secret|token|passw(?:or)?d|passphrase|pwd|api[_-]?key|access[_-]?key|private[_-]?key|credential"
    r"|session(?:id)?|signature)[\w-]{0,80}"
)
PATTERNS = (
    # A key in its armour, on one line or many.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), HIDDEN),
    # The password of a URL: with its user, who may be a token.
    (re.compile(r"(?<=://)[^\s/@:\"'<>]{0,300}:[^\s/\"'<>]{0,1000}@"), HIDDEN + "@"),
    (re.compile(r"(?<=://)[^\s/@:\"'<>]{8,}@"), HIDDEN + "@"),
    (
        re.compile(r"(https://hooks\.slack\.com/services/|https://discord(?:app)?\.com/api/webhooks/)[\w/-]+"),
        r"\1" + HIDDEN,
    ),
    (
        re.compile(
            r"((?:proxy-)?authorization[\"']?\s*[:=,]\s*(?:[bB](?=[\"']))?[\"']?)"
            r"(?:(?:bearer|basic|digest|token)\s+)?[^\s\"',]+",
            re.I,
        ),
        r"\1" + HIDDEN,
    ),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.I), r"\1 " + HIDDEN),
    (re.compile(r"((?:set-)?cookie[\"']?\s*[:=,]\s*(?:[bB](?=[\"']))?[\"']?)[^\"'\n]+", re.I), r"\1" + HIDDEN),
    (
        re.compile(
            "(" + NAME + r"[\"']?\s*(?:[=:]|\bis\b)\s*[bB]?)(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s\"'&,;)}\]]+)",
            re.I,
        ),
        r"\1" + HIDDEN,
    ),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),
    (
        re.compile(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|sk-[\w-]{20,}"
            r"|pypi-[\w-]{16,})"
        ),
        HIDDEN,
    ),
)
URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>[^\s'\"<>]*)")
AUTHORITY = re.compile(r"([^/?#]*)(.*)")
# What is before the first slash: a host, and perhaps a port. Anything else after a colon is a password with a slash in
# it, which somebody forgot to escape.
HOST = re.compile(r"[^:]*(:\d*)?|\[.*\](:\d*)?")
PARAMETER = re.compile(r"(?P<begin>^|[?&;#])(?P<name>[^=&;#?]*)=(?P<value>[^&;#]*)")
# Parameters that tell one source from another, and are no secrets.
PLAIN_PARAMETER = re.compile(
    r"(ref|rev|revision|commit|sha|sha\d+|md5|version|v|tag|branch|at|egg|subdirectory|name|file|filename|path|format"
    r"|archive|raw|download|private|public)",
    re.IGNORECASE,
)
SECRET_PARAMETER = re.compile(
    r"token|secret|passw|pwd|passphrase|auth|credential|sig|key|jwt|session|hmac|^[a-z]?[ptk]$", re.IGNORECASE
)
# What looks like a token, whatever it is called: long, with letters and digits.
TOKEN_LIKE = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w.~+/%=-]{16,}")
DSN = re.compile(r"\b(?:password|passwd|pwd|token|secret)\s*=\s*'?([^\s;'&]+)", re.I)


class Redactor:
    """Callable on text, and on plain data with text in it.

    :arg values: what to hide, name to value
    :arg public: words that are no secrets although they are values, such as names of apps and domains
    """

    def __init__(self, values=None, public=()):
        self._long, self._words = {}, {}
        self.add(values or {}, public)

    def add(self, values, public=()):
        """Hide further values. The first name that a value is known by stands for it."""
        public = {item.lower() for item in public}
        for name, value in values.items():
            self._add(str(name), str(value), public)
        # The longest first: one may be a part of another.
        for kept in (self._long, self._words):
            ordered = sorted(kept.items(), key=lambda item: -len(item[0]))
            kept.clear()
            kept.update(ordered)

    def _add(self, name, value, public):
        parts = re.split(r"[\s,;]+", value.strip())
        plain = all(HARMLESS.match(part) or part.lower() in public for part in parts)
        telling = bool(SECRET_NAME.search(name)) and not (plain and SETTING_NAME.search(name))
        if plain and not telling:
            return
        for secret in {value, value.strip(), *_lines(value)}:
            self._hide(secret, f"<{name}>", telling)
        for secret in _within(value):
            self._hide(secret, f"<{name}>", True)

    def _hide(self, secret, instead, telling):
        if len(secret) >= LONG:
            for form in _forms(secret):
                self._long.setdefault(form, instead)
        elif telling and len(secret) >= SHORTEST:
            for form in _written(secret):
                self._words.setdefault(form, instead)

    def __call__(self, data):
        if isinstance(data, str):
            return self._text(data)
        if isinstance(data, dict):
            return {self(key): self(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self(item) for item in data]
        return data

    def _text(self, text):
        for secret, instead in self._long.items():
            text = text.replace(secret, instead)
        for word, instead in self._words.items():
            if word in text:
                text = re.sub(
                    rf"(?<![A-Za-z0-9_<]){re.escape(word)}(?![A-Za-z0-9_>])", lambda _match, to=instead: to, text
                )
        for pattern, instead in PATTERNS:
            text = pattern.sub(instead, text)
        return text


def is_secret(name, value):
    """Whether a variable is one that nobody else may read, by its name or by what is in it."""
    return bool(SECRET_NAME.search(name) and not SETTING_NAME.search(name)) or bool(_within(value))


def redact(text, values=None):
    """The text without the values, and without what looks like a secret."""
    return Redactor(values)(text)


def redact_url(text):
    """A source, or any text with URLs in it, without users, passwords and tokens.

    What tells two sources apart stays, so that this may stand for the source in a manifest and its digest.
    """
    return URL.sub(_public_url, text)


def _public_url(match):
    host, path = AUTHORITY.fullmatch(match["rest"]).groups()
    host = host.rpartition("@")[2]
    if not HOST.fullmatch(host) and "@" in path:
        host, path = AUTHORITY.fullmatch(path.rpartition("@")[2]).groups()
    rest = host + path
    at = re.search("[?#]", rest)
    if at:
        rest = rest[: at.start()] + PARAMETER.sub(_public_parameter, rest[at.start() :])
    return f"{match['scheme']}://{rest}"


def _public_parameter(match):
    name, value = unquote(match["name"]), unquote(match["value"])
    harmless = PLAIN_PARAMETER.fullmatch(name) or not (SECRET_PARAMETER.search(name) or TOKEN_LIKE.fullmatch(value))
    return match[0] if harmless else f"{match['begin']}{match['name']}={HIDDEN}"


def _lines(value):
    lines = value.splitlines()
    return [line.strip() for line in lines if re.search(r"\w", line)] if len(lines) > 1 else []


def _within(value):
    """The secrets in a value, whatever it is called: of URLs and their queries, of a DSN, of JSON."""
    found = set(DSN.findall(value))
    for word in re.split(r"[\s,]+", value):
        if "://" in word:
            found |= _within_url(word)
    if value.lstrip()[:1] in {"{", "["}:
        found |= _within_json(value)
    return found


def _within_url(url):
    try:
        parts = urlsplit(url)
        user, password = parts.username or "", parts.password or ""
    except ValueError:
        return set()
    found = {password, unquote(password)}
    if len(user) >= LONG and password in DUMMY_PASSWORDS:
        found |= {user, unquote(user)}
    found.update(text for name, text in parse_qsl(parts.query) if SECRET_NAME.search(name))
    return found - DUMMY_PASSWORDS


def _within_json(value):
    try:
        todo = [("", json.loads(value))]
    except ValueError:
        return set()
    found = set()
    while todo:
        name, item = todo.pop()
        if isinstance(item, dict):
            todo += item.items()
        elif isinstance(item, list):
            todo += [(name, each) for each in item]
        elif isinstance(item, str) and SECRET_NAME.search(name):
            found |= {item, *_lines(item)}
    return found


def _written(text):
    """A value as it is, in JSON, in Python, and in a URL."""
    return {text, json.dumps(text)[1:-1], repr(text)[1:-1], quote(text.encode("utf-8", "surrogateescape"), safe="")}


def _forms(text):
    """A value as it may turn up: plain, in JSON, Python, a URL, HTML, a shell, systemd's files, base64 and hex."""
    data = text.encode("utf-8", "surrogateescape")
    found = _written(text) | {
        json.dumps(text, ensure_ascii=False)[1:-1],
        quote(data, safe="/"),
        quote_plus(data),
        html.escape(text),
        html.escape(text, quote=False),
        html.escape(text).replace("&#x27;", "&#39;"),
        text.replace("'", "'\"'\"'"),
        text.replace("'", "'\\''"),
        re.sub(r"([\"\\`$])", r"\\\1", text),
        re.sub(r"([^\w@%+=:,./-])", r"\\\1", text),
        data.hex(),
        data.hex().upper(),
    }
    found |= {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), form) for form in found if "%" in form}
    for offset in range(3):
        found |= _base64(data, offset)
    # Programs write long ones in lines of 76 characters.
    encoded = base64.b64encode(data).decode()
    found |= {encoded[start : start + 76].rstrip("=")[:-1] for start in range(0, len(encoded), 76)}
    return {form for form in found if len(form) >= LONG}


def _base64(data, offset):
    """Characters of base64 that are these bytes' alone, where `offset` bytes, modulo 3, were encoded before them."""
    encoded = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
    # Of the first character after other bytes, and of the last before others, only some bits are these bytes'.
    first = (0, 2, 3)[offset]
    last = len(encoded) - (1 if (len(data) + offset) % 3 else 0)
    kept = encoded[first:last]
    return {kept, kept.replace("+", "-").replace("/", "_")} if len(kept) >= LONG else set()
