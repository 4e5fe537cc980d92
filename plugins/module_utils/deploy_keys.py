# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public keys of the deploy user, as sshd reads them, and how they are held to one command."""

from __future__ import annotations

import re

# The command parses SSH_ORIGINAL_COMMAND itself, so no shell and no other program gets it.
HELD = 'command="/usr/local/sbin/fastapi-deploy --from-ssh",restrict'
TYPE = (
    r"(?:ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
)
# Options of sshd(8), in front of the type, with commas between them and quotes around what has spaces.
OPTION = r"[A-Za-z0-9-]+(?:=\"(?:[^\"\\\n]|\\.)*\")?"
KEY = re.compile(rf"(?:({OPTION}(?:,{OPTION})*) +)?({TYPE}) +([A-Za-z0-9+/]+={{0,2}})(?: +([^\n\r]*))?")


def lines(keys):
    """Each line of the keys that is no comment, with the index of its key."""
    return [
        (index, line.strip())
        for index, key in enumerate(keys)
        for line in str(key).splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]


def fault(line, command_only):
    """What is wrong with a line, in words, or None."""
    match = KEY.fullmatch(line)
    if not match:
        return "is not a public key as in authorized_keys"
    if command_only and re.search(r"(?:^|,)command=", match.group(1) or "", re.I):
        return "has a command of its own, and sshd refuses a key with two (hardening_deploy_user.command_only)"
    return None


def authorized_keys(keys, command_only):
    """The text of the file. What a key allows by options of its own is taken back by `restrict`, which is last."""
    result = []
    for _index, line in lines(keys):
        match = KEY.fullmatch(line)
        if command_only and match:
            options = f"{match.group(1)},{HELD}" if match.group(1) else HELD
            line = f"{options} {line[match.start(2) :]}"
        result.append(line)
    return "".join(f"{line}\n" for line in result)
