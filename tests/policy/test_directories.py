# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mode of a directory reaches no other: ansible.builtin.file gives it to all that it makes on the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from ansible_collections.daoman.fastapi.plugins.module_utils._host import places

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = sorted([*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/*.yml")])
# They are there on every host.
SYSTEM = {"/", "/etc", "/home", "/opt", "/root", "/run", "/srv", "/usr/local/bin", "/usr/local/lib", "/usr/local/sbin",
          "/var/cache", "/var/lib", "/var/log", "/var/www", "/etc/nginx", "/etc/ssh", "/etc/systemd/system"}


class Loader(yaml.SafeLoader):
    """Reads Ansible's own tags as what they hold."""


Loader.add_multi_constructor("!", lambda loader, _suffix, node: loader.construct_scalar(node))


def tasks(value):
    if isinstance(value, list):
        for item in value:
            yield from tasks(item)
    elif isinstance(value, dict):
        if "ansible.builtin.file" in value:
            yield value
        for key in ("tasks", "pre_tasks", "post_tasks", "block", "rescue", "always"):
            yield from tasks(value.get(key))


def directories(task):
    """The paths that a task makes, in order; of a loop each."""
    arguments = task["ansible.builtin.file"]
    if not isinstance(arguments, dict) or arguments.get("state") != "directory":
        return []
    path, loop = arguments["path"], task.get("loop")
    if not isinstance(loop, list):
        return [path]
    return [item["path"] if isinstance(item, dict) else item for item in loop]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_task_gives_its_mode_to_directories_above(path):
    for task in tasks(yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)):
        made = set(SYSTEM)
        for directory in directories(task):
            assert os.path.dirname(directory) in made, f"{task['name']}: {directory}"
            made.add(directory)


def test_shared_directories_lie_in_each_other_or_in_the_systems():
    for path in places.SHARED:
        assert os.path.dirname(path) in SYSTEM | set(places.SHARED), path
