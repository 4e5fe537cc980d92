"""The app's processes may die under the users; what the machine can do again by itself is not lost."""

from __future__ import annotations

import time

import pytest
from fleet import APP, DOMAIN, wait_for

# A request that was being answered by what is killed is sent again by nginx, where that is harmless.
AGAIN = ("get", "static")
WAITING = 24  # so many that each of three workers has some


def killed_amid_answers(host, pid: int) -> list[str]:
    """Kill a process while each worker is answering some requests that take two seconds; the statuses of these."""
    url = f"https://{DOMAIN}/slow?seconds=2"
    ask = f"curl -sk --max-time 30 -o /dev/null -w '%{{http_code}}\\n' --resolve {DOMAIN}:443:127.0.0.1 '{url}'"
    return host.run(f"for _ in $(seq {WAITING}); do {ask} & done; sleep 1; kill -9 {pid}; wait").split()


@pytest.mark.long
def test_a_killed_worker_costs_no_request_that_can_be_sent_again(fleet, users):
    with users.lossless("kill -9 of a worker", kinds=AGAIN) as tallies:
        for host in fleet.hosts:
            assert killed_amid_answers(host, host.workers()[0]) == ["200"] * WAITING
        time.sleep(3)
    assert all(len(host.workers()) == 3 for host in fleet.hosts)
    # A POST that was being answered is lost: of a worker's share at this rate, a handful at most.
    for tally in tallies.values():
        assert sum(failure.what == "post" for failure in tally.excused) <= 5, tally.report()


def test_a_killed_master_costs_no_request_that_can_be_sent_again(fleet, users):
    before = {host.name: host.main_pid() for host in fleet.hosts}
    with users.lossless("kill -9 of the master", kinds=AGAIN):
        for host in fleet.hosts:
            assert killed_amid_answers(host, host.main_pid()) == ["200"] * WAITING
        time.sleep(6)
    for host in fleet.hosts:
        assert host.main_pid() not in (0, before[host.name])
        assert len(host.workers()) == 3


@pytest.mark.long
def test_a_worker_that_eats_all_memory_is_the_only_one_to_go(fleet, users):
    """OOMPolicy=continue: the kernel kills one worker, the master makes another, the unit goes on."""
    host = fleet.hosts[0]
    eat = '@router.get("/eat")\nasync def eat() -> int:\n    return len(b"x" * 2_000_000_000)\n'
    fleet.edit('@router.get("/cached")\n', eat + '\n\n@router.get("/cached")\n', "routes.py")
    fleet.deployed(service={"memory_max": "300M"})
    unit = f"{APP}@{host.live()}.service"
    assert int(host.run(f"systemctl show -P MemoryMax {unit}")) == 300 * 1024 * 1024
    group = host.run(f"systemctl show -P ControlGroup {unit}")
    limits = f"cat /sys/fs/cgroup/memory{group}/memory.limit_in_bytes /sys/fs/cgroup{group}/memory.max 2>/dev/null"
    if str(300 * 1024 * 1024) not in host.run(limits, check=False):
        pytest.skip("MemoryMax does not reach the kernel in this container")
    master = host.main_pid()
    with users.lossless("a worker out of memory", kinds=AGAIN):
        workers = set(host.workers())
        host.run(f"curl -s --max-time 20 --unix-socket /srv/{APP}/live.sock http://shop.example.com/eat", check=False)
        wait_for(lambda: len(workers - set(host.workers())) == 1, 15, "the end of one worker")
        wait_for(lambda: len(host.workers()) == 3, 15, "three workers")
    assert host.main_pid() == master
