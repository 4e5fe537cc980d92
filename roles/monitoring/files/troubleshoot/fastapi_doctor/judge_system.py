# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the machine and its network."""

from __future__ import annotations

import shlex

from fastapi_doctor import parse
from fastapi_doctor.finding import critical, warning
from fastapi_doctor.show import duration, size

# Above such a share there is no time left.
FULL = 0.98
# Free bytes beyond which a high share says nothing: 10 % of a large disk are a lot.
PLENTY = 20 << 30
# Open files below which a server cannot work.
FEWEST_DESCRIPTORS = 1024
LEAST_MEMORY = 64 << 20


def judge(facts, thresholds):
    yield from _disks(facts, thresholds)
    yield from _memory(facts, thresholds)
    yield from _descriptors(facts, thresholds)
    yield from _clock(facts)
    yield from _units(facts)
    yield from _dns(facts)
    yield from _firewall(facts)
    for name, why in sorted(facts.get("failed", {}).items()):
        yield warning("not-examined", name, "this could not be looked at", why, "run troubleshoot.sh once more")
    test = facts.get("nginx", {}).get("test") or {}
    if "ok" in test and test["ok"] is None:
        yield warning(
            "not-examined", "nginx", "its configuration could not be tested", test["output"][:200], "nginx -t"
        )


def _disks(facts, thresholds):
    for disk in facts.get("filesystems", []):
        path, word = disk["path"], shlex.quote(disk["path"])
        if disk["used"] >= thresholds["disk"] and disk["free"] < PLENTY:
            make = critical if disk["used"] >= FULL else warning
            yield make(
                "disk-full",
                path,
                f"the file system is {disk['used']:.0%} full",
                f"{size(disk['free'])} of {size(disk['size'])} are free",
                f"du -xh --max-depth=2 {word} | sort -h | tail; journalctl --vacuum-size=200M",
            )
        if disk["inodes"] >= thresholds["inodes"]:
            make = critical if disk["inodes"] >= FULL else warning
            yield make(
                "inodes-full",
                path,
                f"{disk['inodes']:.0%} of the inodes are used",
                "no file can be made when they are used up, however much space is free",
                f"du -x --inodes --max-depth=2 {word} | sort -n | tail",
            )
        if disk["readonly"] and path in {"/", "/var", "/srv", "/run", "/tmp"}:
            yield critical(
                "read-only",
                path,
                "the file system is read-only",
                "the kernel does that after an error of the disk",
                f"dmesg | tail -n 50; mount -o remount,rw {path}",
            )


def _memory(facts, thresholds):
    system = facts.get("system")
    if not system:
        return
    memory = system["memory"]
    total, available = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
    if total and 1 - available / total >= thresholds["memory"]:
        yield critical(
            "memory-low",
            "memory",
            "there is hardly any memory left",
            f"{size(available)} of {size(total)} are available",
            "ps -eo rss,pid,user,args --sort=-rss | head",
        )
    swap, free = memory.get("SwapTotal", 0), memory.get("SwapFree", 0)
    if swap and 1 - free / swap >= thresholds["swap"]:
        yield warning(
            "swap-full",
            "swap",
            f"{1 - free / swap:.0%} of the swap are used",
            f"{size(free)} of {size(swap)} are free",
            "ps -eo rss,pid,user,args --sort=-rss | head; the host needs more memory, or fewer workers",
        )
    load, cpus = system["load"], system["cpus"]
    # Of five minutes, and not yet over.
    if len(load) == 3 and min(load[0], load[1]) / cpus >= thresholds["load"]:
        yield warning(
            "load-high",
            "load",
            f"the load is {load[1]:.1f} on {cpus} CPUs",
            "for five minutes or longer",
            "top -b -n 1 | head -n 20; in state D it is the disk that is waited for",
        )
    kills = facts.get("journal", {}).get("oom", [])
    if kills:
        yield critical(
            "oom-kills",
            "memory",
            "the kernel killed processes for memory",
            ", ".join(kills),
            "journalctl -k --grep 'Out of memory'; the host needs more memory, or fewer workers",
        )


def _descriptors(facts, thresholds):
    found = facts.get("descriptors")
    if not found:
        return
    if found["limit"] and found["used"] / found["limit"] >= thresholds["descriptors"]:
        yield critical(
            "descriptors-low",
            "open files",
            "the system runs out of open files",
            f"{found['used']} of fs.file-max {found['limit']}",
            "sysctl -w fs.file-max=...; lsof -n | wc -l",
        )
    worst = {}
    for item in found["processes"]:
        tight = item["used"] / item["limit"] >= thresholds["descriptors"] if item["limit"] else True
        if tight or item["limit"] < FEWEST_DESCRIPTORS:
            before = worst.get(item["what"])
            if before is None or item["used"] * before["limit"] > before["used"] * item["limit"]:
                worst[item["what"]] = item
    for what, item in sorted(worst.items()):
        name = what.partition("@")[0]
        yield warning(
            "descriptors-low",
            name,
            "too few open files are allowed",
            f"process {item['pid']} has {item['used']} of {item['limit']}",
            "raise nginx_worker_rlimit_nofile"
            if name == "nginx"
            else f"raise service.limit_nofile of {name}, and deploy",
        )


def _clock(facts):
    clock = facts.get("clock")
    if not clock:
        return
    if clock["future"]:
        worst = max(clock["future"], key=lambda item: item["seconds"])
        yield critical(
            "clock-wrong",
            "clock",
            "the clock went back, or was ahead",
            f"{worst['path']} was written {duration(worst['seconds'])} in the future",
            "timedatectl; certificates, logs and releases go by the clock",
        )
    # In a container it is the host's clock, and the host's to set.
    if clock["synchronised"] is False and not facts.get("system", {}).get("container"):
        units = facts.get("units", {}).get("units", {})
        services = [name for name in parse.TIME_SERVICES if units.get(name, {}).get("ActiveState") == "active"]
        yield warning(
            "clock-not-synchronised",
            "clock",
            "nobody keeps the clock right",
            f"{services[0]} runs, and has reached no server" if services else "no time service runs",
            "apt install systemd-timesyncd; timedatectl set-ntp true",
        )


def _units(facts):
    found = facts.get("units")
    if not found:
        return
    apps = {app["name"] for app in facts.get("apps", [])}
    for name in found["failed"]:
        unit = found["units"].get(name, {})
        if name.partition("@")[0] in apps or name == "nginx.service":
            continue  # said in words of its own
        timer = name.removesuffix(".service") + ".timer"
        of_timer = timer in found["timers"]
        yield warning(
            "timer-failed" if of_timer else "unit-failed",
            name,
            "what a timer starts has failed" if of_timer else "a unit has failed",
            f"result: {unit.get('Result', '?')}, exit status {unit.get('ExecMainStatus', '?')}",
            f"journalctl -u {shlex.quote(name)} -n 30; systemctl reset-failed {shlex.quote(name)}",
        )
    for name in found["timers"]:
        unit = found["units"].get(name, {})
        # Some are not meant for this kind of machine, and say so by a condition.
        off = unit.get("ActiveState") in {"inactive", "failed"} and unit.get("ConditionResult") != "no"
        if off and name not in found["failed"]:
            yield warning(
                "timer-failed",
                name,
                "a timer that is enabled does not run",
                f"it is {unit['ActiveState']}",
                f"systemctl start {name}",
            )


def _dns(facts):
    network = facts.get("network", {"addresses": [], "public": []})
    ours = {*network["addresses"], *network["public"]}
    sees_itself = any(parse.is_public(address) for address in ours)
    for name, found in sorted(facts.get("dns", {}).items()):
        if isinstance(found, str):
            yield warning(
                "dns-missing",
                name,
                "the name does not resolve",
                found,
                "add an A and an AAAA record; until then no certificate can be had",
            )
        elif not ours.intersection(found) and not all(address.startswith(("127.", "::1")) for address in found):
            # Behind a translated address a host does not know its own.
            if not sees_itself and all(parse.is_public(address) for address in found):
                continue
            yield warning(
                "dns-elsewhere",
                name,
                "the name leads to another host",
                f"it resolves to {', '.join(found)}, and this host has {', '.join(sorted(ours)) or 'no address'}",
                "correct the record; behind a load balancer, name its addresses in monitoring_troubleshoot_addresses",
            )


def _firewall(facts):
    for port in facts.get("firewall", {}).get("closed", []):
        yield critical(
            "firewall-closed",
            f"port {port}",
            "the firewall lets nobody in",
            f"nftables drops new connections to port {port}",
            f"nft list ruleset; nft insert rule inet filter input tcp dport {port} accept",
        )
