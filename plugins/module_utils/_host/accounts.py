# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The accounts of an app, and what of a host is an app's at all.

An app has two accounts: `<app>` runs it, `_<app>` builds it. Neither can log in or is in the group of the other.

Nothing that was on the host before is adopted, changed or removed. An account is an app's by its comment and form,
which no person's account has: a system account without home and shell. A directory is an app's if an app's account or
the manifests of its releases, which root wrote, say so. Everything else of that name belongs to somebody else.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import signal
import stat
import time

from .release import ID, ReleaseError

COMMENT = "FastAPI app"
BUILD_COMMENT = "FastAPI build"
HOME = "/nonexistent"
NO_SHELL = "/usr/sbin/nologin"
# Debian policy 9.2.2: uids that are given to system accounts of a host, unlike those that all hosts have.
SYSTEM = range(100, 1000)
# Names with a meaning on Debian, or in this stack, also on a host where they do not exist yet.
RESERVED = frozenset(
    word
    for line in (
        # accounts and groups of base-passwd
        "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup adm",
        "tty disk kmem dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp video sasl plugdev",
        "staff users input sgx kvm render crontab netdev",
        # directories in /var/cache, /run and /srv
        "adduser apt debconf ldconfig private fontconfig lock log shm user udev mount credentials ftp tftp",
        # services, which bring accounts, units or directories of that name
        "ssh sshd getty cron dpkg systemd dbus messagebus polkitd rsyslog nginx certbot fail2ban nftables ufw fastapi",
        "prometheus alertmanager grafana pushgateway docker containerd postgres postgresql mysql mariadb redis",
        "memcached rabbitmq postfix exim dovecot bind unbound chrony ntpsec",
        "fastapi-apps-exporter fastapi-edge-exporter fastapi-firewall fastapi-mounts fastapi-resources",
        "fastapi-restore-at-boot",
    )
    for word in line.split()
)
UNIT_DIRECTORIES = (
    *("etc/systemd/system", "run/systemd/system", "run/systemd/generator", "run/systemd/generator.late"),
    *("usr/local/lib/systemd/system", "usr/lib/systemd/system"),
)
UNIT_TYPES = "service|socket|timer|path|target|slice|scope|mount|automount|swap|device"
# Where any account may leave something, or have it run later.
SHARED = ("tmp", "var/tmp", "dev/shm", "dev/mqueue", "run/lock", "var/spool/cron", "var/mail")
# Directives of a unit that let an app write outside of its own directories, and where.
WRITABLE = {
    "ReadWritePaths": "/",
    "StateDirectory": "/var/lib",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
}
# Seconds for killed processes to be gone.
DEATH = 10


def names(layout):
    """The accounts of an app with their comments: the one that runs it comes first."""
    return ((layout.name, COMMENT), (layout.build_account, BUILD_COMMENT))


def _account(name):
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _group(name):
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None


def is_ours(account, comment):
    """Whether an account is one that this collection made."""
    return (
        account.pw_uid in SYSTEM
        and account.pw_dir == HOME
        and os.path.basename(account.pw_shell) == "nologin"
        and account.pw_gecos.split(",")[0] == comment
    )


def is_there(name, comment):
    """Whether there is an account of this name that this collection made."""
    account = _account(name)
    return account is not None and is_ours(account, comment)


def uids(layout):
    """Uids of the accounts of an app that are there."""
    return [_account(name).pw_uid for name, comment in names(layout) if is_there(name, comment)]


# -- what is there, and whose it is -----------------------------------------------------------------------------------


def refuse_foreign(layout):
    """ReleaseError where what an app of this name would use belongs to somebody else. Changes nothing."""
    owned = is_app(layout)
    found = _foreign_accounts(layout) + _foreign_directories(layout, owned)
    if not owned:
        if layout.name in RESERVED:
            found.insert(0, "the name is reserved: Debian or a service of this stack uses it")
        found += _foreign_units(layout)
        if os.path.lexists(layout.run):
            found.append(describe_path(layout.run))
    if found:
        taken = owned and os.path.lexists(layout.base) and os.lstat(layout.base).st_uid in uids(layout)
        advice = "Give the app another name, or remove by hand what nobody needs."
        if taken:
            advice = f"If only its owner was changed: chown root:root {layout.base}, and run this again."
        raise _refusal(layout, found, advice)


def refuse_removal(layout):
    """ReleaseError where what has the name of an app to be removed belongs to somebody else. Changes nothing."""
    owned = is_app(layout)
    found = _foreign_accounts(layout) + _foreign_directories(layout, owned)
    if found:
        raise _refusal(layout, found, "Delete the entry of the app from the inventory, or remove this by hand.")
    extra = layout.foreign(_listed(layout.base)) if owned else []
    if extra:
        paths = ", ".join(_shown(os.path.join(layout.base, name)) for name in extra[:5])
        raise _refusal(layout, [f"{len(extra)} entries in {layout.base}: {paths}"], "Move them to another place.")
    mounts = [path for top in (layout.base, layout.cache, layout.run) for path in mounts_at(top)]
    if mounts:
        raise ReleaseError("choose", f"file systems are mounted in it: {', '.join(map(_shown, mounts))}. Unmount them.")


def _refusal(layout, found, advice):
    text = "; ".join(found)
    return ReleaseError(
        "choose", f"'{layout.name}' is not free on this host. Not made by this collection: {text}. {advice}"
    )


def is_app(layout):
    """Whether there is, or was, an app of this name: it has an account of ours, or a manifest that root wrote."""
    return bool(uids(layout)) or any(
        _is_roots(layout.release(id_, "manifest.json"), stat.S_ISREG)
        for id_ in (
            layout.ids() if all(_is_roots(path, stat.S_ISDIR) for path in (layout.base, layout.releases)) else []
        )
    )


def _is_roots(path, kind):
    """Whether it is of this kind and nobody but root could have made or changed it."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return kind(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _foreign_accounts(layout):
    found = []
    for name, comment in names(layout):
        account, group = _account(name), _group(name)
        if account and not is_ours(account, comment):
            found.append(
                f"the account {name} (uid {account.pw_uid}, comment '{_shown(account.pw_gecos)}', home "
                f"{_shown(account.pw_dir)}, shell {_shown(account.pw_shell)}; that of an app is a system account with "
                f"comment '{comment}', home {HOME} and shell {NO_SHELL})"
            )
        elif group and (account is None or account.pw_gid != group.gr_gid):
            members = ", ".join(map(_shown, group.gr_mem)) or "none"
            found.append(f"the group {name} (gid {group.gr_gid}, members: {members})")
    return found


def _foreign_directories(layout, owned):
    found = []
    if os.path.lexists(layout.base):
        names = _listed(layout.base)
        known = not layout.foreign(names) if owned else set(names) <= {os.path.basename(layout.lock)}
        deployed = owned and bool(layout.ids())
        if not _is_roots(layout.base, stat.S_ISDIR) or not (known or deployed):
            found.append(describe_path(layout.base))
    if os.path.lexists(layout.cache):
        status = os.lstat(layout.cache)
        if not owned or not stat.S_ISDIR(status.st_mode) or status.st_uid not in {os.geteuid(), *uids(layout)}:
            found.append(describe_path(layout.cache))
    return found


def _foreign_units(layout):
    """Units of others, whose drop-ins or templates would apply to the app's, or which share its name in logs."""
    unit = re.compile(rf"{re.escape(layout.name)}(@[^/]*)?\.({UNIT_TYPES})")
    paths = {
        os.path.join(layout.top, directory, name)
        for directory in UNIT_DIRECTORIES
        for name in _listed(os.path.join(layout.top, directory))
        if (match := unit.fullmatch(name)) and not ID.match((match[1] or "")[1:])
    }
    return [f"the unit {_shown(path)}" for path in sorted(paths)[:3]]


def _listed(path):
    try:
        return os.listdir(path)
    except OSError:
        return []


def _shown(text):
    """A name that somebody else chose, safe for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text)[:200])


def describe_path(path):
    """What lies at a path, whose it is, and since when."""
    status = os.lstat(path)
    kind = next(
        (word for word, test in (("link", stat.S_ISLNK), ("directory", stat.S_ISDIR)) if test(status.st_mode)), "file"
    )
    changed = time.strftime("%Y-%m-%d", time.gmtime(status.st_mtime))
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    return f"the {kind} {path} (owner {_owner(status)}, mode {mode}, changed {changed})"


def _owner(status):
    try:
        user = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        user = f"uid {status.st_uid}"
    try:
        return f"{user}:{grp.getgrgid(status.st_gid).gr_name}"
    except KeyError:
        return f"{user}:gid {status.st_gid}"


def mounts_at(top):
    """Mount points at a path or below it."""
    top = os.path.realpath(top)
    return [point for point in mounts() if f"{point}/".startswith(f"{top}/")]


def mounts():
    """All mount points."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        return [re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split()[4]) for line in stream]


# -- making and removing them -----------------------------------------------------------------------------------------


def ensure(layout, run, check=False):
    """Make the accounts of an app; whether that is a change. `run` is AnsibleModule.run_command or one like it."""
    changed = False
    for name, comment in names(layout):
        if _account(name) is None:
            changed = True
            if not check:
                _run(
                    run,
                    *("useradd", "--system", "--user-group", "--home-dir", HOME, "--no-create-home"),
                    *("--shell", NO_SHELL, "--comment", comment, "--", name),
                )
    (app, _comment), (build, _build_comment) = names(layout)
    for member, name in ((app, build), (build, app)):
        group = _group(name)
        if group and member in group.gr_mem:
            changed = True
            if not check:
                _run(run, "gpasswd", "--delete", member, name)
    return changed


def remove(layout, run):
    """Remove the accounts of an app, with all that the next owner of their uids would inherit."""
    found = uids(layout)
    if not found:
        return
    end_processes(layout, run)
    tops = [os.path.realpath(os.path.join(layout.top, path)) for path in SHARED]
    owned = [word for uid in found for word in ("-o", "-uid", str(uid))][1:]
    # find removes by directory descriptors, however deep, and follows no link.
    _run(
        run,
        "find",
        *filter(os.path.isdir, tops),
        "-ignore_readdir_race",
        "-xdev",
        "-depth",
        "(",
        *owned,
        ")",
        "-delete",
    )
    end_processes(layout, run)  # what cron started meanwhile
    for kind, option in (("shm", "--shmem-id"), ("sem", "--semaphore-id"), ("msg", "--queue-id")):
        for number in _ipc(kind, found):
            _run(run, "ipcrm", option, number)
    for name, comment in names(layout):
        if is_there(name, comment):
            account = _account(name)
            _run(run, "userdel", "--", name)
            group = _group(name)
            # Where login.defs has USERGROUPS_ENAB off.
            if group and group.gr_gid == account.pw_gid and not group.gr_mem:
                _run(run, "groupdel", "--", name)


def end_processes(layout, run):
    """End all that runs as an account of the app, also outside of its units."""
    found = uids(layout)
    for name, _comment in names(layout):
        linger = os.path.join(layout.top, "var/lib/systemd/linger", name)
        if os.path.lexists(linger):
            os.unlink(linger)
    for uid in found:
        if os.path.isdir(os.path.join(layout.top, "run/user", str(uid))):
            _run(run, "systemctl", "stop", f"user@{uid}.service", f"user-runtime-dir@{uid}.service")
    _end(found)


def units_of_others(layout, run):
    """Units that run as an account of the app and are not its own, such as an operator's, with those that start them.

    systemd would start them again as often as their processes were ended.
    """
    accounts = [name for name, _comment in names(layout)]
    users = {*accounts, *map(_uid_of, accounts)}
    found = set()
    for pid in _processes(uids(layout)):
        unit = _group_of(pid).strip().rpartition("/")[2]
        if not unit.endswith(".service") or unit.startswith((f"{layout.name}@", "user@")):
            continue
        code, out, _err = run(["systemctl", "show", "--property=User,TriggeredBy", "--", unit])
        facts = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        # What only has a process of the account in it, as cron has, is left alone.
        if code == 0 and facts.get("User") in users:
            found.update([unit, *facts.get("TriggeredBy", "").split()])
    return sorted(found)


def _uid_of(name):
    account = _account(name)
    return str(account.pw_uid) if account else None


def end_builds(layout, spared):
    """End all that runs as the build account, but in units whose control group has one of `spared` in its name."""
    _end([_account(layout.build_account).pw_uid], spared)


def _end(found, spared=()):
    deadline = time.monotonic() + DEATH
    while True:
        left = {pid: name for pid, name in _processes(found).items() if not _is_in(pid, spared)}
        if not left:
            return
        if time.monotonic() > deadline:
            raise ReleaseError("remove", f"these processes of it do not end: {', '.join(left.values())}.")
        # Stopped first, so that none starts another one meanwhile.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in left:
                _signal(pid, number, found)
        time.sleep(0.05)


def _is_in(pid, units):
    group = _group_of(pid) if units else ""
    return any(each in group for each in units)


def _group_of(pid):
    """The control groups of a process, which it cannot choose."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _processes(found):
    """Processes that run as one of these uids, really or effectively: {pid: description}."""
    return {
        int(name): f"{name} ({_shown(_command(name))})"
        for name in os.listdir("/proc")
        if name.isdigit() and _uids(name).intersection(found) and not _is_containers(name)
    }


def _is_containers(pid):
    """Whether it runs in a container that root started, whose accounts have the host's uids by chance.

    That is another pid namespace in this user namespace. A user needs a user namespace to make a pid namespace.
    """
    if len(_status(pid).get("NSpid", "").split()) < 2:
        return False
    try:
        return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    except OSError:  # it has ended, or this is itself a container, which may not look at that
        return False


def _status(pid):
    """What the kernel tells about a process; nothing where it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
            lines = dict(line.split(":", 1) for line in stream if ":" in line)
    except OSError:
        return {}
    return {} if lines.get("State", "").split()[:1] in (["Z"], ["X"]) else lines


def _uids(pid):
    return {int(word) for word in _status(pid).get("Uid", "").split()}


def _command(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _signal(pid, number, found):
    """Send a signal to a process, unless another one has got its id since."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _uids(pid).intersection(found):
            signal.pidfd_send_signal(descriptor, number)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _ipc(kind, found):
    """Ids of the System V objects of these uids."""
    try:
        with open(f"/proc/sysvipc/{kind}", encoding="ascii") as stream:
            head, *rows = [line.split() for line in stream]
    except (OSError, ValueError):
        return []
    id_, owner = head.index(f"{kind}id" if kind != "msg" else "msqid"), head.index("uid")
    return [row[id_] for row in rows if int(row[owner]) in found]


def remove_tree(path, run):
    """Remove a tree by directory descriptors, however deep: no link is followed, and no mounted file system entered."""
    _run(run, "rm", "-rf", "--one-file-system", "--preserve-root=all", "--", path)


def written_elsewhere(unit, found):
    """Paths outside of an app's directories that its unit let it write, and that belong to one of these uids."""
    paths = set()
    for match in re.finditer(rf"^({'|'.join(WRITABLE)})=(.*)$", unit, re.MULTILINE):
        for word in match[2].split():
            paths.add(os.path.join(WRITABLE[match[1]], word.lstrip("-+").split(":")[0]))
    result = []
    for path in sorted(paths):
        try:
            if os.lstat(path).st_uid in found:
                result.append(path)
        except OSError:
            continue
    return result


def _run(run, *command):
    code, out, err = run(list(command), errors="surrogate_then_replace", expand_user_and_vars=False)
    if code:
        phase = "install" if command[0] in {"useradd", "gpasswd"} else "remove"
        raise ReleaseError(phase, f"{' '.join(command[:4])} ... ended with {code}", out + err)
