# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of the collection on the controller, to be installed on hosts."""

from __future__ import annotations

import os

from ansible_collections.daoman.fastapi.plugins.module_utils import program_files


def module_utils(name):
    """A directory of the collection's module_utils."""
    return os.path.join(os.path.dirname(program_files.__file__), name)


def python_files(top):
    """Relative and absolute path of each Python file in a directory, in order."""
    found = []
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                found.append((os.path.relpath(path, top), path))
    return found
