"""Reads, as anybody may, the command line of every process again and again, and notes those with a secret in them."""

import glob
import time

with open("/srv/outside/secrets", "rb") as stream:
    SECRETS = stream.read().split()
seen = set()
while True:
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as stream:
                line = stream.read()
        except OSError:
            continue
        if line not in seen and any(secret in line for secret in SECRETS):
            seen.add(line)
            print(line.replace(b"\0", b" ").decode("utf-8", "replace"), flush=True)
    time.sleep(0.005)
