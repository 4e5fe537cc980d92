# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the spec of the role hardening cannot say: ranges, and what does not go together."""

from __future__ import annotations

from ansible_collections.daoman.fastapi.plugins.module_utils import deploy_keys
from ansible_collections.daoman.fastapi.plugins.module_utils.spec import join, problem

WINDOW = (15, 90)
AT_LEAST_ONE = (
    ("hardening_ssh", "max_auth_tries"), ("hardening_ssh", "login_grace_time"),
    ("hardening_ssh", "max_startups_per_source"), ("hardening_fail2ban", "maxretry"),
    ("hardening_fail2ban", "findtime"), ("hardening_fail2ban", "bantime"),
)


def variables(given):
    """The problems of the role's variables, filled by its spec."""
    confirm = given.get("hardening_confirm") or {}
    window, timeout = confirm.get("window"), confirm.get("timeout")
    if window is not None and not WINDOW[0] <= window <= WINDOW[1]:
        yield problem("hardening_confirm.window", "is not between 15 and 90 seconds", window,
                      mend="Shorter leaves no time for a new connection, longer locks you out for longer")
    elif timeout is not None and not 1 <= timeout * 2 <= window - 5:
        yield problem("hardening_confirm.timeout", f"does not fit twice into the window of {window} s", timeout,
                      mend=f"At most {(window - 5) // 2}")
    for variable, key in AT_LEAST_ONE:
        value = (given.get(variable) or {}).get(key)
        if value is not None and value < 1:
            yield problem(f"{variable}.{key}", "must be at least 1", value)
    ssh, firewall = given.get("hardening_ssh") or {}, given.get("hardening_firewall") or {}
    if ssh.get("port") is not None and not 0 <= ssh["port"] <= 65535:
        yield problem("hardening_ssh.port", "is no port", ssh["port"], mend="Give 1 to 65535, or 0 to leave it")
    for key in ("tcp", "udp", "fleet_ports"):
        for index, port in enumerate(firewall.get(key) or []):
            if port is not None and not 1 <= port <= 65535:
                yield problem(f"hardening_firewall.{join(key, index)}", "is no port", port, mend="Give 1 to 65535")
    ban = given.get("hardening_fail2ban") or {}
    if None not in (ban.get("bantime"), ban.get("bantime_max")) and ban["bantime_max"] < ban["bantime"]:
        yield problem("hardening_fail2ban.bantime_max", f"is less than the first ban of {ban['bantime']} s",
                      ban["bantime_max"])
    deploys = given.get("hardening_deploy_user") or {}
    for index, line in deploy_keys.lines([key or "" for key in deploys.get("authorized_keys") or []]):
        wrong = deploy_keys.fault(line, deploys.get("command_only") is not False)
        if wrong:
            yield problem(f"hardening_deploy_user.{join('authorized_keys', index)}", wrong, line,
                          mend='For example: from="192.0.2.0/24" ssh-ed25519 AAAA... ci')
    user = deploys.get("name")
    if user == "root":
        yield problem("hardening_deploy_user.name", "may do everything already", user, mend="For example: releaser")
    elif user and ssh.get("allow_users") and user not in ssh["allow_users"] and not ssh.get("allow_groups"):
        yield problem("hardening_ssh.allow_users", f"leaves out '{user}' of hardening_deploy_user", ssh["allow_users"],
                      mend=f"Add '{user}'")
