# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of fastapi-local.service: `local SETTINGS`. Only some accounts may connect to some ports.

These are ports of this host, by rules of nftables on loopback, which also carries what the host sends to its own
addresses, and ports of the hosts that Prometheus asks, whose firewalls know this host by its address alone.

Others remove the rules without knowing: Debian's /etc/nftables.conf begins with `flush ruleset`, and a reload of
nftables.service, a firewall or a person loads it. The kernel reports each removal, and the table is loaded again.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import pwd
import select
import signal
import socket
import struct
import subprocess
import sys

NFT = "/usr/sbin/nft"
TABLE = ("inet", "fastapi_local")
NETLINK_NETFILTER = 12
# NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h, and of the messages the removals: of a table, a chain, a rule.
GROUP = 7
# Seconds between two looks whether an account has come, as with a package, or has another user id.
LOOKED = 10.0
# Only what opens a connection is refused. All other packets pass, also those of a socket that is closed already.
RULES = """
table {table}
delete table {table}
table {table} {{
    chain output {{
        type filter hook output priority filter; policy accept;
        tcp flags & (fin | syn | rst | ack) != syn accept
        oifname "lo" tcp dport {{ {ports} }} jump callers
        {remote}
    }}
    chain callers {{
        meta skuid {{ {uids} }} accept
        reject with tcp reset
    }}
}}
"""
HEADER = struct.Struct("=IHHII")
REMOVALS = {10 << 8 | message for message in (2, 5, 8)}
NOTIFY = os.environ.pop("NOTIFY_SOCKET", "")


def notify(text):
    if NOTIFY:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + NOTIFY[1:] if NOTIFY.startswith("@") else NOTIFY)
            sender.sendall(text.encode())


def nft(*arguments, text=None):
    return subprocess.run([NFT, *arguments], input=text, capture_output=True, text=True, check=False, timeout=30)


def listed():
    """The table as the kernel has it. Empty where it has none."""
    return nft("list", "table", *TABLE).stdout


def user_ids(names):
    """Those of the accounts that there are."""
    found = {0}
    for name in names:
        with contextlib.suppress(KeyError):
            found.add(pwd.getpwnam(name).pw_uid)
    return sorted(found)


def targets(addresses):
    """Rules for `10.0.0.1:9100` and `[fd00::1]:9100`. A host that is known by its name only has none."""
    found = {4: [], 6: []}
    for item in addresses:
        host, _colon, port = item.rpartition(":")
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(host.strip("[]"))
            found[address.version].append(f"{address} . {int(port)}")
    for family, version in (("ip", 4), ("ip6", 6)):
        if found[version]:
            yield f"{family} daddr . tcp dport {{ {', '.join(sorted(set(found[version])))} }} jump callers"


def load(settings, uids):
    """Loads the table in one transaction: there is no moment without it. Returns it as the kernel has it."""
    text = RULES.format(
        table=" ".join(TABLE),
        ports=", ".join(map(str, settings["ports"])),
        remote="\n        ".join(targets(settings["targets"])),
        uids=", ".join(map(str, uids)),
    )
    done = nft("-f", "-", text=text)
    if done.returncode != 0:
        sys.exit(
            f"nft does not load the rules for the local services: {done.stderr.strip()}\n"
            "Where a host has no nftables, monitoring_local_services: false leaves them out."
        )
    return listed()


def removals(events):
    """Whether something was removed, of what the kernel has told by now."""
    found = False
    while True:
        try:
            data = events.recv(1 << 16)
        except BlockingIOError:
            return found
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            found = True  # there was more than could be told
            continue
        while len(data) >= HEADER.size:
            length, kind, _flags, _sequence, _port = HEADER.unpack_from(data)
            found = found or kind in REMOVALS
            data = data[max(length + 3 & ~3, HEADER.size) :]


def main():
    (path,) = sys.argv[1:]
    with open(path, encoding="utf-8") as stream:
        settings = json.load(stream)
    ending, wake = socket.socketpair()
    for end in (ending, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        keep_loaded(settings, ending)
    finally:
        # They stay over a restart. They go with their settings, where they are switched off.
        if not os.path.exists(path):
            done = nft("delete", "table", *TABLE)
            if done.returncode != 0:
                print(f"nft does not remove the rules for the local services: {done.stderr.strip()}", flush=True)


def keep_loaded(settings, ending):
    """Keeps the table loaded until something can be read from `ending`."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as events:
        events.setblocking(False)
        events.bind((0, 1 << GROUP - 1))
        uids = user_ids(settings["users"])
        meant = load(settings, uids)
        notify("READY=1")
        while True:
            ready, _write, _error = select.select([events, ending], [], [], LOOKED)
            if ending in ready:
                break
            now = user_ids(settings["users"])
            if now != uids:
                uids, meant = now, load(settings, now)
            elif events in ready and removals(events) and listed() != meant:
                meant = load(settings, uids)
                print("The rules for the local services were removed by somebody, and are loaded again.", flush=True)


if __name__ == "__main__":
    main()
