# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the values of options end up, and what each place takes: one function per destination.

A destination takes a value and returns None, or a Fault: what is wrong, and how to fix it. Which option ends up where
is in option_destinations; `spec` applies both to every value that it checks. A value that a destination lets through
stands for one value there: it ends no string, line, directive or list, and brings no variable, specifier or template
along.

Two mistakes are avoided throughout: a dollar sign in a pattern also matches before a newline at the end, and the
classes for digits and letters match more than ASCII. Patterns are therefore matched in full, and in ASCII.
"""

from __future__ import annotations

import difflib
import ipaddress
import posixpath
import re
from typing import NamedTuple

from ansible_collections.daoman.fastapi.plugins.module_utils._host import release, systemd

# struct sockaddr_un holds 108 bytes with the closing zero.
LONGEST_SOCKET = 107
# nginx reads its configuration through a buffer of 4096 bytes, which one word has to fit with its quotes and escapes.
LONGEST_NGINX = 4000
# NAME_MAX of Linux, with room for what is appended, and PATH_MAX.
LONGEST_NAME = 200
LONGEST_PATH = 4000
# Variables of nginx that no client decides about.
NGINX_VARIABLES = frozenset([
    *("error_advice", "error_title", "host", "hostname", "msec", "request_id", "request_time", "safe_request_id"),
    *("scheme", "server_name", "server_port", "ssl_cipher", "ssl_protocol", "status", "time_iso8601"),
    "upstream_cache_status",
])
# What ends or splits a word of nginx's configuration, or is replaced in it.
NGINX_SPECIAL = "\"';{}$\\"
# Set by systemd or by the unit itself; another value would break the start.
RESERVED_ENV = {
    "GUNICORN_CMD_ARGS": "It would override gunicorn.conf.py: use the options under 'gunicorn'",
    "INVOCATION_ID": "systemd sets it",
    "JOURNAL_STREAM": "systemd sets it",
    "LISTEN_FDNAMES": "systemd sets it",
    "LISTEN_FDS": "systemd sets it",
    "LISTEN_PID": "systemd sets it",
    "LISTEN_PIDFDID": "systemd sets it",
    "MAINPID": "systemd sets it",
    "NOTIFY_SOCKET": "systemd sets it",
    "WATCHDOG_PID": "systemd sets it",
    "WATCHDOG_USEC": "systemd sets it",
}
# Those that hold what is not the app's.
SYSTEM_DIRECTORIES = frozenset([
    *("/", "/boot", "/dev", "/etc", "/home", "/opt", "/proc", "/root", "/run", "/srv", "/sys", "/tmp", "/usr", "/var"),
    *("/var/lib", "/var/log", "/var/cache", "/var/tmp"),
])
NEVER_PUBLISHED = ("/boot/", "/dev/", "/etc/", "/proc/", "/root/", "/run/", "/sys/", "/var/log/")


class Fault(NamedTuple):
    """What is wrong with a value, and how to fix it."""

    text: str
    fix: str = ""


class Secret:
    """A destination whose values are not shown in messages."""

    secret = True

    def __init__(self, destination):
        self.destination = destination

    def __call__(self, value):
        return self.destination(value)

    def __deepcopy__(self, memo):
        return self


class Raw:
    """Text that stands in a file as it is given: configuration or code, which its owner writes. `reason` says why."""

    def __init__(self, reason):
        self.reason = reason

    def __deepcopy__(self, memo):
        return self

    def __call__(self, value):
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            return Fault("has a character that no text file holds")
        return None


class Data(Raw):
    """A structure that is written as JSON or YAML by a serialiser and checked by the program that reads it."""


def or_nothing(destination):
    """The same, for an option whose empty value means something else than its default."""
    return lambda value: destination(value) if value else None


def matching(pattern, text, fix="", longest=LONGEST_PATH):
    """A destination whose values match a pattern in full."""
    compiled = re.compile(pattern, re.ASCII)

    def destination(value):
        value = str(value)
        fits = len(value) <= longest and value.isprintable() and compiled.fullmatch(value)
        return None if fits else Fault(text, fix)

    return destination


# -- text -------------------------------------------------------------------------------------------------------------


def one_line(value):
    """Text on one line: no control characters, line separators, or marks that change the direction of text."""
    if not value.isprintable():
        return Fault("has a line break or another control character")
    return None if len(value) <= LONGEST_PATH else Fault(f"is longer than {LONGEST_PATH} characters")


def word(value):
    """Text on one line without spaces, such as a token or a password on a line of its own."""
    if re.search(r"\s", value):
        return Fault("has a blank or a line break")
    return one_line(value) if value else Fault("is empty")


def lines(value):
    """Text on several lines, such as a banner or a key."""
    if not value.replace("\n", "").replace("\t", "").isprintable():
        return Fault("has a control character")
    return None


def command(value):
    """A command that a shell runs as the app's user. What it does is the owner's choice."""
    if not value.strip():
        return Fault("is empty")
    return Fault("has a control character") if lines(value) else None


def label_value(value):
    """The value of a label or of a field that Prometheus and Alertmanager expand as a Go template."""
    value = str(value)
    if "{{" in value:
        return Fault("has '{{', which starts a template")
    return one_line(value)


# -- names ------------------------------------------------------------------------------------------------------------

app_name = matching(
    release.APP_NAME.pattern, "is not a valid app name",
    "Lower-case letters, digits and dashes, starting with a letter, at most 31 characters")
site_name = matching(
    r"[a-z][a-z0-9-]*", "is not a valid site name", "Lower-case letters, digits and dashes, starting with a letter",
    LONGEST_NAME)
file_name = matching(
    r"[A-Za-z0-9][A-Za-z0-9._-]*", "is not a valid file name", "Letters, digits, dots, dashes and underscores",
    LONGEST_NAME)
rule_file = matching(
    r"[A-Za-z0-9][A-Za-z0-9_-]*", "is not a valid name of a rule file", "Letters, digits, dashes and underscores",
    LONGEST_NAME)
extra_name = matching(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", "is not a valid name of an extra or a dependency group",
    "As in pyproject.toml", LONGEST_NAME)
user_name = matching(r"[a-z_][a-z0-9_-]{0,31}", "is not a valid user or group name", "For example: releaser")
http_user = matching(r"[A-Za-z0-9._-]+", "is not a valid user name", "Letters, digits, dots, dashes and underscores")
module_name = matching(r"[A-Za-z0-9_][A-Za-z0-9_-]*", "is not a valid name of a kernel module", "For example: dccp")
sysctl_name = matching(
    r"[A-Za-z0-9_][A-Za-z0-9_.*/-]*", "is not a valid name of a kernel setting", "For example: net.ipv4.tcp_syncookies")
label_name = matching(r"[a-zA-Z_]\w*", "is not a valid label name", "Letters, digits and underscores")
group_label = matching(r"[a-zA-Z_]\w*|\.\.\.", "is not a valid label name", "Letters, digits and underscores")
package = matching(
    r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?([=/][A-Za-z0-9][A-Za-z0-9.+~:-]*)?", "is not a valid Debian package name",
    "For example: libpq5")
package_pattern = matching(
    r'[^"\s]+', "is not a regular expression for package names", "For example: ^postgresql-")
certbot_plugin = matching(
    r"[a-z0-9]+(-[a-z0-9]+)*", "is not a valid name of a certbot plugin", "For example: cloudflare", LONGEST_NAME)
acme_profile = matching(r"[A-Za-z0-9][A-Za-z0-9._-]*", "is not a valid name of a profile", "For example: shortlived")
section_name = matching(r"[A-Za-z][A-Za-z0-9-]*", "is not a valid name of a section")
directive_name = matching(r"[A-Za-z][A-Za-z0-9-]*", "is not a valid name of a directive")
sshd_pattern = matching(
    r"[A-Za-z0-9_*?][A-Za-z0-9_.@*?:/+$-]*", "is not a user, a group or a pattern for one", "Give one per element",
    LONGEST_NAME)
python_object = matching(
    r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "is not a worker class", "For example: uvicorn_worker.UvicornWorker")


def unit_name(value):
    """The name of a unit, with its kind."""
    kinds = ("automount", "mount", "path", "service", "slice", "socket", "swap", "target", "timer")
    stem, _dot, kind = value.rpartition(".")
    if re.fullmatch(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?", stem) and len(value) <= LONGEST_NAME:
        if kind in kinds:
            return None
        close = difflib.get_close_matches(kind, kinds, 1)
        if close:
            return Fault("is not a valid unit name", f"Did you mean '{stem}.{close[0]}'?")
    return Fault("is not a valid unit name", "For example: worker.service")


def app_object(value):
    """What gunicorn imports: module:attribute, or a call that makes the app."""
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(.*\))?", value):
        return one_line(value)
    return Fault("is not module:attribute", "For example: app.main:app")


def env_name(value):
    """The name of a variable in the environment of an app, a build or certbot."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        return Fault("is not a valid name of an environment variable", "Use letters, digits and underscores")
    return Fault("cannot be set", RESERVED_ENV[value]) if value in RESERVED_ENV else None


def env_value(value):
    """The value of a variable in a file that systemd reads, or in the environment of a process."""
    if value is None:
        return Fault("is empty", 'Write "" for an empty value, or leave the line out')
    if isinstance(value, (dict, list, tuple)):
        return Fault("is not a single value", "Encode it, for example with to_json")
    if re.search("[\ud800-\udfff]", str(value)) or systemd.CONTROL.search(str(value)):
        return Fault("has a control character, with which systemd would drop it")
    return None


# -- hosts, addresses, URLs -------------------------------------------------------------------------------------------

LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9_.-]*)"
host = matching(
    r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", "is not a host name or address",
    "For example: mail.example.com", 253)
mail_address = matching(r"[A-Za-z0-9_][^@\s<>,\"';{}]*@[A-Za-z0-9][^@\s<>,\"';{}]*", "is not an e-mail address",
                        "For example: ops@example.com", 254)
forwarded_allow_ips = matching(
    r"\*|[0-9A-Fa-f:./]+(, ?[0-9A-Fa-f:./]+)*", "is not '*' or a comma-separated list of addresses",
    "For example: 127.0.0.1,::1")


def domain(value):
    """A host name that nginx serves and a certificate can hold."""
    name = value.lower()
    if "/" in name:
        return Fault("is not a host name", "Give the name only, without scheme and path")
    if "*" in name:
        return Fault("is a wildcard, for which no certificate is issued over HTTP",
                     "List the names, or prove them by DNS")
    if ":" in name:
        return Fault("is not a host name", "Give the name only, without a port")
    if not name.isascii():
        return Fault("is not ASCII", "Write it in its punycode form (xn--...)")
    if name.endswith("."):
        return Fault("ends with a dot", "Leave it out")
    if len(name) > 253 or not all(re.fullmatch(LABEL, label) for label in name.split(".")):
        return Fault("is not a valid host name")
    return None


def domain_or_wildcard(value):
    """The same, or a wildcard for one label."""
    return domain(value[2:] if value.startswith("*.") else value)


def full_domain(value):
    """A host name with a dot."""
    fault = domain(value)
    return fault or (None if "." in value else Fault("is not the full name of a site", "For example: m.example.com"))


def address(value):
    """An IP address."""
    return _ip(value, ipaddress.ip_address, "is not an IP address", "For example: 10.0.0.7")


def network(value):
    """An address or a network whose host bits are 0, as nginx wants it."""
    return _ip(value, ipaddress.ip_network, "is not an address or a network", "For example: 192.0.2.0/24")


def any_network(value):
    """An address or a network; host bits do not count."""
    return _ip(value, lambda text: ipaddress.ip_network(text, strict=False), "is not an address or a network",
               "For example: 192.0.2.0/24")


def network_or_host(value):
    """What the controller resolves to addresses."""
    return host(value) if any_network(value) else None


def _ip(value, kind, text, fix):
    # ipaddress takes any text after '%' as the zone of an IPv6 address.
    try:
        if not re.fullmatch(r"[0-9A-Fa-f.:/]+", value):
            raise ValueError("has a character that no address has")
        kind(value)
    except ValueError as error:
        return Fault(text, str(error) if "host bits" in str(error) else fix)
    return None


def endpoint(value):
    """host:port."""
    match = re.fullmatch(HOST + r":(\d{1,5})", value, re.ASCII)
    if match and 0 < int(match[2]) < 65536:
        return None
    return Fault("must be a host and a port", "For example: 10.0.0.5:9187")


def peer(value):
    """host or host:port, in nginx's configuration."""
    return None if re.fullmatch(HOST, value, re.ASCII) or not endpoint(value) else Fault("is not host or host:port")


def server_address(value):
    """An address that nginx connects to or listens on."""
    if value.startswith("unix:"):
        return socket_path(value[len("unix:"):])
    return Fault("is not host:port or unix:/path") if peer(value) else None


def socket_path(value):
    """A unix socket."""
    if not value.startswith("/"):
        return Fault("must be an absolute path")
    if len(value.encode("utf-8", "replace")) > LONGEST_SOCKET:
        return Fault(f"is longer than {LONGEST_SOCKET} bytes, the maximum for a socket")
    return host_path(value)


URL = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.?|\[[0-9A-Fa-f:.]+\]"


def _url(schemes, rest, text, fix):
    return matching(rf"({schemes})://([^\s/@\"'\\{{}}<>]*@)?({URL})(:\d{{1,5}})?{rest}", text, fix)


# Neither blanks and quotes nor '{', which starts a template in the texts of alerts.
https_url = _url("https", r"(/[!#$%&()*+,./0-9:;=?@A-Z_a-z~\[\]-]*)?", "is not an https URL",
                 "For example: https://example.com/path")
http_url = _url("https?", r"([/?][!#$%&()*+,./0-9:;=?@A-Z_a-z~\[\]'-]*)?", "is not an http or https URL",
                "For example: https://example.com/path")
acme_server = _url("https", r"/[!#$%&()*+,./0-9:;=?@A-Z_a-z~-]*", "is not the directory of an ACME server",
                   "For example: https://acme.example.com/directory")
# Words of an Exec line: systemd expands '%' and '$' there.
exec_url = matching(rf"https?://({URL})(:\d{{1,5}})?/[A-Za-z0-9._~/-]*", "is not a plain http or https URL",
                    "For example: http://127.0.0.1:8099/stub_status")


def redirect_target(value):
    """A path of the site or a URL, after nginx's `return`."""
    if not re.match(r"(/(?![/\\])|https?://[^/])", value):
        return Fault("is not a path of this site or a URL")
    return nginx_word(value)


def key_or_url(value):
    """An OpenPGP key as text, or where to fetch it."""
    return lines(value) if value.startswith("-----BEGIN ") else https_url(value)


# -- paths ------------------------------------------------------------------------------------------------------------


def path_text(value):
    """What any path must be: one line, without '..', no longer than the kernel takes."""
    if not value.isprintable():
        return Fault("has a line break or another control character")
    if ".." in value.split("/"):
        return Fault("must not contain '..'")
    if len(value.encode("utf-8")) > LONGEST_PATH:
        return Fault(f"is longer than {LONGEST_PATH} bytes")
    return None


def host_path(value):
    """An absolute path on the host that a program, a unit and nginx can take as one word."""
    if not value.startswith("/"):
        return Fault("must be absolute", "Start it with '/'")
    return path_text(value) or _path_word(value)


def _path_word(value):
    if re.search(rf"[\s%{re.escape(NGINX_SPECIAL)}]", value):
        return Fault(f"has a space or one of {' '.join(NGINX_SPECIAL)} %")
    return None


def source_path(value):
    """A path inside an app's source."""
    if value.startswith("/"):
        return Fault("must be relative to the source")
    if ".." in value.split("/"):
        return Fault("must not leave the source")
    if not value or value.startswith("-"):
        return Fault("is not a path inside the source")
    return path_text(value) or _path_word(value)


def published_path(value):
    """A directory of the host that nginx serves."""
    path = _normal(value)
    if path in SYSTEM_DIRECTORIES or path.startswith(NEVER_PUBLISHED):
        return Fault("would publish a system directory", "Name one that holds nothing but public files")
    return host_path(value)


def served_directory(value):
    """A directory that nginx serves: of the host, or inside an app's source."""
    return published_path(value) if value.startswith("/") else source_path(value)


def writable_path(value):
    """A directory in ReadWritePaths=, which systemd splits at blanks."""
    if _normal(value) in SYSTEM_DIRECTORIES:
        return Fault("would open a system directory", "Name one below it")
    return host_path(value)


def _normal(path):
    return re.sub("/+", "/", posixpath.normpath(path))


def mount_path(value):
    """A mount point, as a word of an Exec line."""
    if not isinstance(value, str) or not re.fullmatch(r"/[A-Za-z0-9_./-]*", value):
        return Fault("is not a path of a mount", "For example: /dev/shm")
    return path_text(value)


def mount_options(value):
    """Options of a mount."""
    known = ("nosuid", "nodev", "noexec")
    if not isinstance(value, list) or not value:
        return Fault("is not a list of options", "For example: [nosuid, nodev]")
    return Fault(f"has others than {', '.join(known)}") if set(map(str, value)) - set(known) else None


def controller_path(value):
    """A file on the controller, such as a template."""
    return one_line(value) if value else Fault("is empty")


def file_or_pem(value):
    """Certificates as PEM, or a file of them on the host."""
    if "-----BEGIN" in value:
        return lines(value)
    return host_path(value) if value.startswith("/") else Fault("is neither PEM nor an absolute path on the host")


def url_path(value):
    """The path of a request, in a request line and in nginx's configuration."""
    if not value.startswith("/"):
        return Fault("must be a path", "Start it with '/'")
    return None if re.fullmatch(r"[!#$%&()*+,./0-9:;=?@A-Z_a-z~\[\]'-]+", value) else Fault("is not a path of a URL")


# -- git, Python, versions --------------------------------------------------------------------------------------------

checksum = matching(r"sha256:[0-9a-f]{64}", "is not sha256: and 64 hex digits")
version = matching(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.(post|dev)\d+)?", "is not a valid version", "For example: 5.8.0", 64)
batch = matching(r"[1-9]\d{0,8}|[1-9]\d?%|100%", "is not a number or a share of hosts", "For example: 2, or 25%")
umask = matching(r"0?[0-7]{3}", "is not an octal umask", "Put it in quotes: '0027'")


def source(value):
    """Where an app comes from: an argument of git or uv, a URL, or a path on the controller."""
    if not value.strip():
        return Fault("is empty")
    if value.startswith("-"):
        return Fault("begins with '-', as options do")
    if re.match(r"\w+::", value):
        return Fault("names a program that git would run", "Use https://, ssh:// or user@host:path")
    return one_line(value)


def git_revision(value):
    """A branch, tag or commit, by the rules of git-check-ref-format(1)."""
    if (
        not value.isprintable() or re.search(r"[\s~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)", value)
        or value.startswith(("-", "/", ".", "+")) or value.endswith(("/", ".")) or not 0 < len(value) <= LONGEST_NAME
    ):
        return Fault("is not a branch, tag or commit")
    return None


def python(value):
    """A version of Python, or an interpreter on the host."""
    if value.startswith("/"):
        return host_path(value)
    if re.fullmatch(r"\d{1,3}\.\d{1,3}(\.\d{1,3})?", value, re.ASCII):
        return None
    return Fault("is neither a version nor an absolute path", "For example: '3.13'")


def requirement(value):
    """A line of a requirements file."""
    if not re.match(r"[A-Za-z0-9]", value):
        return Fault("is not a Python requirement", "For example: gunicorn==27.0.1")
    return one_line(value)


# -- nginx ------------------------------------------------------------------------------------------------------------

nginx_time = matching(
    r"\d{1,9}|(\d{1,9}(ms|[smhdwMy]))+", "is not a time as nginx writes it", "For example: 60s", 64)
nginx_expires = matching(
    r"(-|@|modified \+?)?(\d{1,9}|(\d{1,9}(ms|[smhdwMy]))+)|epoch|max|off", "is not a time as nginx's expires takes it",
    "For example: 30d, epoch, max or off", 64)
nginx_size = matching(r"\d{1,12}[kKmMgG]?", "is not a size as nginx writes it", "For example: 10m")
nginx_rate = matching(r"[1-9]\d{0,8}r/[sm]", "is not a rate", "For example: 10r/s or 30r/m")
worker_processes = matching(r"auto|[1-9]\d{0,3}", "is neither 'auto' nor a number")
mime_type = matching(r"\*|[A-Za-z0-9][\w.+-]*/[A-Za-z0-9*][\w.+-]*", "is not a media type", "For example: text/css")
cipher = matching(r"[A-Za-z0-9!@][A-Za-z0-9!@=+_-]*", "is not a name of a cipher",
                  "For example: ECDHE-RSA-AES128-GCM-SHA256")
# Of a token (RFC 9110), without what nginx takes for a comment, a variable or a quote.
header_name = matching(r"[0-9A-Za-z][0-9A-Za-z!%&*+.^_|~-]*", "is not a valid header name", "", LONGEST_NAME)
# Becomes the name of a variable of nginx.
request_header = matching(
    r"[A-Za-z0-9][A-Za-z0-9-]*", "is not a valid header name", "For example: Accept-Language", LONGEST_NAME)


def nginx_word(value):
    """A word without quotes: nothing that ends or splits it, and no variable."""
    if not value or not value.isprintable() or re.search(rf"[\s{re.escape(NGINX_SPECIAL)}]", value):
        return Fault(f"has a space or one of {' '.join(NGINX_SPECIAL)}") if value else Fault("is empty")
    return Fault("begins with '#', as comments do") if value.startswith("#") else _fits(value)


def nginx_variable(value):
    """An expression with at least one variable: a fixed text would count all clients as one."""
    words = re.fullmatch(r"([^\s\"';{}\\#$]|\$[A-Za-z0-9_]+)+", value)
    if not words or "$" not in value or not value.isprintable():
        return Fault("is not a variable of nginx", "For example: $client_network")
    return _fits(value)


def nginx_text(value):
    """A string between quotes. nginx has no way to write a literal '$'."""
    foreign = [name for name in re.findall(r"\$(\{?\w*)", value, re.ASCII) if name.strip("{") not in NGINX_VARIABLES]
    if foreign:
        return Fault(
            f"has '${foreign[0]}', which nginx would replace",
            "Leave out '$', or write the directive into the option 'extra'. Allowed are "
            + ", ".join(f"${name}" for name in sorted(NGINX_VARIABLES)))
    return lines(value) or _fits(value)


def _fits(value):
    escaped = len(value.encode("utf-8", "replace")) + value.count("\\") + value.count('"')
    return Fault(f"is longer than nginx reads ({LONGEST_NGINX} bytes)") if escaped > LONGEST_NGINX else None


def auth_realm(value):
    """The realm of a password, in a header of one line."""
    return one_line(value) or nginx_text(value)


def header_value(value):
    """The value of a response header; empty leaves the header to the app."""
    if not isinstance(value, str):
        return Fault("is not text on one line", "Put it in quotes") if value is not None else None
    return Fault("is not text on one line", "Leave out line breaks") if one_line(value) else nginx_text(value)


def location_path(value):
    """What follows `location` in nginx's configuration."""
    if not re.match(r"(= )?/", value) or re.search(r"\s", value.removeprefix("= ")):
        return Fault("is not a path of a site", "For example: /api/, or '= /login' for one path")
    return nginx_word(value.removeprefix("= "))


def redirect_path(value):
    """A path after `location =`."""
    if not value.startswith("/") or "?" in value or "#" in value:
        return Fault("must be a path that begins with '/' and has no query")
    return nginx_word(value)


def static_url(value):
    """The path of a static directory. Without the slash at its end, /static../ would lead out of the directory."""
    if not value.startswith("/"):
        return Fault("must begin with '/'")
    return nginx_word(value) if value.endswith("/") else Fault("must end with '/'")


def nginx_regex(value):
    """A regular expression between quotes, which is a group of a longer one. nginx makes one backslash of two."""
    if "\\\\" in value or '\\"' in value:
        return Fault("has a backslash before a backslash or a quote", "Use a class: [^a-z]")
    return regex(value) or _fits(value)


# -- systemd, logs ----------------------------------------------------------------------------------------------------

UNITS = r"(s|sec|min|h|hours?|d|days?|w|weeks?|M|months?|y|years?)"
memory_limit = matching(
    r"infinity|\d{1,15}(\.\d{1,6})?[KMGTPE]?|\d{1,3}(\.\d{1,3})?%", "is not a limit of memory",
    "For example: 512M or 60%")
journal_size = matching(r"[1-9]\d{0,11}[KMGT]?", "must be like '1G'")
journal_time = matching(rf"0|[1-9]\d{{0,8}} ?{UNITS}( ?[1-9]\d{{0,8}} ?{UNITS})*", "must be like '1month'", "", 64)
log_size = matching(r"[1-9]\d{0,11}[kMG]?", "must be like '500M'")


def directive_value(value):
    """The value of a directive in a unit, or a list of values. What it means is the owner's choice."""
    for item in value if isinstance(value, list) else [value]:
        if item is None:
            return Fault("is empty", 'Write "" to reset the directive, or leave the line out')
        if isinstance(item, (dict, list, tuple)):
            return Fault("must be a single value or a list of them")
        if not systemd.is_one_line(str(item)):
            return Fault("spans several lines, and would end the directive early",
                         "Use a list to give a directive several times")
    return None


# -- monitoring, hardening, certificates ------------------------------------------------------------------------------

prometheus_time = matching(
    r"(?=[1-9])(\d{1,6}y)?(\d{1,6}w)?(\d{1,6}d)?(\d{1,6}h)?(\d{1,6}m)?(\d{1,6}s)?(\d{1,6}ms)?",
    "is not a time as Prometheus writes it", "For example: 15s or 30d")
retention_size = matching(r"([1-9]\d{0,9}(KB|MB|GB|TB))?", "must be like '10GB'")
# crypt(3) with SHA-256, SHA-512 or bcrypt.
password_hash = matching(r"\$(5|6|2[aby])\$[./A-Za-z0-9$=]{20,}", "is not a hashed password",
                         "Make one with: openssl passwd -6", 500)
time_of_day = matching(r"([01]\d|2[0-3]):[0-5]\d", "is not a time of day", 'As in "04:00", in quotes')
hmac_key = matching(r"[A-Za-z0-9_+/-]+={0,2}", "is not a key as the CA gives it (base64url)")
renewal_period = matching(
    r"[1-9]\d{0,4} ?(day|hour)s?|[1-9]\d? ?%", "is not a time before expiry",
    "For example: 30 days, 48 hours, or 33% of its lifetime")


def regex(value):
    """A regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        return Fault(f"is not a regular expression: {error}")
    return one_line(value)


def sysctl_value(value):
    """The value of a kernel setting."""
    if isinstance(value, (dict, list, tuple)) or value is None or not str(value).strip():
        return Fault("is not a single value")
    if not re.fullmatch(r"[A-Za-z0-9_.,:+/%|*\t -]*", str(value)):
        return Fault("is not the value of a kernel setting")
    return None
