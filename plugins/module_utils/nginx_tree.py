# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module nginx_tree is made of: what differs, how it is swapped in, what nginx's complaints mean.

Paths of files in a tree are relative to its root. Nothing here needs Ansible or nginx.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import grp
import hashlib
import hmac
import json
import os
import pwd
import re
import stat
import tempfile
import time
from collections import namedtuple

from ansible_collections.daoman.fastapi.plugins.module_utils._host import places
from ansible_collections.daoman.fastapi.plugins.module_utils.nginx_packages import is_installed

ONLY = re.compile(r"[ \t]*# only nginx (>=|<) ([0-9.]+)[ \t]*$")
FROM = re.compile(r"^\s*# from (\S+)\s*$")
END = re.compile(r"^\s*# end of (\S+)\s*$")
# With `-e stderr` nginx writes as in a log, without it begins with its name.
SAID = r"^(?:nginx: |[0-9/]+ [0-9:]+ )\[(?:%s)\] (?:[0-9]+#[0-9]+: )?"
COMPLAINT = re.compile(SAID % "emerg|alert|crit" + r"(.*?)(?: in (/[^\n]*):([0-9]+))?$", re.M)
WARNING = re.compile(SAID % "warn" + r"(.*)$", re.M)
CONFLICT = re.compile(r'^(conflicting server name "(.+?)" on \S+), ignored')
# What tells a file of a role of this collection from others, in its first lines.
HEADER = re.compile(r"\A(?:.*\n){0,4}# Role daoman\.fastapi\.\w+")
USERS = re.compile(r"^\s*auth_basic_user_file\s+[\"']?([^\s;$\"']+)[\"']?\s*;", re.M)
# Checks of these take as long as a hundred requests and more, and nginx does nothing else meanwhile.
SLOW_HASH = re.compile(r"^[^:#\s]+:\$(?:2[abxy]?|5\$rounds=\d{5,}|6\$rounds=\d{5,}|7|y|gy)\$", re.M)
LOG = re.compile(r"(?:^|[;{])[^\S\n]*(?:access|error)_log\s+(/[^\s;$]+)", re.M)
CACHE = re.compile(r"^\s*proxy_cache_path\s+(/[^\s;$]+)", re.M)
PID = re.compile(r"^\s*pid\s+(/[^\s;]+)", re.M)
CERTIFICATE = re.compile(r"^\s*ssl_(certificate|certificate_key)\s+([^\s;$/\"'][^\s;$]*)\s*;", re.M)

# Quoted strings, variables such as ${name}, comments: their braces open no block.
NO_BRACES = re.compile(r"\\.|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\$\{\w+\}|(?:^|(?<=\s))#.*")

# Directives of modules that Debian has in packages of their own.
MODULES = {
    "brotli": "libnginx-mod-http-brotli-filter",
    "brotli_static": "libnginx-mod-http-brotli-static",
    "proxy_cache_purge": "libnginx-mod-http-cache-purge",
    "more_set_headers": "libnginx-mod-http-headers-more-filter",
}
UNKNOWN = re.compile(r'unknown directive "(\w+)"|invalid parameter "(\w+)(?:=[^"]*)?"')
# What is in nginx Plus only. Said to those who find it in nginx's manual; a build that has it does not complain.
PLUS = "is not in this build of nginx, but in the commercial one."
COMMERCIAL = {
    "health_check": "Servers that fail are left out for a while (max_fails, fail_timeout)",
    "match": "It belongs to 'health_check'",
    "sticky": "Use the method 'ip_hash', or 'hash' with a cookie",
    "least_time": "Use the method 'least_conn' or 'random two'",
    "ntlm": "Use another way to authenticate",
    "queue": "Requests that find no server are answered 502 at once",
    "slow_start": "Use 'weight'",
    "drain": "Use 'down'",
}

AT_FDCWD = -100
RENAME_EXCHANGE = 2
# The file system cannot exchange (overlayfs: a directory of the image), the kernel is too old, a mount is in the way.
CANNOT_EXCHANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EBUSY)


class TreeError(Exception):
    """What is wrong, in words for the user, and details for the module to return."""

    def __init__(self, message, **details):
        Exception.__init__(self, message)
        self.details = details


# What lies at a path: kind is file, link or other; data is the content or the link's target.
Node = namedtuple("Node", "kind data mode uid gid")


def file_node(text, mode=0o644, gid=None):
    return Node("file", text.encode("utf-8"), mode, os.geteuid(), os.getegid() if gid is None else gid)


def link_node(target):
    return Node("link", target, None, None, None)


def read(path):
    """The node at a path, or None."""
    try:
        info = os.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            return link_node(os.readlink(path))
        if not stat.S_ISREG(info.st_mode):
            return Node("other", None, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
        with open(path, "rb") as stream:
            return Node("file", stream.read(), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path, node):
    """Makes a path the given node in one step; None removes it."""
    if node is None:
        if os.path.lexists(path):
            os.unlink(path)
        return
    folder, name = os.path.split(path)
    places.make(folder)
    # nginx's wildcards pass over names with a leading dot
    holder = tempfile.mkdtemp(prefix=f".{name}.", dir=folder)
    temporary = os.path.join(holder, name)
    try:
        if node.kind == "link":
            os.symlink(node.data, temporary)
        else:
            with open(temporary, "wb") as stream:
                os.fchmod(stream.fileno(), 0o600)
                stream.write(node.data)
                os.fchown(stream.fileno(), node.uid, node.gid)
                os.fchmod(stream.fileno(), node.mode)
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.rmdir(holder)


def checked(path):
    """A path as it may stand in a tree, or TreeError."""
    if not path or path != os.path.normpath(path) or os.path.isabs(path) or path.split("/")[0] in ("..", "."):
        raise TreeError(f"{path!r} is not a plain path below the root.")
    return path


def plan(root, wanted, unwanted):
    """What has to change: {path: (node before, node after)}.

    :arg wanted: {path: node}
    :arg unwanted: paths that must not exist unless wanted
    """
    changes = {}
    inside = os.path.realpath(root)
    for path in sorted(set(wanted) | set(unwanted)):
        folder = os.path.realpath(os.path.join(root, os.path.dirname(checked(path))))
        if os.path.commonpath([inside, folder]) != inside:
            raise TreeError(
                f"{path}: {os.path.dirname(path)} leads out of {root} by a symbolic link, so it cannot be staged.")
        before, after = read(os.path.join(root, path)), wanted.get(path)
        if before is not None and before.kind == "other":
            raise TreeError(f"{os.path.join(root, path)} is neither a file nor a link. Move it away.")
        if before != after:
            changes[path] = (before, after)
    return changes


def foreign(root, patterns, known):
    """What lies at the given patterns and is not known: sorted paths. Names with a leading dot nginx passes over."""
    found = []
    for pattern in patterns:
        for path in glob.glob(os.path.join(glob.escape(root), pattern)):
            name = os.path.relpath(path, root)
            if name not in known and (os.path.islink(path) or os.path.isfile(path)):
                found.append(name)
    return sorted(set(found))


def ours(path, node, wanted, manifest, digests, packaged):
    """Whether what lies at a path is of this collection, of Debian's package as it came, or already what it should be.

    :arg digests: what an earlier run wrote there, {path: digest}
    :arg packaged: {path: MD5} of the package's files
    """
    after = wanted.get(path)
    if node is None or (after and node[:2] == after[:2]):
        return True
    if path in manifest:
        # What is to go may have been replaced meanwhile by a file that is somebody's own.
        return after is not None or digests.get(path, digest(node)) == digest(node) or _has_header(node)
    if node.kind == "link":
        target = os.path.normpath(os.path.join(os.path.dirname(path), node.data))
        return target in packaged
    return _has_header(node) or packaged.get(path) == md5(node)


def md5(node):
    """As dpkg records its files."""
    return hashlib.md5(node.data, usedforsecurity=False).hexdigest()


def _has_header(node):
    return node.kind == "file" and bool(HEADER.match(node.data.decode("utf-8", "replace")))


def load_digests(path):
    """What the last run wrote: {path: digest}; nothing where that is not known."""
    try:
        with open(path, encoding="utf-8") as stream:
            return dict(json.load(stream))
    except (OSError, ValueError, TypeError):
        return {}


def described(path):
    """A file for whoever has to decide what becomes of it: its path, kind, owner and time."""
    info = os.lstat(path)
    try:
        owner = pwd.getpwuid(info.st_uid).pw_name
    except KeyError:
        owner = str(info.st_uid)
    kind = f"link to {os.readlink(path)}" if os.path.islink(path) else "file"
    return f"{path} ({kind}, owner {owner}, changed {time.strftime('%Y-%m-%d', time.localtime(info.st_mtime))})"


def diff(root, changes):
    """The changes as Ansible's callbacks print them."""
    return [
        {
            "before_header": os.path.join(root, path) if before else "/dev/null",
            "after_header": os.path.join(root, path) if after else "/dev/null",
            "before": _shown(before, after),
            "after": _shown(after, before),
        }
        for path, (before, after) in changes.items()
    ]


def _shown(node, other):
    if node is None:
        return ""
    if node.kind == "link":
        return f"link to {node.data}\n"
    text = hidden(node.data.decode("utf-8", "replace"), everywhere=not _has_header(node))
    if other and other.kind == "file" and other[2:] != node[2:]:
        text = f"# mode {node.mode:04o}, owner {node.uid}:{node.gid}\n{text}"
    return text


# -- Secrets in raw configuration --------------------------------------------------------------------------------------

TELLING = re.compile(
    r"authori[sz]ation|passw(or)?d|passphrase|secret|token|api[-_]?key|credential|private[-_]?key|access[-_]?key|"
    r"signature|bearer|secure_link", re.I)
WORD = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[^\s;{}()\"']+")
# Variables, operators, numbers and switches hide nothing.
OPEN = re.compile(
    r"^(?:[\"']?(?:\$\w+|\$\{\w+\})+[\"']?|[!=~*]+|\d{1,5}[a-zA-Z%/]{0,3}|on|off|default|always|\"\"|'')$")
RANDOM = re.compile(r"^(?![/~]|unix:|https?:)(?=\S*[0-9])(?=\S*[A-Za-z])[\w+/=.-]{16,}$")
URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)")
# Of one run: the same value has the same mark before and after a change, and nobody can try values against it later.
SALT = os.urandom(16)


def hidden(text, everywhere=False):
    """A file's text in which what looks like a secret is replaced by a mark that differs for another value.

    Only in raw text from variables, unless the file is not one that was rendered.
    """
    lines, raw, keyed = [], everywhere, False
    for line in text.split("\n"):
        if FROM.match(line):
            raw = True
        elif not everywhere and END.match(line):
            raw = keyed = False
        elif raw:
            # A map's lines have values on both sides.
            if re.match(r"\s*(map|geo)\s", line) and "{" in line:
                keyed = bool(TELLING.search(line))
                head, brace, rest = line.partition("{")
                lines.append(head + brace + _without_secrets(rest, keyed))
                continue
            line = _without_secrets(line, keyed)
            if "}" in line:
                keyed = False
        lines.append(line)
    return "\n".join(lines)


def _without_secrets(line, keyed):
    telling = keyed
    first = None

    def replaced(match):
        nonlocal telling, first
        word = match.group()
        bare = word.strip("\"'")
        if first is None and not keyed:
            first = word
            telling = telling or bool(TELLING.search(word))
            return word
        if OPEN.match(word):
            telling = telling or bool(TELLING.search(word))
            return word
        if telling or RANDOM.match(bare):
            return _mark(word)
        if TELLING.search(word):
            telling = True
            # A name, such as that of a header, or a text that has both: the name and its value.
            return word if re.match(r"^\$?[A-Za-z_-]+$", word) else _mark(word)
        return URL_PASSWORD.sub(lambda found: found.group(1) + _mark(found.group()), word)

    return line if line.lstrip().startswith("#") else WORD.sub(replaced, line)


def _mark(value):
    return f"<hidden {hmac.new(SALT, value.encode('utf-8', 'surrogateescape'), 'sha256').hexdigest()[:6]}>"


def for_version(text, version):
    """The text without the lines that are for other versions: `listen 443 ssl http2; # only nginx < 1.25.1`."""
    lines = []
    for line in text.split("\n"):
        match = ONLY.search(line)
        if match:
            newer = version >= tuple(int(part) for part in match.group(2).split("."))
            if newer != (match.group(1) == ">="):
                continue
            line = line[:match.start()]
        lines.append(line)
    return "\n".join(lines)


# -- The swap ----------------------------------------------------------------------------------------------------------

def exchange(one, other):
    """Exchanges two paths in one step. False where that cannot be done here."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), one)


def has_mounts(root, mountinfo="/proc/self/mountinfo"):
    """Whether something at or below the root is a mount: an exchange would take it along, and removal empty it."""
    root = os.path.realpath(root)
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as stream:
            points = [line.split()[4] for line in stream]
    except OSError:
        return False
    points = [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), point) for point in points]
    return any(point == root or point.startswith(root + "/") for point in points)


def swap(stage, root, paths):
    """Exchanges the staged tree and the root, of which only the given paths differ. A second call undoes the first.

    In one step where the system can; else path by path, in an order in which a reload by somebody else at any moment
    finds the most of a whole configuration. A failure half-way is undone.
    """
    if not has_mounts(root) and exchange(stage, root):
        return "exchange"
    before = {}
    try:
        for path in sorted(paths, key=lambda path: _rank(stage, root, path)):
            before[path] = read(os.path.join(root, path))
            write(os.path.join(root, path), read(os.path.join(stage, path)))
        for path, node in before.items():
            write(os.path.join(stage, path), node)
    except BaseException:
        for path, node in reversed(list(before.items())):
            write(os.path.join(root, path), node)
        raise
    return "files"


def _rank(stage, root, path):
    """Files that nothing includes yet, changed files, links that go, nginx.conf, links that come, files that go."""
    old, new = read(os.path.join(root, path)), read(os.path.join(stage, path))
    if new is None:
        return (2 if old and old.kind == "link" else 5, path)
    if new.kind == "link":
        return (4, path)
    if path == "nginx.conf":
        return (3, path)
    return (1 if old else 0, path)


# -- What an earlier run left, and what nginx has loaded --------------------------------------------------------------

def load_manifest(path):
    """What the last run recorded: the paths it owns, and whether nginx may not have loaded them (pending)."""
    try:
        with open(path, encoding="utf-8") as stream:
            data = json.load(stream)
        return {"paths": sorted(checked(item) for item in data["paths"]), "pending": bool(data["pending"])}
    except FileNotFoundError:
        return {"paths": [], "pending": False}
    except (ValueError, KeyError, TypeError, TreeError) as error:
        raise TreeError(
            f"{path} is damaged ({error}). Remove it: files of sites that are gone then stay, and are yours to delete."
        ) from error


def save_manifest(path, manifest):
    write(path, file_node(json.dumps(manifest, indent=1) + "\n"))


def save_digests(path, wanted):
    """Records what the files and links of the tree should be, for others to tell whether somebody has changed them."""
    text = json.dumps({name: digest(node) for name, node in sorted(wanted.items())}, indent=1) + "\n"
    node = read(path)
    if node is None or node.data != text.encode("utf-8"):
        write(path, file_node(text))


def digest(node):
    """SHA-256 of a file's content, or of `link` and what the link points to."""
    data = node.data if node.kind == "file" else ("link " + node.data).encode("utf-8", "surrogateescape")
    return hashlib.sha256(data).hexdigest()


def newest_change(root, now=None):
    """When something that nginx can read from the tree was last changed, in seconds since the epoch.

    By ctime, which no tool sets back. Links are followed, so a renewed certificate counts. Times in the future, left by
    a clock that was wrong, do not.
    """
    now = time.time() if now is None else now
    return max([moment for moment in _changes(root) if moment <= now], default=0)


def _changes(root):
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [os.path.join(folder, name) for name in files]
        for link in (os.path.join(folder, name) for name in folders):
            if os.path.islink(link):
                paths.append(link)
                with contextlib.suppress(OSError):
                    paths.extend(os.path.join(link, name) for name in os.listdir(link))
        for path in paths:
            with contextlib.suppress(OSError):
                yield os.lstat(path).st_ctime
                yield os.stat(path).st_ctime


def workers(master, proc="/proc"):
    """The workers of an nginx that take new connections: {pid: start in seconds since the epoch}."""
    found = {}
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for pid in filter(str.isdigit, os.listdir(proc)):
        try:
            with open(os.path.join(proc, pid, "stat"), encoding="utf-8", errors="replace") as stream:
                fields = stream.read().rpartition(")")[2].split()
            if fields[1] != str(master) or fields[0] == "Z":
                continue
            with open(os.path.join(proc, pid, "cmdline"), encoding="utf-8", errors="replace") as stream:
                title = stream.read()
        except (OSError, IndexError):  # it ended meanwhile
            continue
        if title.startswith("nginx: worker process") and "shutting down" not in title:
            found[int(pid)] = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return found


# -- What the rendered files name, and what nginx says about them -----------------------------------------------------

def log_files(texts):
    """The log files that the rendered files name."""
    return sorted({path for text in texts for path in LOG.findall(text) if not path.startswith("/dev/")})


def cache_directories(texts):
    return sorted({path for text in texts for path in CACHE.findall(text)})


def pid_files(texts):
    return sorted({path for text in texts for path in PID.findall(text)})


def password_files(texts):
    """The files of users and passwords that the rendered files name: {path: the rendered file that names it first}."""
    found = {}
    for name, text in sorted(texts.items()):
        for path in USERS.findall(text):
            found.setdefault(path, name)
    return found


def unreadable(path, user="www-data"):
    """Why nginx's workers cannot read a file, or None."""
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            return "is not a file"
        account = pwd.getpwnam(user)
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except KeyError:
        return None
    if account.pw_uid == info.st_uid:
        bit = stat.S_IRUSR
    elif info.st_gid in os.getgrouplist(user, account.pw_gid):
        bit = stat.S_IRGRP
    else:
        bit = stat.S_IROTH
    return None if info.st_mode & bit else f"cannot be read by {user} (mode {stat.S_IMODE(info.st_mode):04o})"


def not_only_roots(path, trusted=("adm", "syslog")):
    """The directory in which others than root can make links where a log is to be, or None.

    nginx opens logs as root.
    """
    groups = {os.getegid()}
    for name in trusted:
        with contextlib.suppress(KeyError):
            groups.add(grp.getgrnam(name).gr_gid)
    folder = first = os.path.realpath(os.path.dirname(path))
    while os.path.isdir(folder):
        info = os.stat(folder)
        # In a sticky directory nobody replaces what is root's, but everybody can make something new.
        shared = info.st_mode & stat.S_IWOTH and not (folder != first and info.st_mode & stat.S_ISVTX)
        theirs = info.st_mode & stat.S_IWGRP and info.st_gid not in groups
        if info.st_uid not in (0, os.geteuid()) or shared or theirs:
            return folder
        if folder == "/":
            break
        folder = os.path.dirname(folder)
    return None


def certificate_files(texts):
    """The certificates and keys in the tree that the rendered files name: [(certificate or certificate_key, path)]."""
    return sorted({found for text in texts for found in CERTIFICATE.findall(text)})


def complaint(output):
    """nginx's reason to refuse, with file and line where it names them: (text, file, line)."""
    match = COMPLAINT.search(output)
    if not match:
        return output.strip() or "it gave no reason", None, None
    return match.group(1), match.group(2), int(match.group(3)) if match.group(3) else None


def explain(output, stage, root, texts, origins):
    """nginx's refusal of a staged tree in the user's terms: the message, and a dict of file, line and origin.

    :arg texts: {path: rendered text} of the files that were rendered
    :arg origins: {path: the variable that a file comes from}
    """
    text, file, line = complaint(output)
    text = text.replace(stage, root)
    path = None
    if file:
        real = os.path.realpath(file)
        path = os.path.relpath(real, os.path.realpath(stage))
        file = os.path.join(root, path) if not path.startswith("../") else real
    else:
        path, line = _mentioned(text.replace(root + "/", ""), texts)
        file = os.path.join(root, path) if path else None
    lines = texts.get(path, "").split("\n")
    variable = origin(lines, line or 0, origins.get(path))
    # What it quotes is a word of a line.
    message = re.sub(r'"[^"]*"', lambda quoted: _without_secrets(f"x {quoted.group()}", False)[2:], text)
    unknown = UNKNOWN.search(text)
    reason = COMMERCIAL.get(unknown.group(1) or unknown.group(2)) if unknown else None
    package = MODULES.get(unknown.group(1)) if unknown else None
    if package and is_installed(package):
        message += (
            f"\n'{unknown.group(1)}' is in the package {package}, which is installed, and nginx.conf does not load it. "
            f"See modules-enabled, and modules-available in /usr/share/nginx; apt-get install --reinstall {package} "
            "brings back what is missing there."
        )
    elif package:
        message += f"\n'{unknown.group(1)}' is in the package {package}. Add it to nginx_packages."
    if reason:
        message += f"\n'{unknown.group(1) or unknown.group(2)}' {PLUS} {reason}."
    if file:
        message += f"\nin {file}" + (f", line {line}" if line else "") + (f", from {variable}" if variable else "")
    if path in texts and line:
        message += "\n" + excerpt(hidden("\n".join(lines)).split("\n"), line)
    for name in unbalanced(lines):
        message += f"\nThe braces in {name} are not in pairs."
    return message, {"file": file, "line": line, "origin": variable}


def _mentioned(text, texts):
    """Where something that a complaint quotes stands in the rendered files."""
    for quoted in re.findall(r'"([^"]+)"', text):
        for path, content in sorted(texts.items()):
            for number, line in enumerate(content.split("\n"), 1):
                if quoted in line:
                    return path, number
    return None, None


def origin(lines, number, fallback=None):
    """The variable that a line (counted from 1) was rendered from, by the comments around raw text."""
    for line in reversed(lines[:number]):
        match = FROM.match(line)
        if match:
            return match.group(1)
        if END.match(line):
            break
    return fallback


def unbalanced(lines):
    """Variables whose raw text does not close the blocks that it opens: nginx complains far away from them."""
    found, name, depth = [], None, 0
    for line in lines:
        start, end = FROM.match(line), END.match(line)
        if start:
            name, depth = start.group(1), 0
        elif end:
            if depth:
                found.append(name)
            name, depth = None, 0
        elif name:
            code = NO_BRACES.sub("", line)
            depth += code.count("{") - code.count("}")
    return found


def excerpt(lines, number):
    """A line with what surrounds it."""
    first, last = max(1, number - 3), min(len(lines), number + 1)
    return "\n".join(f"{'>' if at == number else ' '} {at:4} | {lines[at - 1]}" for at in range(first, last + 1))


def conflict(output, stage, root, texts):
    """A warning that one of our server names is another file's too: nginx then ignores one of the two."""
    for text, name in (found for line in WARNING.findall(output) for found in CONFLICT.findall(line)):
        named = re.compile(rf"^\s*server_name\s(?:[^;]*\s)?{re.escape(name)}[\s;]", re.M)
        if any(named.search(content) for content in texts.values()):
            nodes = {
                os.path.relpath(os.path.join(folder, file), stage): read(os.path.join(folder, file))
                for folder, _folders, files in os.walk(stage) for file in files}
            files = [
                os.path.join(root, path) for path, node in sorted(nodes.items())
                if node and node.kind == "file" and named.search(node.data.decode("utf-8", "replace"))]
            return f"{text}: it is in {' and '.join(files)}, and nginx would ignore all but one."
    return None
