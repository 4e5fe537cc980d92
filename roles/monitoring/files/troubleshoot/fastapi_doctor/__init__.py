# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with this host, why, and what mends it. Reads only.

`facts` gathers, side by side; `judge_*` decide, from the facts alone; `report` prints.
"""
