# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units as data: their text, their sandbox, and what systemd thinks of them before they are installed.

Where a function takes `run`, it is AnsibleModule.run_command or one like it: run(argv, environ_update=...) returns the
exit code, the output and the errors.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import tempfile

# What every profile closes. Measured by `systemd-analyze security`, with gunicorn and uvicorn workers running in it.
SANDBOX = {
    "AmbientCapabilities": "",
    "CapabilityBoundingSet": "",
    "DevicePolicy": "closed",
    # D-Bus has systemd tell the command lines and environments of all units, and take orders.
    "InaccessiblePaths": "-/run/dbus",
    "KeyringMode": "private",
    "LockPersonality": True,
    "MemoryDenyWriteExecute": True,
    "NoNewPrivileges": True,
    "PrivateDevices": True,
    "PrivateIPC": True,
    "PrivateTmp": True,
    "PrivateUsers": True,
    "ProcSubset": "pid",
    "ProtectClock": True,
    "ProtectControlGroups": True,
    "ProtectHome": True,
    "ProtectHostname": True,
    "ProtectKernelLogs": True,
    "ProtectKernelModules": True,
    "ProtectKernelTunables": True,
    # With PrivateUsers, PID 1 needs CAP_SYS_PTRACE to set this up: hosts have it, Docker leaves it out.
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    # With some of the others, ProtectSystem=strict leaves this directory open to everybody (systemd 252 and 257).
    "ReadOnlyPaths": "-/run/lock",
    "RemoveIPC": True,
    "RestrictNamespaces": True,
    "RestrictRealtime": True,
    "RestrictSUIDSGID": True,
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
    "SystemCallFilter": ["@system-service", "~@privileged @resources"],
    # As PrivateTmp, for shared memory: names there are anybody's to take, and its size is one for all.
    "TemporaryFileSystem": "/dev/shm:mode=1777,nosuid,nodev",
    "UMask": "0077",
}

PROFILES = {
    # unix sockets only
    "strict": {
        **SANDBOX,
        "IPAddressDeny": "any",
        "PrivateNetwork": True,
        "RestrictAddressFamilies": "AF_UNIX",
    },
    # and TCP and UDP to this host
    "localhost": {
        **SANDBOX,
        "IPAddressAllow": "localhost",
        "IPAddressDeny": "any",
        "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    },
    # and to any other
    "network": {
        **SANDBOX,
        "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    },
}
NO_PROFILE = "none"

ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
# systemd drops an assignment that has a control character other than tab and newline.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# A backslash that no other one escapes joins a line with the next.
LINE_END = re.compile(r"[\n\r\0]|(?<!\\)(?:\\\\)*\\\Z")
# The name of a section or of a directive.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
EXPOSURE = re.compile(r"^→?\s*Overall exposure level for .*?: ([0-9]+(?:\.[0-9]+)?)", re.MULTILINE)
UNKNOWN_KEY = re.compile(r"Unknown key(?: name)? '(?P<key>[^']+)' in section '?\[?(?P<section>[^'\]]+)")
UNKNOWN_SECTION = re.compile(r"Unknown section '?\[?(?P<section>[^'\]]+)")
MISSING_COMMAND = re.compile(r"Command (?P<command>.+?) is not executable: No such file or directory")
QUIET = {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_LOG_COLOR": "0", "SYSTEMD_PAGER": ""}


# -- text -------------------------------------------------------------------------------------------------------------


def text(value):
    """A single value as systemd writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    value = str(value)
    if not is_one_line(value):
        raise ValueError("a directive's value has one line")
    return value


def checked_name(value):
    """The name of a section or of a directive, as it is."""
    if not NAME.fullmatch(str(value)):
        raise ValueError(f"{value!r} is not the name of a section or directive")
    return value


def is_one_line(value):
    """Whether systemd reads a value as one line: it also ends lines at CR and NUL, and joins lines at a backslash."""
    return not LINE_END.search(value)


def render(sections, header=""):
    """A unit's text. A list gives a directive several times; an empty string resets it; null leaves it out."""
    lines = [f"# {line}" for line in header.splitlines()]
    for section, directives in sections.items():
        if lines:
            lines.append("")
        lines.append(f"[{checked_name(section)}]")
        for key, value in directives.items():
            checked_name(key)
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if item is not None:
                    lines.append(f"{key}={text(item)}")
    return "\n".join(lines) + "\n"


def apply_profile(sections, profile):
    """The sections with a profile's sandbox below them: a directive that the unit sets itself stays as it is."""
    if not profile or profile == NO_PROFILE:
        return sections
    service = sections.get("Service") or {}
    closed = {key: value for key, value in PROFILES[profile].items() if key not in service}
    # What a unit closes by itself is closed besides; an empty list opens it.
    own = service.get("InaccessiblePaths")
    if own is None or own not in ([], ""):
        paths = own if isinstance(own, (list, tuple)) else [own]
        closed["InaccessiblePaths"] = [*filter(None, paths), PROFILES[profile]["InaccessiblePaths"]]
    return {**sections, "Service": {**service, **closed}}


def escape(value):
    """Text for a directive in which systemd expands specifiers."""
    return str(value).replace("%", "%%")


def quote(value):
    """One word of a directive that takes several, such as Environment= or ExecStart=, as it is given."""
    value = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    value = value.replace("\r", "\\r").replace("\t", "\\t")
    return f'"{escape(value)}"'


def env_file(variables):
    """The text of an EnvironmentFile from which systemd reads exactly these values.

    Between double quotes everything stands for itself but the four characters that a backslash escapes there; systemd
    expands neither variables nor specifiers in these files.
    """
    lines = []
    for name, value in variables.items():
        if not isinstance(name, str) or not ENV_NAME.match(name):
            raise ValueError(f"{name!r} is no name for an environment variable")
        value = env_value(value)
        if CONTROL.search(value):
            raise ValueError(f"the value of {name} has a control character, with which systemd would drop it")
        lines.append('{}="{}"'.format(name, re.sub(r'(["\\`$])', r"\\\1", value)))
    return "".join(f"{line}\n" for line in lines)


def env_value(value):
    """A value as an environment holds it; booleans as YAML writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


# -- systemd's opinion ------------------------------------------------------------------------------------------------


class Staged:
    """Units in a directory of their own, under the names they will have; for use in a with statement."""

    def __init__(self, files):
        self.files = files

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="fastapi-units-")
        for name, content in self.files.items():
            with open(os.path.join(self.directory, name), "w", encoding="utf-8") as stream:
                stream.write(content)
        return self

    def __exit__(self, *unused):
        shutil.rmtree(self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)


def verify(files, run):
    """What `systemd-analyze verify` finds wrong with the units, as lines `unit:line: text`; nothing is installed.

    :arg files: the units' texts by name. What they refer to is looked up among them, then on the host.
    """
    return [finding["text"] for finding in findings(files, run)]


def findings(files, run):
    """As verify(), as dicts with text, unit, and section, key or command where the finding is about one."""
    if not files:
        return []
    with Staged(files) as staged:
        argv = ["systemd-analyze", "verify", "--man=no", "--generators=no"] + [staged.path(name) for name in files]
        code, out, err = run(argv, environ_update=QUIET)
        lines = [line.strip().replace(staged.directory + "/", "") for line in (err + out).splitlines() if line.strip()]
    # The exit code alone tells little: with an unknown key it is 0, and units of the host that ours refer to count too.
    ours = [line for line in lines if line.startswith(tuple(name + ":" for name in files))]
    found = [_finding(line) for line in dict.fromkeys(ours)]
    if code != 0 and not found:
        found = [_finding(line) for line in lines or ["systemd-analyze verify failed without a word"]]
    return found


def _finding(line):
    finding = {"text": line, "unit": line.partition(":")[0]}
    for pattern in (UNKNOWN_KEY, UNKNOWN_SECTION, MISSING_COMMAND):
        match = pattern.search(line)
        if match:
            finding.update(match.groupdict())
            break
    return finding


def exposure(name, files, run):
    """The exposure of a service by `systemd-analyze security`, 0 (closed) to 10 (open); nothing is installed."""
    with Staged(files) as staged:
        argv = ["systemd-analyze", "security", "--offline=yes", "--no-pager", staged.path(name)]
        _code, out, err = run(argv, environ_update=QUIET)
    match = EXPOSURE.search(out)
    if not match:
        raise ValueError(f"systemd-analyze security says nothing about {name}: {(err or out).strip()}")
    return float(match.group(1))


def known_directives(run):
    """The directives that this systemd knows, by section; empty where it does not tell."""
    for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd"):
        if os.path.exists(path):
            break
    else:
        return {}
    code, out, _err = run([path, "--dump-configuration-items"], environ_update=QUIET)
    known, section = {}, None
    for line in out.splitlines() if code == 0 else []:
        if line.startswith("["):
            section = known.setdefault(line.strip("[] \t"), [])
        elif "=" in line and section is not None:
            section.append(line.partition("=")[0])
    return known


def nearest(key, section, known):
    """The directive of the section that a wrong one was probably meant to be, or None."""
    plain = {_plain(name): name for name in known.get(section, [])}
    found = difflib.get_close_matches(_plain(key), list(plain), 1, 0.7)
    return plain[found[0]] if found else None


def _plain(key):
    return re.sub(r"[^a-z0-9]", "", key.lower())
