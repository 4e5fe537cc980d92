# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the virtual environment of a release with uv, as the app's user, and closes it to change."""

from __future__ import annotations

import glob
import os
import pwd
import shutil

from .release import (
    ReleaseError,
    dependency_file,
    is_package,
    read_text,
    requirement_name,
    requires_hashes,
    venv_key,
)
from .shell import make_directory, own

TOOLS = "/opt/fastapi"
SYSTEM_PYTHON = "/usr/bin/python3"


def python_name(requested):
    """Name of the interpreter for the manifest: the distribution's with its version, so that an upgrade is seen."""
    return requested or os.path.basename(os.path.realpath(SYSTEM_PYTHON))


def ensure_uv(version, shell):
    """Path of uv in the wanted version, installed on first use by Debian's pip wheel: no pip and no venv are needed."""
    top = os.path.join(TOOLS, "uv-" + version)
    uv = os.path.join(top, "bin", "uv")
    if os.path.exists(uv):
        return uv
    wheels = glob.glob("/usr/share/python-wheels/pip-*.whl")
    if not wheels:
        raise ReleaseError("build", "pip is missing on the host: install the Debian package python3-pip-whl.")
    staging = top + ".new"
    shutil.rmtree(staging, ignore_errors=True)
    shell.run(
        [
            SYSTEM_PYTHON,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-compile",
            "--target",
            staging,
            "uv==" + version,
        ],
        "build",
        f"cannot install uv {version}",
        env={"PYTHONPATH": wheels[-1], "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1"},
    )
    os.rename(staging, top)
    return uv


class Build:
    """The virtual environment for one project. `ensure()` makes it unless an earlier release has."""

    def __init__(self, params, layout, shell, data, project):
        self.params = params
        self.layout = layout
        self.shell = shell
        self.project = project
        self.source_type = params["source_type"]
        self.user = params["name"]
        self.file = None if self.source_type in {"wheel", "requirement"} else dependency_file(project)
        if self.file is None and self.source_type not in {"wheel", "requirement"}:
            raise ReleaseError(
                "build",
                "the source's directory '%s' has no uv.lock, pylock.toml, requirements.txt or pyproject.toml. "
                "Add one, or name the project's directory in subdirectory." % (params["subdirectory"] or "."),
            )
        self.venv = os.path.join(layout.venvs, venv_key(data, project, self.file))
        self.python = os.path.join(self.venv, "bin", "python")
        self.uv = None

    def ensure(self):
        """Path of the virtual environment."""
        complete = os.path.join(self.venv, ".complete")
        if os.path.exists(complete):
            return self.venv
        account = pwd.getpwnam(self.user)
        shutil.rmtree(self.venv, ignore_errors=True)
        make_directory(self.venv, account.pw_uid, account.pw_gid)
        try:
            self.uv = ensure_uv(self.params["uv_version"], self.shell)
            self._uv(
                "venv",
                "--quiet",
                "--allow-existing",
                "--python",
                self._interpreter(),
                self.venv,
                message="cannot make the virtual environment",
            )
            self._install_app()
            self._install_server()
        except ReleaseError:
            shutil.rmtree(self.venv, ignore_errors=True)
            raise
        own(self.venv, 0, 0)
        with open(complete, "w", encoding="utf-8"):
            pass
        return self.venv

    def _uv(self, *arguments, message, root=False):
        env = {
            "UV_CACHE_DIR": os.path.join(self.layout.cache, "uv"),
            "UV_PYTHON_INSTALL_DIR": os.path.join(TOOLS, "python"),
            "UV_PROJECT_ENVIRONMENT": self.venv,
            "UV_LINK_MODE": "copy",  # files become root's own: links would take the cache along
            "UV_COMPILE_BYTECODE": "1",
            "UV_NO_PROGRESS": "1",
            "HOME": self.layout.cache,
        }
        if root:
            env.update(HOME="/root", UV_CACHE_DIR=os.path.join(TOOLS, "cache"))
        user = None if root else self.user
        return self.shell.run(
            [self.uv, *arguments], "build", message, user=user, cwd="/" if root else self.project, env=env
        )[0]

    def _interpreter(self):
        wanted = self.params["python"]
        if not wanted or os.path.isabs(wanted):
            return wanted or SYSTEM_PYTHON
        # Fetched as root into a directory that every app can read, unless the host has it.
        found = (
            self._uv(
                "python", "install", "--quiet", "--no-bin", wanted, message=f"cannot get Python {wanted}", root=True
            )
            if wanted not in os.path.basename(os.path.realpath(SYSTEM_PYTHON))
            else ""
        )
        return found.strip() or wanted

    def _install_app(self):
        message = "cannot install the app's dependencies"
        extras = [part for extra in self.params["extras"] for part in ("--extra", extra)]
        groups = [part for group in self.params["groups"] for part in ("--group", group)]
        install = ("pip", "install", "--quiet", "--python", self.python)
        if self.file == "uv.lock":
            self._uv(
                "sync",
                "--quiet",
                "--locked",
                "--no-default-groups",
                "--no-editable",
                "--python",
                self.python,
                *extras,
                *groups,
                message=message + " from uv.lock",
            )
        elif self.file == "pylock.toml":
            self._uv(
                "pip", "sync", "--quiet", "--python", self.python, "pylock.toml", message=message + " from pylock.toml"
            )
        elif self.file == "requirements.txt":
            hashes = ["--require-hashes"] if requires_hashes(read_text(os.path.join(self.project, self.file))) else []
            self._uv(*install, *hashes, "-r", "requirements.txt", message=message + " from requirements.txt")
        elif self.file == "pyproject.toml":
            what = ["."] if is_package(read_text(os.path.join(self.project, self.file))) else ["-r", "pyproject.toml"]
            self._uv(*install, *extras, *groups, *what, message=message + " from pyproject.toml")
        else:
            wanted = (
                glob.glob(os.path.join(self.project, "*.whl"))[0]
                if self.source_type == "wheel"
                else self.params["source"]
            )
            if self.params["extras"] and self.source_type == "wheel":
                wanted += "[" + ",".join(self.params["extras"]) + "]"
            self._uv(*install, wanted, message="cannot install " + os.path.basename(wanted))

    def _install_server(self):
        have = set()
        for path in glob.glob(os.path.join(self.venv, "lib", "python*", "site-packages", "*.dist-info")):
            have.add(requirement_name(os.path.basename(path).split("-")[0]))
        missing = [item for item in self.params["server_requirements"] if requirement_name(item) not in have]
        if missing:
            self._uv(
                "pip", "install", "--quiet", "--python", self.python, *missing, message="cannot install the server"
            )
