"""A host is damaged, the doctor names it, its fix is run as printed: the host is healthy, and nothing was lost."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.either_host

# Of an app, for what damages it.
PRELUDE = """
set -eu
live() { basename "$(readlink "/srv/$1/live.sock")" .sock; }
release() { echo "/srv/$1/releases/$(live "$1")"; }
venv() { readlink -f "$(release "$1")/venv"; }
"""
# Asks the site every 50 ms until a file is gone; prints how many were not answered 200.
ASK = """
import os, subprocess, time
failed = asked = 0
curl = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--insecure", "--max-time", "5"]
curl += ["--connect-to", "::127.0.0.1:", "https://shop.example.com/whoami"]
while os.path.exists("/run/asking"):
    asked += 1
    failed += subprocess.run(curl, capture_output=True, text=True).stdout != "200"
    time.sleep(0.05)
open("/run/asked", "w").write(f"{asked} {failed}")
"""


@dataclass(frozen=True)
class Round:
    """What is damaged at a time, and by which findings it is named: (finding, subject)."""

    damage: str
    findings: tuple[tuple[str, str], ...]
    # What fixes all of it, of these findings.
    fixed_by: str
    # Whether users of shop notice nothing, neither of the damage nor of its fix.
    lossless: bool = True


ROUNDS = {
    "packages and environment": Round(
        "rm -rf $(venv shop); rm $(release blog)/env",
        (("release-damaged", "shop"), ("app-environment", "blog")),
        "release-damaged",
    ),
    "owners and a link": Round(
        "chown -R root:root /srv/shop; rm /srv/blog/current",
        (("app-directories", "shop"), ("app-links-differ", "blog")),
        "app-directories",
    ),
    "interpreter and a directory that nobody may enter": Round(
        "ln -sfn /usr/bin/python3.0 $(venv shop)/bin/python; chmod 0700 /srv/blog",
        (("app-interpreter", "shop"), ("app-directories", "blog")),
        "app-interpreter",
    ),
    "live.sock": Round("rm /srv/shop/live.sock", (("app-not-live", "shop"),), "app-not-live", lossless=False),
    "all of /etc/nginx": Round(
        "rm -rf /etc/nginx/*",
        (("nginx-config-broken", "nginx"), ("nginx-site-off", "shop"), ("nginx-site-off", "blog")),
        "nginx-config-broken",
    ),
}


def diagnosed(host) -> dict[tuple[str, str], str]:
    """The fix of each finding."""
    report = json.loads(host.run("troubleshoot.sh --json --window 1").stdout)
    return {(item["id"], item["subject"]): item["mend"] for item in report["findings"]}


def run_as_printed(host, command: str) -> None:
    """By Ansible for this host alone, or on the host."""
    if not command.startswith("ansible-playbook "):
        host.check_output(command)
        return
    inventory = str(Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent)
    words = [*command.split(), "--inventory", inventory, "--limit", host.backend.hostname]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ROUNDS)
def test_damage_is_named_and_its_fix_works_as_printed(host, web, name):
    this = ROUNDS[name]
    before = diagnosed(host)
    live = host.check_output("readlink /srv/shop/live.sock")
    if this.lossless:
        host.check_output("touch /run/asking; rm -f /run/asked")
        host.check_output("systemd-run --quiet --collect python3 -c %s", ASK)
    host.check_output("sh -c %s", PRELUDE + this.damage)
    found = diagnosed(host)
    assert {finding for finding in found if finding not in before} >= set(this.findings), found
    (fix,) = {mend for (id_, _subject), mend in found.items() if id_ == this.fixed_by}
    run_as_printed(host, fix)
    if this.lossless:
        host.check_output("rm /run/asking; timeout 20 sh -c 'until [ -s /run/asked ]; do sleep 0.05; done'")
        asked, failed = map(int, host.check_output("cat /run/asked").split())
        assert asked > 20 and failed == 0
    # What is about the machine, such as its load, is no matter of this.
    left = {finding for finding in diagnosed(host) if finding[1] in {"shop", "blog", "nginx"}}
    assert not left - set(before)
    for app in ("shop", "blog"):
        assert web.get(f"https://{app}.example.com/whoami", cert=app).status == 200
    # Rebuilt where files could not be restored, and kept where they could.
    rebuilt = host.check_output("readlink /srv/shop/live.sock") != live
    assert rebuilt == (this.fixed_by in {"release-damaged", "app-interpreter"})
    # After it the next start works, also that of a reboot.
    unit = host.check_output("basename $(readlink /srv/shop/live.sock) .sock")
    host.check_output(f"systemctl restart shop@{unit}.service")
