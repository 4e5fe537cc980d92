# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller's part of daoman.fastapi.app_absent, which removes an app."""

from __future__ import annotations

from ansible_collections.daoman.fastapi.plugins.plugin_utils.by_whom import ByWhom


class ActionModule(ByWhom):
    pass
