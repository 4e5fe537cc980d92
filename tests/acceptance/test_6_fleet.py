"""Several hosts are one site: a migration runs once, and where one of them fails, all stay at the same release."""

from __future__ import annotations

import pytest


@pytest.fixture
def hosts(fleet):
    if len(fleet.hosts) < 2:
        pytest.skip("one host is no fleet: Molecule's scenario has two")
    return fleet.hosts


def test_a_migration_runs_on_one_host(fleet, users, hosts):
    note = 'date +%s >> "/srv/shop/shared/migrated-$FASTAPI_RELEASE"'
    with users.lossless("migration of a fleet"):
        fleet.deployed(release={"hooks": {"migrate": [note]}})
    counts = [host.run("find /srv/shop/shared -name 'migrated-*' | wc -l") for host in hosts]
    assert sorted(counts) == ["0", "1"]


def test_all_hosts_go_back_where_one_fails(fleet, users, hosts):
    """The second one finds that the release does not start there."""
    host = hosts[-1].name.rpartition("-")[2]
    fail = f'case "$(hostname)" in *{host}) exit 4;; esac'
    before = fleet.serving()
    with users.lossless("one host of a fleet fails"):
        fleet.refused(release={"hooks": {"before_switch": [fail]}})
    assert fleet.serving() == before
    fleet.reset()
    fleet.deployed()
    assert fleet.versions() == {fleet.version}
