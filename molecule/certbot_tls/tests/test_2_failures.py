"""Sites that are new, and whose certificates cannot be had: they are served all the same, and the others get theirs."""

from __future__ import annotations

import pytest
from conftest import CLOSED, MAIN, changed, describe, disk, os_name, served

# The ACME server is down, the DNS does not know the name, it leads to a machine where nothing listens; one that is
# all right.
NEW = [
    {"name": "closed", "domains": ["closed.{{ os }}.test"], "server": CLOSED},
    {"name": "nowhere", "domains": ["nowhere.{{ os }}.test"]},
    {"name": "gone", "domains": ["gone.{{ os }}.test"]},
    {"name": "new", "domains": ["new.{{ os }}.test"]},
]


@pytest.fixture(scope="module")
def first_run(fleet):
    return fleet.run(certificates=changed() + NEW)


@pytest.mark.parametrize(
    "name, why",
    [
        ("closed", "Connection refused"),
        ("nowhere", "nowhere.{os}.test: "),
        ("gone", "connection refused"),
    ],
)
def test_the_run_says_which_name_failed_and_why(first_run, host, name, why):
    said = first_run.of(host)
    assert first_run.code == 2 and first_run.failed(host) == 1, first_run.output[-3000:]
    about = said.partition(f"{name}: there is no new certificate")[2].partition("The next run tries again")[0]
    assert why.format(os=os_name(host)) in about, said
    assert "served with its self-signed placeholder" in about, said


def test_nobody_else_is_mentioned(first_run, host):
    assert first_run.of(host).count("there is no new certificate") == 3, first_run.of(host)


@pytest.mark.parametrize("name", ["closed", "nowhere", "gone"])
def test_the_site_is_served_with_its_placeholder(first_run, host, name):
    assert "Placeholder" in describe(host, name)
    assert served(host, f"{name}.{os_name(host)}.test") == disk(host, name)
    assert not host.file(f"/etc/letsencrypt/live/{name}").exists


def test_a_bad_name_does_not_hold_up_the_others(first_run, host):
    assert "Pebble" in describe(host, "new")
    assert served(host, f"new.{os_name(host)}.test") == disk(host, "new")


def test_the_next_run_mends_it(first_run, fleet):
    """The server is there again; the names that lead nowhere have left the inventory."""
    closed = [{**NEW[0], "server": MAIN}, NEW[3]]
    gone = [{**item, "state": "absent"} for item in NEW[1:3]]
    run = fleet.run(certificates=changed() + closed + gone)
    assert run.code == 0, run.output[-3000:]
    for name, host in fleet.hosts.items():
        assert "Pebble" in describe(host, "closed")
        assert served(host, f"closed.{name}.test") == disk(host, "closed")
        assert not host.file("/var/lib/fastapi/placeholder/gone").exists
