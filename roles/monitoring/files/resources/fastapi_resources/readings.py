# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine has to say, by psutil: shares in percent, and the load by CPU."""

from __future__ import annotations

import contextlib
import os
import re

import psutil

KINDS = re.compile(r"^(ext[234]|xfs|btrfs|f2fs|zfs|overlay|tmpfs|vfat|bcachefs)$")


def read_all(ignored=()):
    """Readings by name. `ignored` are patterns of mount points that are not looked at."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    found = {
        # Since the last call; the first one of a process tells of no time at all.
        "cpu": psutil.cpu_percent(interval=None),
        "memory": 100 * (1 - memory.available / memory.total),
        "load": os.getloadavg()[1] / (psutil.cpu_count() or 1),
        "descriptors": descriptors(),
    }
    if swap.total:
        found["swap"] = swap.percent
    found.update(disks(ignored))
    return found


def disks(ignored=()):
    found, seen = {}, set()
    patterns = [re.compile(pattern) for pattern in ignored]
    for disk in sorted(psutil.disk_partitions(all=True), key=lambda item: len(item.mountpoint)):
        path = disk.mountpoint
        if not KINDS.match(disk.fstype) or re.match(
            r"/(proc|sys|dev|run/credentials|run/user|var/lib/private)(/|$)", path
        ):
            continue
        if (disk.fstype == "overlay" and path != "/") or any(pattern.search(path) for pattern in patterns):
            continue
        with contextlib.suppress(OSError):
            if not os.path.isdir(path):  # a single file, as containers have them
                continue
            info, device = os.statvfs(path), os.stat(path).st_dev
            usable = info.f_blocks - info.f_bfree + info.f_bavail
            if device in seen or not usable:
                continue
            seen.add(device)
            found[f"disk:{path}"] = 100 * (1 - info.f_bavail / usable)
            if info.f_files:
                found[f"inodes:{path}"] = 100 * (1 - info.f_favail / info.f_files)
    return found


def descriptors():
    """The fullest table of open files: the system's, or that of a process against its own limit.

    Those of other users' processes are told by Linux 6.2 and later; before it only root may count them.
    """
    with open("/proc/sys/fs/file-nr", encoding="ascii") as stream:
        used, _free, most = (int(word) for word in stream.read().split()[:3])
    fullest = 100 * used / most
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            count = os.stat(f"/proc/{name}/fd").st_size
            if count:
                with open(f"/proc/{name}/limits", encoding="ascii") as stream:
                    limit = int(re.search(r"^Max open files\s+(\d+)", stream.read(), re.MULTILINE).group(1))
                fullest = max(fullest, 100 * count / limit)
    return fullest
