"""Prints what has changed since it ran last, of what no app may change: existence, owner, mode, links and content."""

import json
import os
import re
import stat

STATE = "/run/canaries.json"
TOPS = (
    "/etc",
    "/home",
    "/opt",
    "/root",
    "/srv/beta",
    "/srv/outside",
    "/usr/bin",
    "/usr/lib/python3",
    "/usr/lib/python3.11",
    "/usr/lib/python3.13",
    "/usr/local",
    "/usr/sbin",
    "/var/cache",
    "/var/lib/fastapi",
    "/var/spool",
)
# What a deploy of the attackers' apps changes by right, and what others do meanwhile.
BY_RIGHT = re.compile(
    r"/etc/systemd/system(/|$)(multi-user\.target\.wants|sockets\.target\.wants)?/?(_?(alpha|eve|fay|gus)@.*)?$"
    r"|/(srv|var/cache)/_?(alpha|eve|fay|gus)(/|$)|/var/cache/(apt|nginx|man)(/|$)|/root/\.(ansible|cache)(/|$)"
    r"|/opt/fastapi$|/(var/cache|root|etc)$|/etc/(hostname|hosts|resolv.conf|(passwd|shadow|group|gshadow|subuid|subgid)-?)$"
)


def look():
    found = {}
    for top in TOPS:
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if not BY_RIGHT.match(os.path.join(directory, name))]
            for path in [directory] + [os.path.join(directory, name) for name in files + names]:
                if BY_RIGHT.match(path):
                    continue
                item = os.lstat(path)
                found[path] = [
                    stat.filemode(item.st_mode),
                    item.st_uid,
                    item.st_gid,
                    item.st_nlink,
                    item.st_size,
                    item.st_ctime_ns,
                ]
    return found


now = look()
try:
    with open(STATE, encoding="utf-8") as stream:
        before = json.load(stream)
except FileNotFoundError:
    before = now
with open(STATE, "w", encoding="utf-8") as stream:
    json.dump(now, stream)
changed = {
    path: {"before": before.get(path), "now": now.get(path)}
    for path in sorted({*before, *now})
    if before.get(path) != now.get(path)
}
print(json.dumps(changed))
