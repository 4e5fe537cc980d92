# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hardening knows of sshd, the firewall and sysctl, without touching a host: what would lock the operator out."""

from __future__ import annotations

import fnmatch
import ipaddress
import re

# Modulus sizes of /etc/ssh/moduli: its fifth column counts from 0, so 3071 is 3072 bits (moduli(5)).
LEAST_MODULUS = 3071
PORT_LINE = re.compile(r"^Port (\d+)\n", re.MULTILINE)
SSH_PORTS = re.compile(r"^define ssh_ports = \{ ([\d, ]+) \}$", re.MULTILINE)
JAIL_PORT = re.compile(r"^port = (\d+)$", re.MULTILINE)
ALGORITHMS = re.compile(r"^(KexAlgorithms|Ciphers|MACs|HostKeyAlgorithms) (\S+)$", re.MULTILINE)
SUDO_USER = re.compile(r"^([\w.-]+) ALL=", re.MULTILINE)
ONLY = re.compile(r"^(.*?) # only OpenSSH (>=|<) ([\d.]+)\n", re.MULTILINE)
HOST_KEY = re.compile(r"^HostKey (\S+)\n", re.MULTILINE)
SETTING = re.compile(r"^([\w./-]+) = (.*)\n", re.MULTILINE)
REMOUNT = re.compile(r"^ExecStart=-\S+ -o remount,(\S+) (\S+)\n", re.MULTILINE)
SU_FOR = re.compile(r"^auth required pam_wheel\.so use_uid group=\S+\n", re.MULTILINE)
INCLUDE = re.compile(r"^\s*Include\s+(?:/etc/ssh/)?sshd_config\.d/\*\.conf\s*$", re.MULTILINE | re.IGNORECASE)
GO_PAST = "If you know better: hardening_confirm.checks: false; what goes wrong is then taken back"


# -- texts ------------------------------------------------------------------------------------------------------------


def with_port(text, port):
    """The drop-in of sshd, or the rules of the firewall, with one more port for SSH."""
    if not port or port in ssh_ports(text):
        return text
    text = PORT_LINE.sub(lambda match: f"{match[0]}Port {port}\n", text, count=1)
    return SSH_PORTS.sub(lambda match: f"define ssh_ports = {{ {match[1]}, {port} }}", text)


def with_ports(text, before):
    """The drop-in of sshd with the ports that it had before, where none is wanted (port 0)."""
    kept = "".join(f"Port {port}\n" for port in ssh_ports(before))
    return PORT_LINE.sub(lambda match: kept if match[1] == "0" else match[0], text)


def with_jail_ports(text, before, keep):
    """The jails of fail2ban for the ports of sshd: those from before where none is wanted (port 0), and one to keep."""

    def ports(match):
        wanted = sorted(before) if match[1] == "0" else [int(match[1])]
        return "port = " + ",".join(str(port) for port in dict.fromkeys([*wanted, keep]) if port)

    return JAIL_PORT.sub(ports, text)


def ssh_ports(text):
    """The ports that either of them names."""
    found = [int(port) for port in PORT_LINE.findall(text)]
    for ports in SSH_PORTS.findall(text):
        found += [int(port) for port in ports.split(",")]
    return found


def known_algorithms(text, known):
    """Without the algorithms that this sshd does not know: one list does for all its versions.

    :arg known: function(keyword) -> the names that sshd knows for it
    """

    def keep(match):
        names = [name for name in match[2].split(",") if name in known(match[1])]
        if not names:
            raise ValueError(f"sshd knows none of the {match[1]} {match[2]}")
        return f"{match[1]} {','.join(names)}"

    return ALGORITHMS.sub(keep, text)


def for_version(text, version):
    """Without the lines for other versions of OpenSSH, which end in a comment that says for which they are."""

    def keep(match):
        wanted = tuple(int(part) for part in match[3].split("."))
        fits = version >= wanted if match[2] == ">=" else version < wanted
        return match[1] + "\n" if fits else ""

    return ONLY.sub(keep, text)


def host_keys(text):
    return HOST_KEY.findall(text)


def without_host_keys(text, unfit):
    return HOST_KEY.sub(lambda match: "" if match[1] in unfit else match[0], text)


def strong_moduli(text):
    """Of /etc/ssh/moduli, what has enough bits."""
    lines = text.splitlines(keepends=True)
    return "".join(
        line for line in lines
        if line.startswith("#") or len(line.split()) < 5 or int(line.split()[4]) >= LEAST_MODULUS)


def with_include(text):
    """sshd_config with its drop-ins read, and first: of most settings sshd takes the first value that it meets."""
    return text if INCLUDE.search(text) else "Include /etc/ssh/sshd_config.d/*.conf\n\n" + text


def settings(text):
    """The settings of a file for sysctl."""
    return dict(SETTING.findall(text))


def without_settings(text, unfit):
    return SETTING.sub(lambda match: "" if match[1] in unfit else match[0], text)


def with_login_settings(text, wanted):
    """login.defs with some settings, each in the place of the one that was there, or of its example."""
    for line in wanted.splitlines():
        name = line.split()[0]
        pattern = re.compile(rf"^(?:#\s*)?{name}\s.*\n", re.MULTILINE)
        uncommented = re.compile(rf"^{name}\s.*\n", re.MULTILINE)
        pattern = uncommented if uncommented.search(text) else pattern
        text = pattern.sub(f"{line}\n", text, count=1) if pattern.search(text) else f"{text}{line}\n"
    return text


def with_su_for(text, line):
    """pam.d/su with the rule that says who may use it, right after the one that lets root do so."""
    text = SU_FOR.sub("", text)
    return re.sub(r"^(auth\s+sufficient\s+pam_rootok\.so.*\n)", rf"\g<1>{line.strip()}\n", text, count=1,
                  flags=re.MULTILINE)


def to_lock(passwd, shadow, least):
    """Whose password is to be locked: any of a system account but root, and empty ones. Whether it is empty, by name.

    :arg least: uid of the first account that is a person's
    """
    accounts = (line.split(":") for line in passwd.splitlines())
    uids = {fields[0]: int(fields[2]) for fields in accounts if len(fields) > 2}
    found = {}
    for name, password, *_rest in (line.split(":") for line in shadow.splitlines() if ":" in line):
        system = 0 < uids.get(name, least) < least
        if not password or (system and password[0] not in "!*"):
            found[name] = not password
    return found


def remounts(text):
    """The options by mount that the unit for mounts names."""
    return {path: options.split(",") for options, path in REMOUNT.findall(text)}


def without_remounts(text, unfit):
    return REMOUNT.sub(lambda match: "" if match[2] in unfit else match[0], text)


def mounted(text):
    """The options by mount point of /proc/mounts; of several mounts in one place the last one counts."""
    return {fields[1]: fields[3].split(",") for fields in (line.split() for line in text.splitlines())}


# -- who gets in ------------------------------------------------------------------------------------------------------


def effective(output):
    """What `sshd -T` says, as lists: some keywords come more than once."""
    found = {}
    for line in output.splitlines():
        key, _dummy, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value.strip())
    return found


def matches(pattern, name, address=""):
    """Whether a pattern of AllowUsers and the like is for this user, who comes from this address (sshd_config(5))."""
    user, _dummy, host = pattern.partition("@")
    if not fnmatch.fnmatchcase(name, user):
        return False
    return not host or fnmatch.fnmatchcase(address, host) or within(address, [host])


def within(address, networks):
    """Whether an address is in one of the networks; empty networks, as the role has them, mean anywhere."""
    try:
        address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    for network in networks:
        try:
            if address in ipaddress.ip_network(network, strict=False):
                return True
        except ValueError:
            continue
    return False


def ssh_problems(settings_, who):
    """Why this user, who connects right now, could not do so again; each names variable, value and mend.

    :arg settings_: effective() for the very user and address
    :arg who: user, address, groups (names), has_keys, by_password
    """
    user, address, groups = who["user"], who["address"], who["groups"]

    def listed(keyword):
        return [pattern for value in settings_.get(keyword, []) for pattern in value.split()]

    def single(keyword):
        return (settings_.get(keyword) or [""])[0]

    def says(keyword, patterns):
        return f"(sshd would have {keyword} {' '.join(patterns)})"

    allowed, denied = listed("allowusers"), listed("denyusers")
    if allowed and not any(matches(pattern, user, address) for pattern in allowed):
        yield (f"hardening_ssh.allow_users: leaves out '{user}', as whom this run connects from {address} "
               f"{says('AllowUsers', allowed)}. Add '{user}'")
    if any(matches(pattern, user, address) for pattern in denied):
        yield (f"hardening_ssh.extra: shuts out '{user}', as whom this run connects {says('DenyUsers', denied)}. "
               "Leave it out")
    allowed, denied = listed("allowgroups"), listed("denygroups")
    if allowed and not any(matches(pattern, group) for pattern in allowed for group in groups):
        yield (f"hardening_ssh.allow_groups: has none of the groups of '{user}', as whom this run connects: "
               f"{', '.join(groups)} {says('AllowGroups', allowed)}. Add one of them, or '{user}' to one of those")
    if any(matches(pattern, group) for pattern in denied for group in groups):
        yield f"hardening_ssh.extra: shuts out a group of '{user}' {says('DenyGroups', denied)}. Leave it out"
    root = single("permitrootlogin")
    if user == "root" and (root == "no" or (root != "yes" and who["by_password"])):
        yield (f"hardening_ssh.permit_root_login: is '{root}', and this run connects as root. Give the host another "
               "user with a key and sudo and connect as that, or set it to 'prohibit-password', with a key")
        return
    passwords = "yes" in (single("passwordauthentication"), single("kbdinteractiveauthentication"))
    if who["by_password"] and not passwords:
        mend = "Connect with the key that it has" if who["has_keys"] else "Give it a key and connect with that"
        yield (f"hardening_ssh.password_authentication: is false, and this run connects as '{user}' with a password. "
               f"{mend}, or set it to true")
    elif not who["by_password"] and single("pubkeyauthentication") == "no":
        yield (f"hardening_ssh.extra: turns keys off, and this run connects as '{user}' with one. "
               "Leave PubkeyAuthentication out")


def sudo_user(texts):
    """The user that a file of sudoers gives a command to."""
    found = [match[1] for text in texts.values() for match in [SUDO_USER.search(text)] if match]
    return found[0] if found else ""


def firewall_problems(allow, address):
    if allow and not within(address, allow):
        yield (f"hardening_firewall.ssh_allow: has no network with {address}, from where this run connects "
               f"(value: {', '.join(allow)}). Add {address}")


def ssh_connection(environ):
    """The parts of SSH_CONNECTION in a process's environment (bytes, as in /proc), or None."""
    variables = dict(item.partition(b"=")[::2] for item in environ.split(b"\0") if b"=" in item)
    parts = variables.get(b"SSH_CONNECTION", b"").decode("ascii", "replace").split()
    if len(parts) != 4:
        return None
    return {
        "user": variables.get(b"USER", b"").decode("utf-8", "replace"),
        "address": parts[0],
        "server": parts[2],
        "port": int(parts[3]),
    }
