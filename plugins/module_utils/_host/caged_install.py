# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of a unit that makes a virtual environment: `caged_install.py JOB ANSWER`, run as the build account.

Its text is handed to the unit, so it imports nothing of ours. JSON goes to ANSWER: `answer`, or `failed`, a sentence.
"""

# A program of its own: there is no module around it.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys


class Failed(Exception):
    """What is wrong, in a sentence."""


def main():
    with open(sys.argv[1], encoding="utf-8") as stream:
        job = json.load(stream)
    os.umask(0o022)
    try:
        for step in (make, install_app, install_server):
            step(job)
        answer = {"answer": ""}
    except (Failed, OSError) as exc:
        answer = {"failed": str(exc)}
    with open(sys.argv[2], "w", encoding="utf-8") as stream:
        json.dump(answer, stream)
    return int("failed" in answer)


def uv(job, *arguments, message):
    done = subprocess.run([job["uv"], *arguments], check=False, cwd=job["project"], stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(message)


def make(job):
    uv(
        job, "venv", "--quiet", "--allow-existing", "--python", job["interpreter"], job["venv"],
        message="cannot make the virtual environment",
    )  # fmt: skip


def install_app(job):
    message = "cannot install the app's dependencies"
    extras = [part for extra in job["extras"] for part in ("--extra", extra)]
    groups = [part for group in job["groups"] for part in ("--group", group)]
    python = ("--quiet", "--python", os.path.join(job["venv"], "bin", "python"))
    file = job["file"]
    if file == "uv.lock":
        uv(
            job, "sync", "--locked", "--no-default-groups", "--no-editable", *python, *extras, *groups,
            message=message + " from uv.lock",
        )  # fmt: skip
    elif file == "pylock.toml":
        uv(job, "pip", "sync", *python, file, message=message + " from pylock.toml")
    elif file == "requirements.txt":
        hashes = ["--require-hashes"] if job["require_hashes"] else []
        uv(job, "pip", "install", *python, *hashes, "-r", file, message=message + " from requirements.txt")
    elif file == "pyproject.toml":
        what = ["."] if job["package"] else ["-r", file]
        uv(job, "pip", "install", *python, *extras, *groups, *what, message=message + " from pyproject.toml")
    else:
        wheels = glob.glob(os.path.join(glob.escape(job["project"]), "*.whl"))
        extras = "[" + ",".join(job["extras"]) + "]" if job["extras"] else ""
        # In a file: a password in its URL would be seen by everybody in the arguments.
        wanted = os.path.join(job["scratch"], "requirement.txt")
        with open(wanted, "w", encoding="utf-8") as stream:
            stream.write(wheels[0] + extras if wheels else job["requirement"])
        shown = os.path.basename(wheels[0]) if wheels else job["shown"]
        uv(job, "pip", "install", *python, "-r", wanted, message=f"cannot install {shown}")


def install_server(job):
    found = glob.glob(os.path.join(glob.escape(job["venv"]), "lib", "python*", "site-packages", "*.dist-info"))
    have = {requirement_name(os.path.basename(path).split("-")[0]) for path in found}
    missing = [item for item in job["server_requirements"] if requirement_name(item) not in have]
    if missing:
        python = os.path.join(job["venv"], "bin", "python")
        uv(job, "pip", "install", "--quiet", "--python", python, "--", *missing, message="cannot install the server")


def requirement_name(requirement):
    """Normalised name (PEP 503) of the package a requirement asks for."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement).group(0)).lower()


if __name__ == "__main__":
    sys.exit(main())
