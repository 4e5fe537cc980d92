# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module whose parameters stay out of the journal: whole programs, or texts with secrets that no option names.

AnsibleModule(no_log=True) does not do that: every call brings the task's own `no_log`, which takes its place.
"""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


class QuietModule(AnsibleModule):
    def _log_invocation(self):
        """Log nothing of the parameters."""
