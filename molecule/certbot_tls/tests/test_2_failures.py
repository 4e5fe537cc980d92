"""Sites that are new, and whose certificates cannot be had: they are served all the same, and the others get theirs."""

from __future__ import annotations

import pytest
from conftest import ADDED, CLOSED, changed, describe, disk, os_name, served

# The ACME server is down, the DNS does not know the name, it leads to a machine where nothing listens.
BAD = [
    {**ADDED[0], "server": CLOSED},
    {"name": "nowhere", "domains": ["nowhere.{{ os }}.test"]},
    {"name": "gone", "domains": ["gone.{{ os }}.test"]},
]


@pytest.fixture(scope="module")
def first_run(fleet):
    return fleet.run(certificates=changed() + BAD + ADDED[1:])


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


@pytest.mark.parametrize("name", ["new", "brief"])
def test_a_bad_name_does_not_hold_up_the_others(first_run, host, name):
    assert "Pebble" in describe(host, name)
    assert served(host, f"{name}.{os_name(host)}.test") == disk(host, name)
