# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filters over fastapi_apps have in common."""

from __future__ import annotations

import functools

from ansible.errors import AnsibleFilterError
from ansible_collections.daoman.fastapi.plugins.module_utils.apps import AppsError


def of_apps(function):
    """A filter of a function over fastapi_apps: apps that do not fit their spec are an error with all problems."""

    @functools.wraps(function)
    def apply(apps, *arguments, **options):
        try:
            return function(apps, *arguments, **options)
        except AppsError as error:
            raise AnsibleFilterError(f"fastapi_apps is not in order:\n{error}") from error

    return apply
