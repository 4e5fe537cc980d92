# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics for Prometheus of what only this stack knows.

`apps` adds up what workers send (`statsd`). `edge` counts the lines of nginx's logs (`edge`), and reads what became of
releases (`releases`) and which certificates nginx serves (`certificates`). Both keep their numbers in a `registry`,
which outlives a restart.
"""
