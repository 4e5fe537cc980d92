# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools and files say, as plain data. Pure: no host is touched here."""

from __future__ import annotations

import calendar
import ipaddress
import json
import re
import time
from collections import Counter

TOKEN = re.compile(r"\s+|#[^\n]*|(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[{};]|(?:\$\{\w+\}|[^\s{};\"'\\]|\\.)+)")


# Who may set the clock.
TIME_SERVICES = ("systemd-timesyncd.service", "chrony.service", "ntpsec.service", "openntpd.service")

# -- systemd ----------------------------------------------------------------------------------------------------------


def unit_blocks(text):
    """Units by name, from `systemctl show`."""
    found = {}
    for block in re.split(r"\n\s*\n", text.strip()):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit.get("Id"):
            found[unit["Id"]] = unit
    return found


def number(text):
    """A number as systemd and the kernel write it; None for `infinity`, `[not set]`, `max` and the like."""
    try:
        value = int(text)
    except (TypeError, ValueError):
        return None
    # Not set, or no limit, as the kernel writes it.
    return value if 0 <= value < 1 << 60 else None


def first_column(text):
    """First words of the lines of a table, without the mark of a failed unit."""
    lines = [line.replace("●", " ").replace("*", " ").split() for line in text.splitlines()]
    return [words[0] for words in lines if words]


# -- the kernel -------------------------------------------------------------------------------------------------------


def meminfo(text):
    """/proc/meminfo in bytes."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    return {name: int(value) * 1024 for name, value in found}


def mounts(text):
    """Mounted file systems that hold data, from /proc/self/mountinfo: [(path, type, device)], one for each device.

    Those of the network are left out: one that hangs would hang whoever asks it.
    """
    kinds = re.compile(r"^(ext[234]|xfs|btrfs|f2fs|zfs|overlay|tmpfs|vfat|bcachefs)$")
    found = {}
    for line in text.splitlines():
        left, _dash, right = line.partition(" - ")
        fields, kind = left.split(), right.split()[0] if right else ""
        if len(fields) < 6 or not kinds.match(kind):
            continue
        path = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
        if re.match(r"/(proc|sys|dev)(/|$)", path) and path != "/dev/shm":
            continue
        # Those of containers: what they hold is on the file system below.
        if kind == "overlay" and path != "/":
            continue
        if kind == "tmpfs" and path.startswith(("/run/credentials", "/run/user")):
            continue
        known = found.get(fields[2])
        if known is None or len(path) < len(known[0]):
            found[fields[2]] = (path, kind, fields[2])
    return sorted(found.values())


def locks(text):
    """Files on which a lock is held, from /proc/locks: {(major:minor, inode)}."""
    found = re.findall(r"^\d+: (?!->)\S+\s+\S+\s+\S+\s+-?\d+ ([0-9a-f]+):([0-9a-f]+):(\d+) ", text, re.MULTILINE)
    return {(int(major, 16), int(minor, 16), int(inode)) for major, minor, inode in found}


# -- network ----------------------------------------------------------------------------------------------------------


def listeners(text):
    """Who listens on TCP, from `ss -Hltnp`: [{address, port, processes}]."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 5:
            continue
        address, _colon, port = fields[3].rpartition(":")
        if port.isdigit():
            found.append(
                {
                    "address": address.strip("[]").partition("%")[0] or "*",
                    "port": int(port),
                    "processes": sorted(set(re.findall(r'\("([^"]*)",pid=\d+', line))),
                }
            )
    return found


def addresses(text):
    """The host's addresses, from `ip -json address`."""
    found = []
    for link in json.loads(text or "[]"):
        found.extend(info["local"] for info in link.get("addr_info", []) if info.get("local"))
    return sorted(found)


def is_public(address):
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_global
    except ValueError:
        return False


def closed_ports(ruleset, ports):
    """TCP ports to which nftables lets nobody in, from `nft --json list ruleset`.

    A new connection from anywhere, to each port, is walked through the chains on the hook `input`. A match that is not
    understood (an address, a rate) is taken to let in where it accepts and not to match where it drops: it is
    about some clients only.
    """
    items = ruleset.get("nftables", [])
    chains, rules = {}, {}
    for item in items:
        if "chain" in item:
            chain = item["chain"]
            chains[chain["family"], chain["table"], chain["name"]] = chain
        elif "rule" in item:
            rule = item["rule"]
            rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule.get("expr", []))
    bases = [
        key
        for key, chain in chains.items()
        if chain.get("hook") == "input" and chain.get("type") == "filter" and key[0] in {"inet", "ip"}
    ]
    closed = []
    for port in ports:
        for key in bases:
            verdict = _walk(key, rules, port, 0) or chains[key].get("policy", "accept")
            if verdict == "drop":
                closed.append(port)
                break
    return closed


def _walk(key, rules, port, depth):
    """accept, drop, or None where the chain ends without a verdict."""
    for expressions in rules.get(key, []) if depth < 16 else []:
        match, verdict, target = True, None, None
        for expression in expressions:
            (kind, value), *_rest = expression.items()
            if kind == "match":
                found = _matches(value, port)
                match = found if match is True or found is False else match
            elif kind in {"accept", "drop", "return", "reject"}:
                verdict = "drop" if kind == "reject" else kind
            elif kind in {"jump", "goto"}:
                target = (*key[:2], value["target"])
            elif kind not in {"counter", "log", "comment"}:
                match = None if match is True else match  # a limit, a quota: for some
        if match is False:
            continue
        if target:
            verdict = _walk(target, rules, port, depth + 1)
        if verdict == "return":
            return None
        if verdict == "accept" or (verdict == "drop" and match is True):
            return verdict
    return None


def _matches(match, port):
    """True, False, or None where it is not known."""
    left, right, inverted = match.get("left"), match.get("right"), match.get("op") == "!="
    if not isinstance(left, dict):
        return None
    found = None
    if left == {"payload": {"protocol": "tcp", "field": "dport"}}:
        found = _in(port, right)
    elif left.get("payload", {}).get("protocol") in {"icmp", "icmpv6", "udp"}:
        found = False
    elif left.get("payload", {}).get("field") in {"sport", "dport"}:
        found = False  # of another protocol, or a source port of the client's choice
    elif left == {"ct": {"key": "state"}}:
        found = _in("new", right)
    elif left in ({"meta": {"key": "iifname"}}, {"meta": {"key": "iif"}}):
        found = False if right == "lo" else None
    elif left == {"meta": {"key": "l4proto"}}:
        found = _in("tcp", right)
    elif left in ({"meta": {"key": "protocol"}}, {"meta": {"key": "nfproto"}}):
        found = _in("ip", right) or _in("ipv4", right)
    return found if found is None or not inverted else not found


def _in(value, right):
    if isinstance(right, dict) and "set" in right:
        return any(_in(value, item) for item in right["set"])
    if isinstance(right, dict) and "range" in right:
        return isinstance(value, int) and right["range"][0] <= value <= right["range"][1]
    if isinstance(right, list):
        return any(_in(value, item) for item in right)
    if isinstance(right, str) and right.startswith("@"):
        return None
    return value == right


# -- certificates -----------------------------------------------------------------------------------------------------


def openssl_time(text):
    """`Nov 22 21:46:21 2026 GMT` in seconds since the epoch, or None."""
    try:
        return calendar.timegm(time.strptime(text.strip(), "%b %d %H:%M:%S %Y GMT"))
    except ValueError:
        return None


def certificate(text):
    """What `openssl x509 -noout -dates -issuer -subject -ext subjectAltName -serial -nameopt RFC2253` says."""
    fields = dict(re.findall(r"^(\w+) ?=\s*(.*)$", text, re.MULTILINE))
    return {
        "begins": openssl_time(fields.get("notBefore", "")),
        "ends": openssl_time(fields.get("notAfter", "")),
        "issuer": fields.get("issuer", ""),
        "self_signed": bool(fields.get("issuer")) and fields.get("issuer") == fields.get("subject"),
        "names_of": re.findall(r"\bDNS:([^\s,]+)", text),
    }


def is_for(name, names):
    """Whether a certificate for these names is good for the name: RFC 6125, a wildcard stands for one label."""
    name = name.lower().rstrip(".")
    return any(
        pattern == name or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:] and "." in name)
        for pattern in (item.lower() for item in names)
    )


# -- nginx ------------------------------------------------------------------------------------------------------------


def nginx_blocks(text):
    """A configuration as [(words, blocks or None)]. What is not closed ends with the file."""
    root = []
    stack, words = [root], []
    for match in TOKEN.finditer(text):
        token = match.group(1)
        if token is None:
            continue
        if token == ";":
            stack[-1].append((words, None))
            words = []
        elif token == "{":
            inner = []
            stack[-1].append((words, inner))
            stack.append(inner)
            words = []
        elif token == "}":
            words = []
            if len(stack) > 1:
                stack.pop()
        else:
            words = [*words, token[1:-1] if token[0] in "\"'" and len(token) > 1 else token]
    return [(words, inner) for words, inner in root if words]


def directives(blocks, name):
    """All directives of a name, at any depth: [(words, inner blocks)]."""
    found = []
    for words, inner in blocks:
        if words and words[0] == name:
            found.append((words, inner))
        found.extend(directives(inner or [], name))
    return found


LOCAL = ("127.", "[::1]", "localhost")


def nginx_site(text):
    """What a file of a site says: names, ports, certificates, upstreams, where requests are passed to, and logs."""
    blocks = nginx_blocks(text)
    servers = []
    for _words, inner in directives(blocks, "server"):
        if inner is None:
            continue
        names = [name for words, _inner in inner if words[0] == "server_name" for name in words[1:]]
        listens = [words[1:] for words, _inner in inner if words[0] == "listen" and len(words) > 1]
        tcp = {words[0]: _port(words[0]) for words in listens if "quic" not in words and _port(words[0])}
        single = {words[0]: words[1] for words, _inner in inner if len(words) == 2}
        servers.append(
            {
                "names": [name for name in names if name != "_" and not name.startswith("~")],
                "ports": sorted(set(tcp.values())),
                # A firewall has no say in who reaches a loopback address.
                "outer_ports": sorted({port for address, port in tcp.items() if not address.startswith(LOCAL)}),
                "tls_ports": sorted({_port(words[0]) for words in listens if "ssl" in words and _port(words[0])}),
                "proxy_protocol": any("proxy_protocol" in words for words in listens),
                "certificate": single.get("ssl_certificate", ""),
                "key": single.get("ssl_certificate_key", ""),
            }
        )
    upstreams = {
        words[1]: sorted({inner_words[1] for inner_words, _none in inner if inner_words[0] == "server"})
        for words, inner in directives(blocks, "upstream")
        if inner is not None and len(words) > 1
    }
    logs = [words[1] for name in ("access_log", "error_log") for words, _inner in directives(blocks, name)]
    passes = {words[1] for words, _inner in directives(blocks, "proxy_pass") if len(words) > 1}
    return {
        "servers": servers,
        "upstreams": upstreams,
        "proxies": sorted(re.sub(r"^https?://([^/]+).*", r"\1", target) for target in passes),
        "logs": sorted({path for path in logs if path.startswith("/") and "$" not in path}),
        "access_logs": sorted(
            {words[1] for words, _inner in directives(blocks, "access_log") if words[1:2] != ["off"]}
        ),
    }


def paths(text):
    """Absolute paths in a configuration, those of sockets too."""
    return set(re.findall(r"(?:^|[\s\"':])(/[^\s;\"'{}$:]+)", text, re.MULTILINE))


def _port(address):
    if address.startswith("unix:"):
        return 0
    tail = address.rpartition(":")[2] if ":" in address and not address.endswith("]") else address
    return int(tail) if tail.isdigit() else 80


def traffic(lines, since, ignored_agent=""):
    """What nginx's JSON log says of the requests that ended since a moment, in seconds since the epoch."""
    statuses, seconds, failed, broken = Counter(), [], Counter(), 0
    for line in lines:
        try:
            entry = json.loads(line)
            ended, status = float(entry["msec"]), int(entry["status"])
        except (ValueError, KeyError, TypeError):
            broken += bool(line.strip())
            continue
        if ended < since or (ignored_agent and ignored_agent in entry.get("user_agent", "")):
            continue
        statuses[status] += 1
        if status >= 500:
            failed[f"{status} {entry.get('method', '')} {entry.get('uri', '').partition('?')[0]}"] += 1
        # Several tries are joined with commas; the last one answered.
        last = str(entry.get("upstream_response_time", "")).replace(":", ",").rpartition(",")[2].strip()
        # A WebSocket or an event stream takes as long as its client likes.
        if re.match(r"^\d+\.\d+$", last) and status != 101:
            seconds.append(float(last))
    seconds.sort()
    total = sum(statuses.values())
    return {
        "requests": total,
        "failed": sum(count for status, count in statuses.items() if status >= 500),
        "gateway": statuses[502] + statuses[504],
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "worst": [f"{count} x {what}" for what, count in failed.most_common(3)],
        "p95": seconds[int(len(seconds) * 0.95)] if seconds else None,
        "upstream_requests": len(seconds),
        "unreadable": broken,
    }


# -- journal ----------------------------------------------------------------------------------------------------------

TIMEOUT = re.compile(r"WORKER TIMEOUT")
# Not SIGTERM and SIGQUIT, with which gunicorn itself stops workers; a timeout ends in SIGABRT and is counted as such.
CRASH = re.compile(
    r"Worker \(pid:\d+\) (?:exited with code [1-9]\d*|was sent SIG(?!TERM|QUIT|INT|ABRT|HUP)\w+!)"
    r"|Exception in worker process|Worker failed to boot"
)
MISSING_VARIABLE = re.compile(
    r"KeyError: '([A-Z][A-Z0-9_]+)'|([A-Z][A-Z0-9_]+) (?:environment variable )?(?:is not set|is missing|must be set)"
)
OOM_MESSAGE_IDS = ("fe6faa94e7774663a0da52717891d8ef", "d989611b15e44c9dbf31e3c81256e4ed")
PRIORITIES = {"EMERGENCY": 0, "ALERT": 1, "CRITICAL": 2, "ERROR": 3, "WARNING": 4, "NOTICE": 5, "INFO": 6, "DEBUG": 7}


def journal(text):
    """Entries of `journalctl -o json`: [{unit, time, priority, message, trace, id}]."""
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if not isinstance(entry, dict):
            continue
        said = {key: _field(value) for key, value in entry.items()}
        message, priority, trace = _message(said.get("MESSAGE", ""), number(said.get("PRIORITY")))
        # Any process may send these fields. The journal knows which one it was: only systemd speaks of others.
        of_systemd = said.get("_PID") == "1"
        unit = (said.get("UNIT") if of_systemd else "") or said.get("_SYSTEMD_UNIT", "")
        found.append(
            {
                "unit": unit,
                "source": said.get("_COMM") or said.get("SYSLOG_IDENTIFIER", ""),
                "time": (number(said.get("__REALTIME_TIMESTAMP")) or 0) / 1e6,
                "priority": priority,
                "message": message,
                "trace": trace,
                "id": said.get("MESSAGE_ID", "") if of_systemd else "",
            }
        )
    return found


def _field(value):
    """A field as text: bytes that are no text are a list of numbers, a field that was sent twice a list of texts."""
    if isinstance(value, list) and value and all(isinstance(item, int) and 0 <= item < 256 for item in value):
        return bytes(value).decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return _field(value[0]) if value else ""
    return value if isinstance(value, str) else ""


def _message(message, priority):
    """Of a JSON line of an app its message, its level and its traceback."""
    try:
        entry = json.loads(message) if message.startswith("{") else None
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        return message, 6 if priority is None else priority, ""
    text = entry.get("message", entry.get("event", entry.get("msg", message)))
    trace = entry.get("exc_info") or entry.get("exception") or entry.get("traceback") or ""
    level = PRIORITIES.get(str(entry.get("level", "")).upper(), 6 if priority is None else priority)
    return str(text), level, str(trace)


def app_journal(entries):
    """What the journal of an app tells: timeouts, crashes, OOM kills, missing variables, and its last errors."""
    texts = [entry["message"] + "\n" + entry["trace"] for entry in entries]
    errors = [entry for entry in entries if entry["priority"] <= 3]
    last = {_headline(entry): entry["time"] for entry in errors}
    variables = [next(filter(None, found)) for text in texts for found in MISSING_VARIABLE.findall(text)]
    return {
        "timeouts": sum(bool(TIMEOUT.search(text)) for text in texts),
        "crashes": sum(bool(CRASH.search(text)) for text in texts),
        "oom_kills": sum(entry["id"] in OOM_MESSAGE_IDS for entry in entries),
        "missing": sorted(set(variables)),
        "errors": [text for text, _time in sorted(last.items(), key=lambda item: item[1])][-5:],
    }


def _headline(entry):
    """A message with the last line of its traceback, on one line."""
    trace = entry["trace"].strip().splitlines()
    text = " ".join(entry["message"].split())
    return f"{text} | {trace[-1].strip()}" if trace else text


def history(text, count=5):
    """The last deploys and rollbacks, the newest last."""
    found = []
    for line in text.splitlines()[-count:]:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def utc(text):
    """A time as RFC 3339 writes it, in seconds since the epoch, or None."""
    try:
        return calendar.timegm(time.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
