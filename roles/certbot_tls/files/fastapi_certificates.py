"""What certbot's deploy hook and certbot.service call: deploy | check | record [RESULT]."""

import glob
import os
import subprocess
import sys

# The role puts the collection's own module there.
sys.path.insert(0, "/usr/local/lib/fastapi")
sys.dont_write_bytecode = True
import tls_host  # noqa: E402  it is not on the path before
from tls_host import Fault  # noqa: E402  it is not on the path before


def run(words):
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    return done.returncode, done.stdout, done.stderr


def deploy():
    """nginx serves the renewed certificate, and goes on with the old one where it cannot."""
    lineage = os.path.realpath(os.environ["RENEWED_LINEAGE"])
    if os.environ.get(tls_host.QUIET) or not tls_host.nginx_runs():
        return
    links = [path for path in glob.glob(f"{tls_host.LINKS}/*") if os.path.realpath(path) == lineage]
    names = set(os.environ.get("RENEWED_DOMAINS", "").split())
    tls_host.reload({path: names for path in links if tls_host.nginx_uses(os.path.basename(path))}, run)


def check():
    """After all renewals: fails the unit where nginx does not serve what is on disk, as a hook's failure does not."""
    faults = [
        f"{name}: {entry['fault']}"
        for name, entry in tls_host.survey(run).items()
        if entry["kind"] == "certbot" and entry["fault"]
    ]
    if faults:
        raise Fault("\n".join(faults))


def record(result=None):
    tls_host.record(run, result or os.environ.get("SERVICE_RESULT"))


COMMANDS = {"deploy": deploy, "check": check, "record": record}


def main(name=None, *arguments):
    if name not in COMMANDS:
        return __doc__
    try:
        COMMANDS[name](*arguments)
    except Fault as fault:
        return str(fault)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
