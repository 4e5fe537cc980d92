# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What releases of an app are to do, for tests with random sequences: on a host, and on the engine alone."""

from __future__ import annotations


class Model:
    """What must serve, and where a rollback must go. A release is called by its revision and its setting."""

    def __init__(self):
        self.way = []  # that of rollbacks; what serves comes last
        self.refused = set()  # failed, or did not start when users were to be sent there
        self.held = []

    live = property(lambda self: self.way[-1] if self.way else None)
    back = property(lambda self: [key for key in reversed(self.way[:-1]) if key not in self.refused])

    def wanted(self, revision, setting, again=False):
        """What a deploy releases, given what is held."""
        if self.live and not again:
            serving = self.live[0]
            if revision == serving:
                return self.live if (revision, setting) in self.held else (revision, setting)
            if revision in {held[0] for held in self.held}:
                return serving, setting
        return revision, setting

    def deployed(self, key):
        moved_on = not self.live or key[0] != self.live[0]
        if key != self.live:
            self.held = [held for held in self.held if not moved_on and held[0] != key[0]]
        self.way = [each for each in self.way if each != key] + [key]
        self.refused.discard(key)

    def rolled_back(self, key, instead_of=None):
        left = self.live
        self.held = [held for held in self.held if held not in {key, left}]
        if left not in {key, None}:
            self.held.append(left)
        if (instead_of or key) in self.way:
            self.way = [each for each in self.way[: self.way.index(instead_of or key)] if each != key] + [key]
        else:
            self.way = [each for each in self.way if each != key] + [key]
        self.refused.discard(key)
