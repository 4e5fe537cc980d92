"""The app comes back by itself: after a killed worker, a killed master, and a restart of the machine."""

from __future__ import annotations

import json
import subprocess
import time

URL = "https://shop.example.com/whoami"

# Runs on the host: kills a process, then asks the site every 20 ms until it has answered for 2 s without a failure.
KILL_AND_ASK = """
import json, os, signal, subprocess, sys, time
os.kill(int(sys.argv[1]), signal.SIGKILL)
killed = last_failure = time.monotonic()
asked = failed = slowest = 0
curl = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--insecure", "--max-time", "2"]
curl += ["--connect-to", "::127.0.0.1:", sys.argv[2]]
while time.monotonic() < min(last_failure + 2, killed + 30):
    asked += 1
    started = time.monotonic()
    if subprocess.run(curl, capture_output=True, text=True).stdout != "200":
        failed += 1
        last_failure = time.monotonic()
    slowest = max(slowest, time.monotonic() - started)
    time.sleep(0.02)
print(json.dumps({"asked": asked, "failed": failed, "slowest": round(slowest, 2),
                  "back_after": round(last_failure - killed, 2) if failed else 0}))
"""


def main_pid(host) -> int:
    unit = host.check_output("systemctl list-units --plain --no-legend --state=active 'shop@*.service'").split()[0]
    return int(host.check_output("systemctl show --property MainPID --value %s", unit))


def workers(host) -> set[int]:
    return {int(pid) for pid in host.run("pgrep --parent %s", str(main_pid(host))).stdout.split()}


def kill_and_ask(host, pid: int) -> dict:
    return json.loads(host.check_output("python3 -c %s %s %s", KILL_AND_ASK, str(pid), URL))


def test_killed_worker_is_replaced_and_no_request_fails(host, measured):
    before = workers(host)
    victim = min(before)
    result = kill_and_ask(host, victim)
    measured(f"a worker is killed: {result}")
    after = workers(host)
    assert victim not in after
    assert len(after) == len(before) == 2
    assert result["failed"] == 0, result


def test_killed_master_comes_back(host, measured):
    before = main_pid(host)
    result = kill_and_ask(host, before)
    measured(f"the master is killed: {result}")
    assert main_pid(host) not in (0, before)
    # The socket unit holds the connections until the new master takes them: they wait, but do not fail.
    assert result["back_after"] + result["slowest"] < 10, result


def test_site_survives_a_restart_of_the_machine(host, web, measured):
    before = host.check_output("readlink /srv/shop/current")
    subprocess.run(["docker", "restart", "--time", "30", host.backend.hostname], check=True, capture_output=True)
    started = time.monotonic()
    while (response := web.get(URL)).status != 200:
        assert time.monotonic() < started + 60, response
        time.sleep(0.1)
    measured(f"the machine is restarted: it answers {time.monotonic() - started:.1f} s later")
    assert host.check_output("readlink /srv/shop/current") == before
    assert web.get("https://blog.example.com/whoami", cert="blog").json()["version"] == "blog"
    assert host.check_output("systemctl --failed --plain --no-legend") == ""

