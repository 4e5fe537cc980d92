# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a release and its virtual environment are as they were made.

Each has a list of its files, written when it is complete. A run compares the live release with the list by what the
file system says, and reads only files that were written to since; the doctor's deep mode reads all. Bytecode is not
listed: Python makes it, and does not use what does not fit.

Releases of 0.2.0 have no list. Where all that 0.2.0 wrote is there, they get one.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import re
import stat
from typing import NamedTuple

from . import preload
from .release import ReleaseError, digest, file_mode, read_text, sha256
from .shell import write_file
from .tree import FILE, open_below

LIST, VENV_LIST = "files.jsonl", ".files.jsonl"
HEADER = {"format": 1}
# Path, kind, mode, owner, group, size, content or target, and when it was written.
LINE = 8
# The entries of a release that are listed. What becomes of it is noted in others.
PARTS = ("src", "venv", "gunicorn.conf.py", "start.sh", "env", "lib", "systemd", preload.FILE)
# Of them what 0.2.0 wrote.
FORMER_PARTS = PARTS[:-1]
COMPILED = "__pycache__"
# Entries of one list that a run looks at, those near the top first: 5,000 take 0.05 s.
MOST = 5000
# Stands for the group of the app, whose number may change.
APP_GROUP = "app"
VERSION = re.compile(r"^version(?:_info)?\s*=\s*(\d+\.\d+)", re.MULTILINE)
INTERPRETER = re.compile(r"python(\d+\.\d+)\Z")


class Damage(NamedTuple):
    path: str
    what: str
    # Owner, group and mode to give it back, where nothing else differs and nobody but root could write to it.
    give: tuple | None = None

    def __str__(self):
        return f"{self.path} {self.what}"


def summary(damage):
    """Damage in words, with a bound."""
    more = f", and {len(damage) - 3} more" if len(damage) > 3 else ""
    return ", ".join(map(str, damage[:3])) + more


# -- lists ------------------------------------------------------------------------------------------------------------


def _entries(top, parts):
    """Paths of all entries below `top`, those near the top first."""
    yield "."
    level = sorted(parts)
    while level:
        below = []
        for path in level:
            yield path
            full = os.path.join(top, path)
            if stat.S_ISDIR(os.lstat(full).st_mode):
                below += [f"{path}/{name}" for name in sorted(os.listdir(full)) if name != COMPILED]
        level = below


def _kind(mode):
    kinds = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}
    return kinds.get(stat.S_IFMT(mode), "?")


def _hash(path):
    with open(os.open(path, FILE), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _group(gid, app):
    return APP_GROUP if gid == app else gid


def _facts(path, app):
    """Kind, mode, owner, group and size of an entry, where a link leads, and when a file was written."""
    status = os.lstat(path)
    kind = _kind(status.st_mode)
    mode = stat.S_IMODE(status.st_mode) if kind != "l" else 0
    size = status.st_size if kind == "f" else 0
    target = os.readlink(path) if kind == "l" else ""
    return [kind, mode, status.st_uid, _group(status.st_gid, app), size, target, status.st_mtime_ns if size else 0]


def write_list(top, name, parts, app):
    """Write the list of what is in a directory now. `app` is the number of the app's group."""
    lines = [HEADER]
    for path in _entries(top, parts):
        full = os.path.join(top, path)
        facts = _facts(full, app)
        lines.append([path, *facts[:5], _hash(full) if facts[0] == "f" else facts[5], facts[6]])
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    write_file(os.path.join(top, name), text, 0o600)


def seal(layout, id_):
    """The list of a release that is complete but for its manifest."""
    top = layout.release(id_)
    write_list(top, LIST, [name for name in PARTS if _is_there(top, name)], _app_group(layout))


def seal_venv(layout, venv):
    parts = [name for name in os.listdir(venv) if name not in {VENV_LIST, ".complete"}]
    write_list(venv, VENV_LIST, parts, _app_group(layout))


def _app_group(layout):
    try:
        return grp.getgrnam(layout.name).gr_gid
    except KeyError:
        return -1


def _listed(path):
    """The lines of a list. None where there is none that root has written."""
    try:
        with open(os.open(path, FILE), encoding="utf-8") as stream:
            if os.fstat(stream.fileno()).st_uid != os.geteuid():
                return None
            header, *lines = map(json.loads, stream)
        whole = header == HEADER and all(isinstance(line, list) and len(line) == LINE for line in lines)
        return [tuple(line) for line in lines if isinstance(line[0], str)] if whole else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _compare(top, lines, app, contents):
    """Damage of what is listed."""
    for path, kind, mode, uid, group, size, content, written in lines:
        full = os.path.normpath(os.path.join(top, path))
        try:
            found = _facts(full, app)
        except OSError:
            yield Damage(full, "is missing")
            continue
        if found[0] != kind:
            yield Damage(full, "is of another kind")
        elif kind == "l" and found[5] != content:
            yield Damage(full, f"leads to {found[5]}, not to {content}")
        elif kind == "f" and found[4] != size:
            yield Damage(full, f"has {found[4]} bytes, not {size}")
        elif kind == "f" and (contents or found[6] != written) and _hash(full) != content:
            yield Damage(full, "has another content")
        elif found[1:4] != [mode, uid, group]:
            yield _changed(full, found, (uid, app if group == APP_GROUP else group, mode))


def _changed(path, found, give):
    mode, uid = found[1:3]
    if uid != give[0]:
        # Another user could write to it meanwhile.
        return Damage(path, f"belongs to uid {uid}")
    if mode & 0o022 & ~give[2]:
        return Damage(path, f"has mode {mode:04o}, with which others could change it")
    return Damage(path, f"has another group or mode ({mode:04o})", give)


# -- releases ---------------------------------------------------------------------------------------------------------


def check(layout, id_, deep=False):
    """What is damaged of a release and of its virtual environment; with `deep`, by contents and without a bound."""
    top = layout.release(id_)
    path, manifest = os.path.join(top, "manifest.json"), layout.manifest(id_)
    if manifest is None:
        return [Damage(path, "is missing or damaged")]
    if os.lstat(path).st_uid != os.geteuid():
        return [Damage(path, f"belongs to uid {os.lstat(path).st_uid}")]
    if not isinstance(manifest.get("inputs"), dict) or digest(manifest["inputs"]) != manifest.get("digest"):
        return [Damage(path, "has another content")]
    lines = _listed(os.path.join(top, LIST))
    if lines is None:
        found = [Damage(os.path.join(top, name), "is missing") for name in FORMER_PARTS if not _is_there(top, name)]
    else:
        found = list(_compare(top, lines if deep else lines[:MOST], _app_group(layout), deep))
    known = {damage.path for damage in found}
    found += [damage for damage in _own_files(top, manifest) if damage.path not in known]
    return found + check_venv(layout, venv_of(layout, id_), deep)


def venv_of(layout, id_):
    """Path of the virtual environment of a release, whether it is there or not."""
    try:
        return os.path.join(layout.venvs, os.path.basename(os.readlink(layout.release(id_, "venv"))))
    except OSError:
        return layout.release(id_, "venv")


def _is_there(top, name):
    return os.path.lexists(os.path.join(top, name))


def _own_files(top, manifest):
    """Damage of the few files whose contents the manifest knows."""
    for path, wanted in manifest["inputs"].get("files", {}).items():
        full = os.path.join(top, path)
        try:
            if sha256(read_text(full)) != wanted or not os.path.isfile(full):
                yield Damage(full, "has another content" if os.path.isfile(full) else "is missing")
        except (OSError, UnicodeError):
            yield Damage(full, "has another content")


def check_venv(layout, venv, deep=False):
    """What is damaged of a virtual environment."""
    if not os.path.isdir(venv):
        return [Damage(venv, "is missing")]
    if not os.path.isfile(os.path.join(venv, ".complete")):
        return [Damage(os.path.join(venv, ".complete"), "is missing")]
    problem = interpreter_problem(venv)
    if problem:
        return [problem]
    lines = _listed(os.path.join(venv, VENV_LIST))
    if lines is None:
        package = os.path.join(_site_packages(venv), "gunicorn", "__init__.py")
        return [] if os.path.isfile(package) else [Damage(package, "is missing")]
    return list(_compare(venv, lines if deep else lines[:MOST], _app_group(layout), deep))


def _site_packages(venv):
    return os.path.join(venv, "lib", f"python{_built_for(venv)}", "site-packages")


def _built_for(venv):
    match = VERSION.search(read_text(os.path.join(venv, "pyvenv.cfg")))
    return match[1] if match else ""


def interpreter(venv):
    """Path of the interpreter that a virtual environment runs with."""
    return os.path.realpath(os.path.join(venv, "bin", "python"))


def interpreter_problem(venv):
    """The damage of its interpreter, or None."""
    path = os.path.join(venv, "bin", "python")
    target = interpreter(venv)
    if not os.path.lexists(path):
        return Damage(path, "is missing")
    if not os.path.isfile(target) or not os.access(target, os.X_OK):
        return Damage(path, f"leads to the interpreter {target}, which is not there")
    built, found = _built_for(venv), INTERPRETER.search(target)
    if not built:
        return Damage(os.path.join(venv, "pyvenv.cfg"), "is missing or damaged")
    if found and found[1] != built:
        return Damage(path, f"leads to Python {found[1]}, and the environment was made for Python {built}")
    return None


def adopt(layout):
    """Write the lists of complete releases that have none, because 0.2.0 made them."""
    for id_ in layout.ids():
        venv = venv_of(layout, id_)
        without = [
            path for path in (layout.release(id_, LIST), os.path.join(venv, VENV_LIST)) if not os.path.lexists(path)
        ]
        if not without or check(layout, id_):
            continue
        for path in without:
            if path.endswith(VENV_LIST):
                seal_venv(layout, venv)
            else:
                seal(layout, id_)


def restore(layout, id_, texts):
    """Give a release back what is known of it: files by their text, owners and modes by the list. What was damaged.

    :arg texts: {path: text}; only what has the hash in the manifest is written
    """
    damage = check(layout, id_)
    if any(item.give for item in damage):
        damage = _without_bound(layout, id_)
    top = layout.release(id_)
    known = (layout.manifest(id_) or {}).get("inputs", {}).get("files", {})
    for item in damage:
        path = os.path.relpath(item.path, top)
        if path in texts and known.get(path) == sha256(texts[path]):
            _write(layout, item.path, path, texts[path])
        elif item.give:
            _give(layout, item)
    return damage


def _without_bound(layout, id_):
    """As check(), of all that is listed: what changes owners changes all of them."""
    top = layout.release(id_)
    venv = venv_of(layout, id_)
    found = {item.path: item for item in check(layout, id_)}
    for directory, name in ((top, LIST), (venv, VENV_LIST)):
        for item in _compare(directory, _listed(os.path.join(directory, name)) or [], _app_group(layout), False):
            found.setdefault(item.path, item)
    return list(found.values())


def _write(layout, full, path, text):
    parent = os.path.dirname(full)
    if (os.path.isdir(full) and not os.path.islink(full)) or os.path.islink(parent):
        return  # it is checked again, and found to be damaged
    mode = file_mode(path)
    write_file(full, text, mode, group=_app_group(layout) if mode & 0o040 else -1)


def _give(layout, item):
    """Give an entry its owner, group and mode: by descriptors, through no link."""
    uid, gid, mode = item.give
    parent, name = os.path.split(item.path)
    directory = open_below(layout.base, os.path.relpath(parent, layout.base))
    try:
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
            return
        descriptor = os.open(name, FILE, dir_fd=directory)
        try:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
    finally:
        os.close(directory)


def refuse(layout, id_):
    """ReleaseError where a release is damaged, before anybody is sent to it."""
    damage = check(layout, id_)
    if damage:
        raise ReleaseError(
            "choose",
            f"release {id_} is damaged: {summary(damage)}. Nothing was changed. Name another release (-e release=...), "
            "or set its version in the inventory and run daoman.fastapi.deploy, which rebuilds it.",
        )
