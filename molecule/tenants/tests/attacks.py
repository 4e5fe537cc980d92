"""The attacks that are deploys: what alpha's people publish, and the options with which it is released."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import yaml

SERVER = "http://127.0.0.1:8098"


def merged(app: dict, options: dict) -> dict:
    """The app with options set, dicts within dicts."""
    result = copy.deepcopy(app)
    for key, value in options.items():
        result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def app_of(scenario: Path, name: str) -> dict:
    """An app as the role gunicorn_app takes it: alpha, or another name with alpha's options."""
    variables = yaml.safe_load((scenario / "group_vars/fastapi_app.yml").read_text(encoding="utf-8"))
    app = copy.deepcopy(variables["fastapi_apps"][0])
    app.update(name=name, static_paths=["static", "uploads"])
    del app["nginx"]
    return app


# Shell commands of hooks, and what they are in the source: `probe.py` tries everything at once.
HOSTILE_HOOKS = {
    "before_build": ["python3 probe.py build-before"],
    "after_build": ["python3 probe.py build-after"],
    "migrate": ["python3 probe.py migrate"],
    "before_switch": ["python3 probe.py before-switch"],
    "after_switch": ["python3 probe.py after-switch"],
}
# These never serve: they end when all that root does to their trees is done, or before.
NEVER_LIVE = {"release": {"hooks": {"migrate": ["exit 3"]}, "shared_paths": []}, "static_paths": []}

ODD_FILES = """
mkfifo fifo static/fifo
cp /bin/true static/setuid
chmod 6755 static/setuid
mkdir static/sticky
chmod 7777 static/sticky
truncate -s 1T static/sparse
touch -- -rf static/--help "static/$(printf 'a\\nb\\033]0;owned\\007')"
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("static/socket")'
for file in /opt/victim/readable /opt/victim/secret /etc/passwd; do
    ln "$file" "static/to-$(basename $file)" || true
done
mknod static/null c 1 3 || true
"""
PRINT_ESCAPES = "printf '\\033]0;owned\\007\\033[2J\\302\\2332J\\r\\b\\377'"
FLOOD = 300_000_000
FLOODED = '"flooded", size=os.fstat(1).st_size'
DEVOUR = (
    "python3 -c 'x = [bytearray(1 << 20) for _ in range(1400)]; import urllib.request as u; u.urlopen(\"{}/devoured\")'"
)
FORK = """
import os, sys, time
count = 0
try:
    while count < 3000:
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        count += 1
finally:
    sys.path.insert(0, ".")
    import probe
    probe.report("forked", count=count)
"""


def attackers(scenario: Path) -> list[dict]:
    return [app_of(scenario, name) for name in ("alpha", "eve", "fay", "gus")]


def attacks(scenario: Path, sources: Path) -> list[dict]:
    alpha, eve, fay, gus = attackers(scenario)
    found = []

    def attack(name: str, base: dict, /, **options) -> None:
        found.append({"name": name, "app": merged(base, options)})

    def branch(name: str, **options) -> None:
        attack(name, merged(eve, {"version": name, **NEVER_LIVE}), **options)

    def archive(name: str, **options) -> None:
        path = str(sources / name)
        static = ["static"] if name in ("devices.tar.gz", "odd.tar.gz") else []
        attack(name, merged(eve, {"source": path, **NEVER_LIVE}), static_paths=static, **options)

    def hook(name: str, command: str, base: dict = eve, **options) -> None:
        base = merged(base, {"version": "plain", **NEVER_LIVE})
        attack(name, merged(base, {"release": {"hooks": {"before_build": [command]}}}), **options)

    # Each run of the tests makes its own releases.
    run = str(time.time())
    attack("build", alpha, version="build", env={"ALPHA": "probe", "RUN": run}, release={"hooks": HOSTILE_HOOKS})
    attack("python", alpha, version="python", env={"RUN": run})
    attack("after", alpha, version="after", env={"RUN": run})

    branch("static-link", static_paths=["app/static"])
    branch("static-parent", static_paths=["app/static"])
    branch("static-inner", static_paths=["app/static"])
    branch("static-file", static_paths=["app/static"])
    branch("static-up", static_paths=["app/static"])
    branch("pycache")
    branch("pycache-beta")
    branch("subdirectory", subdirectory="sub", static_paths=["static"])
    branch("upload-link", static_paths=["uploads"], release={"shared_paths": ["uploads"]})
    branch("file-links")
    hook("swapped-static", "rm -r app/static && ln -s /opt/victim/tree app/static", static_paths=["app/static"])
    hook("swapped-subdirectory", "cd .. && mv app was && ln -s /opt/victim/tree app", subdirectory="app")
    hook("odd-files", ODD_FILES, static_paths=["static"])

    for name in ("ext", "option", "command", "file", "local", "missing", "private"):
        branch(name)
    branch("ssh", source="git@127.0.0.1:/srv/outside/git/alpha.git")

    for path in sorted(sources.iterdir()):
        archive(path.name, **({"app": "leadsout:app"} if path.suffix == ".whl" else {}))

    hook("output", f"{PRINT_ESCAPES}; head -c 3000000 /dev/zero | tr '\\0' x; exit 1")
    hook(
        "flood",
        f"head -c {FLOOD} /dev/zero; python3 -c 'import os, probe; probe.report({FLOODED})'",
    )
    attack("secrets", merged(alpha, NEVER_LIVE), version="secrets")
    hook("forks", f"python3 -c '{FORK}'")
    hook("memory", DEVOUR.format(SERVER))
    hook("deadline", "trap '' TERM; setsid sleep 60 & sleep 60", release={"build_timeout": 4})
    attack(
        "loader",
        merged(eve, NEVER_LIVE),
        version="plain",
        env={
            "LD_DEBUG": "statistics",
            "LD_DEBUG_OUTPUT": "/srv/eve/shared/ld",
            "PYTHONPATH": "/srv/eve/shared",
            "PYTHONSTARTUP": "/srv/eve/shared/x",
        },
    )
    attack("escape", fay, version="plain", env={"ALPHA": "escape"}, health={"timeout": 3})
    attack("endless", fay, version="plain", env={"ALPHA": "endless"}, health={"timeout": 3})
    attack(
        "drip",
        fay,
        version="plain",
        env={"ALPHA": "drip"},
        health={"timeout": 3},
        release={"hooks": {"after_failure": ["python3 probe.py after-failure"]}},
    )
    hook("fifo", "rm -f pyproject.toml; mkfifo pyproject.toml", gus)
    # An app of a name that is somebody's already, and the removal of apps that never were.
    for name in ("alice", "debconf"):
        attack(f"new-{name}", merged(eve, {"name": name}), version="plain")
    for name in ("alice", "git", "outside", "debconf", "ldconfig"):
        found.append({"name": f"absent-{name}", "removal": name})
    return found
