# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The version of this collection, as it is installed or in a clone."""

from __future__ import annotations

import json
import os
from functools import lru_cache

import yaml
from ansible_collections.daoman.fastapi.plugins.module_utils import spec

ROOT = os.path.dirname(spec.ROLES)


@lru_cache(maxsize=1)
def collection_version(root=ROOT):
    installed = os.path.join(root, "MANIFEST.json")
    if os.path.isfile(installed):
        with open(installed, encoding="utf-8") as stream:
            return json.load(stream)["collection_info"]["version"]
    with open(os.path.join(root, "galaxy.yml"), encoding="utf-8") as stream:
        return yaml.safe_load(stream)["version"]
