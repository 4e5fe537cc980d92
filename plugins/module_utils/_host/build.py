# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the virtual environment of a release with uv in a build unit, and closes it to change."""

from __future__ import annotations

import glob
import os
import platform
import pwd
import re

from . import caged_install, intact
from .redact import redact_url
from .release import (
    ReleaseError,
    dependency_file,
    is_package,
    requires_hashes,
    sha256,
    venv_key,
)
from .shell import make_directory
from .tree import Modes, Refused, reader, remove, take_over

TOOLS = "/opt/fastapi"
# Of interpreters that uv brings.
PYTHONS = os.path.join(TOOLS, "pythons")
SYSTEM_PYTHON = "/usr/bin/python3"
INTERPRETER = re.compile(rf"^(/usr/(local/)?bin|{PYTHONS}/[^/]+/bin)/python3(\.\d+)?$")
UV_HASHES = "gunicorn_app_uv_hashes"
# A file of root's in a virtual environment: without it, a build did not come to its end.
COMPLETE = ".complete"


def python_name(requested):
    """Name of the interpreter for the manifest: the distribution's with its version, so that an upgrade is seen."""
    return requested or os.path.basename(os.path.realpath(SYSTEM_PYTHON))


class Tools:
    """uv and the interpreters that it brings: root's own, for all apps, by settings of the role and none of an app."""

    def __init__(self, params, shell):
        self.version = params["uv_version"]
        self.hashes = params["uv_hashes"]
        self.env = params["tools_env"]
        self.shell = shell

    def uv(self):
        """Path of uv, installed on first use by Debian's pip wheel: no pip and no venv are needed.

        Only a file with one of the hashes is installed. An uv that an earlier version of the collection installed has
        another path: it came without a hash, from an index that an app could name.
        """
        top = os.path.join(TOOLS, f"uv-{self.version}-{sha256(' '.join(sorted(self.hashes)))[:8]}")
        uv = os.path.join(top, "bin", "uv")
        if os.path.exists(uv):
            return uv
        wheels = glob.glob("/usr/share/python-wheels/pip-*.whl")
        if not wheels:
            raise ReleaseError("build", "pip is missing on the host: install the Debian package python3-pip-whl.")
        make_directory(TOOLS)
        staging = top + ".new"
        remove(staging)
        requirements = os.path.join(TOOLS, f".uv-{os.getpid()}.txt")
        pinned = [f"uv=={self.version}", *(f"--hash={each}" for each in self.hashes)]
        with open(requirements, "w", encoding="utf-8") as stream:
            stream.write(" \\\n    ".join(pinned) + "\n")
        try:
            self.shell.run(
                [
                    *(SYSTEM_PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"),
                    *("--only-binary=:all:", "--require-hashes", "--target", staging, "-r", requirements),
                ],
                "build",
                f"cannot install uv {self.version}. If no file has one of the hashes: {UV_HASHES} lists those of "
                f"{self.version}; the host is {platform.machine()}",
                env={
                    "PYTHONPATH": wheels[-1],
                    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                    "PIP_NO_CACHE_DIR": "1",
                    **self.env,
                },
            )
        finally:
            os.unlink(requirements)
        os.rename(staging, top)
        for path in glob.glob(os.path.join(TOOLS, "uv-*")):
            if path != top:
                remove(path)
        return uv

    def interpreter(self, wanted):
        """What uv is to take for the version or path that an app wants, fetched first where the host lacks it."""
        if not wanted or os.path.isabs(wanted):
            return wanted or SYSTEM_PYTHON
        if wanted in os.path.basename(os.path.realpath(SYSTEM_PYTHON)):
            return wanted
        # As root into a directory that every app can read: uv knows the hash of each that it fetches.
        self.shell.run(
            [self.uv(), "python", "install", "--quiet", "--no-bin", "--no-config", wanted],
            "build",
            f"cannot get Python {wanted}",
            env={
                "UV_PYTHON_INSTALL_DIR": PYTHONS,
                "UV_CACHE_DIR": os.path.join(TOOLS, "cache"),
                "UV_SYSTEM_CERTS": "1",
                "UV_NO_PROGRESS": "1",
                **self.env,
            },
        )
        return wanted


class Build:
    """The virtual environment for one project. `ensure()` makes it unless an earlier release has."""

    def __init__(self, params, layout, cage, tools, data, source):
        self.params = params
        self.layout = layout
        self.cage = cage
        self.tools = tools
        self.source = source
        self.project = os.path.join(source, params["subdirectory"])
        self.read = reader(source, params["subdirectory"])
        brought = params["source_type"] in {"wheel", "requirement"}
        self.file = None if brought else dependency_file(self.read)
        if self.file is None and not brought:
            raise ReleaseError(
                "build",
                "the source's directory '%s' has no uv.lock, pylock.toml, requirements.txt or pyproject.toml. "
                "Add one, or name the project's directory in subdirectory." % (params["subdirectory"] or "."),
            )
        self.key = venv_key(data, self.read, self.file)
        self.venv = ""
        # Environments that would have done, and are damaged.
        self.damage = []

    def ensure(self, rebuild=False):
        """Path of the virtual environment, made if no intact one exists, or with `rebuild` in any case."""
        for venv in () if rebuild else self._made():
            damage = intact.check_venv(self.layout, venv)
            if not damage:
                return venv
            self.damage += damage
        self.venv = self._path()
        remove(self.venv)
        builder = pwd.getpwnam(self.layout.build_account)
        os.mkdir(self.venv, 0o700)
        os.chown(self.venv, builder.pw_uid, builder.pw_gid)
        try:
            self._install()
            # Root's, and as closed as the code: there may be private packages in it.
            take_over(self.venv, builder.pw_uid, Modes(0, pwd.getpwnam(self.layout.name).pw_gid))
            self._check_interpreter()
        except ReleaseError:
            remove(self.venv)
            raise
        complete = os.path.join(self.venv, COMPLETE)
        remove(complete)
        intact.seal_venv(self.layout, self.venv)
        with open(complete, "x", encoding="utf-8"):
            pass
        return self.venv

    def _made(self):
        """Complete environments of these inputs, the last one first."""
        names = [name for name in os.listdir(self.layout.venvs) if name.partition("-")[0] == self.key]
        paths = [os.path.join(self.layout.venvs, name) for name in sorted(names, key=_number, reverse=True)]
        return [path for path in paths if is_roots(path) and is_roots(os.path.join(path, COMPLETE))]

    def _path(self):
        """Of a new environment. What a release links to is left as it is: something may still run from it."""
        used = {os.path.basename(intact.venv_of(self.layout, id_)) for id_ in self.layout.ids()}
        number = 1
        while (name := self.key if number == 1 else f"{self.key}-{number}") in used:
            number += 1
        return os.path.join(self.layout.venvs, name)

    def _install(self):
        params = self.params
        file = self.read(self.file) if self.file else ""
        job = {
            "uv": self.tools.uv(),
            "interpreter": self.tools.interpreter(params["python"]),
            "venv": self.venv,
            "project": self.project,
            "file": self.file,
            "require_hashes": requires_hashes(file),
            "package": self.file == "pyproject.toml" and is_package(file),
            "extras": params["extras"],
            "groups": params["groups"],
            "requirement": params["source"],
            "shown": redact_url(params["source"]),
            "scratch": self.layout.scratch,
            "server_requirements": params["server_requirements"],
        }
        env = {
            # Of this build alone: what another left there would be believed, whatever the lock file says.
            "UV_CACHE_DIR": os.path.join(self.layout.scratch, "uv"),
            "UV_PYTHON_INSTALL_DIR": PYTHONS,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_PROJECT_ENVIRONMENT": self.venv,
            "UV_LINK_MODE": "copy",  # a file with a second name would be another's too
            "UV_COMPILE_BYTECODE": "1",
            "UV_NO_PROGRESS": "1",
            # The host's own certificates: a private index or proxy is trusted as the rest of the host trusts it.
            "UV_SYSTEM_CERTS": "1",
            "HOME": self.layout.scratch,
            "TMPDIR": self.layout.scratch,
            **params["build_env"],
            **params["build_secrets"],
        }
        self.cage.program(
            caged_install,
            job,
            "build",
            "cannot make the virtual environment",
            cwd=self.project,
            env=env,
            writable=[self.venv, self.source, self.layout.scratch],
        )

    def _check_interpreter(self):
        """`bin/python` leads to an interpreter of the host, or to one that root fetched, and nowhere else."""
        directory = os.path.join(self.venv, "bin")
        wanted = self.params["python"]
        for name in ("python", "python3"):
            path = os.path.join(directory, name)
            target = os.readlink(path) if os.path.islink(path) else ""
            if name == "python3" and target == "python":
                continue
            given = os.path.isabs(wanted) and target == wanted
            if not given and not (INTERPRETER.match(target) and INTERPRETER.match(os.path.realpath(path))):
                raise Refused(f"bin/{name}", f"a link to {target!r}, not to an interpreter of the host")


def _number(name):
    number = name.partition("-")[2]
    return int(number) if number.isdigit() else 1


def is_roots(path):
    """Whether it is there and root has made it: a build cannot give its files away."""
    try:
        return os.lstat(path).st_uid == os.getuid()
    except OSError:
        return False
