# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches CPU, memory, swap, disks, inodes, load and open files, and tells when one is short.

`watch` decides when, `outbox` keeps what is to be told until it is, `channels` tell it. `watch` and `outbox` are pure:
time and readings come from outside.
"""
