"""Shared by the tests of all scenarios: a failed test shows the journal of the host that it looked at."""

from __future__ import annotations

import pytest

MEASURED: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_configure(config: pytest.Config):
    config.stash[MEASURED] = []
    config.addinivalue_line("markers", "either_host: would be the same on any host; it runs on one, each in turn")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]):
    """Of the tests that would do on either host, leave each to one of them."""
    by_test: dict[tuple, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("either_host"):
            others = [value for name, value in item.callspec.params.items() if name != "_testinfra_host"]
            by_test.setdefault((item.path, item.originalname, repr(others)), []).append(item)
    spared = {item for turn, same in enumerate(by_test.values()) for item in same if item != same[turn % len(same)]}
    config.hook.pytest_deselected(items=[item for item in items if item in spared])
    items[:] = [item for item in items if item not in spared]


@pytest.fixture
def measured(host, request):
    """Notes a measurement, shown when all tests are through."""
    return lambda text: request.config.stash[MEASURED].append(f"{host.backend.hostname}: {text}")


def pytest_terminal_summary(terminalreporter, config: pytest.Config):
    if config.stash[MEASURED]:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(config.stash[MEASURED]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.when == "call" and report.failed and host is not None:
        units = host.run("systemctl --failed --no-legend --plain").stdout.strip() or "none"
        # Every module that Ansible runs leaves a line too; they would crowd out what matters.
        journal = host.run("journalctl --no-pager --lines 500 | grep -v ' ansible-' | tail -n 50").stdout
        report.sections.append((f"failed units of {host.backend.hostname}", units))
        report.sections.append((f"journal of {host.backend.hostname}", journal))
    return report
