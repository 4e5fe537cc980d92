# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory of a program as a whole: what is not part of it, and how it is replaced in one step."""

from __future__ import annotations

import os
import shutil
import tempfile

from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_tree as tree

# Where the collection's own package for hosts lies, and its directory below module_utils.
PACKAGE, PACKAGE_SOURCE = "/usr/local/lib/fastapi/fastapi_host", "_host"


def strangers(directory, known):
    """What lies in a directory and is not known, deepest first; directories that are left empty too."""
    found = []
    for folder, folders, files in os.walk(directory, topdown=False):
        found += [os.path.join(folder, name) for name in files if os.path.join(folder, name) not in known]
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.islink(path) or not any(other.startswith(path + "/") for other in known):
                found.append(path)
    return found


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def replace_directory(directory, wanted):
    """Make a directory hold exactly the wanted files, in one step: what imports them meets the old or the new ones.

    :arg wanted: {path: node}, of which those below the directory are taken
    """
    parent = os.path.dirname(directory)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    holder = tempfile.mkdtemp(prefix=f".{os.path.basename(directory)}.", dir=parent)
    staged = os.path.join(holder, "new")
    try:
        os.mkdir(staged)
        os.chmod(staged, 0o755)
        for path, node in wanted.items():
            if path.startswith(directory + "/"):
                tree.write(os.path.join(staged, os.path.relpath(path, directory)), node)
        if not os.path.isdir(directory) or os.path.islink(directory):
            remove(directory)
            os.rename(staged, directory)
        elif not tree.exchange(staged, directory):
            # A file system that cannot exchange, such as the lowest of overlayfs.
            os.rename(directory, os.path.join(holder, "old"))
            os.rename(staged, directory)
    finally:
        shutil.rmtree(holder)
