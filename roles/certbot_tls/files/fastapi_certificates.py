"""What certbot's deploy hook and certbot.service call: deploy | check | record [RESULT]."""

import glob
import os
import sys

# Isolated (-I), Python looks nowhere but in its own directories and here; -B keeps it from writing compiled files.
sys.path.insert(0, "/usr/local/lib/fastapi")
from fastapi_host import tls
from fastapi_host.run import run_bounded
from fastapi_host.text import safe
from fastapi_host.tls import Fault

# Of openssl and nginx: seconds, and bytes of output.
TIMEOUT, MOST = 60, 1 << 20


def run(words):
    return run_bounded(words, TIMEOUT, MOST, os.environ)


def deploy():
    """nginx serves the renewed certificate, and goes on with the old one where it cannot."""
    lineage = os.path.realpath(os.environ["RENEWED_LINEAGE"])
    if os.environ.get(tls.QUIET) or not tls.nginx_runs():
        return
    links = [path for path in glob.glob(f"{tls.LINKS}/*") if os.path.realpath(path) == lineage]
    names = set(os.environ.get("RENEWED_DOMAINS", "").split())
    tls.reload({path: names for path in links if tls.nginx_uses(os.path.basename(path))}, run)


def check():
    """After all renewals: fails the unit where nginx does not serve what is on disk, as a hook's failure does not."""
    faults = [
        f"{name}: {entry['fault']}"
        for name, entry in tls.survey(run).items()
        if entry["kind"] == "certbot" and entry["fault"]
    ]
    if faults:
        raise Fault("\n".join(faults))


def record(result=None):
    tls.record(run, result or os.environ.get("SERVICE_RESULT"))


COMMANDS = {"deploy": deploy, "check": check, "record": record}


def main(name=None, *arguments):
    if name not in COMMANDS:
        return __doc__
    try:
        COMMANDS[name](*arguments)
    except Fault as fault:
        return safe(str(fault))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
