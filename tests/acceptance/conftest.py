"""Users on every host, from the first test to the last; each test says in which of them which failures are allowed."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleet import DOMAIN, ROOT, SHORT, Fleet
from load import Load, Tally

# Molecule gives its own inventory; without it, it is that of scripts/acceptance, and the long form.
MOLECULE = os.environ.get("MOLECULE_INVENTORY_FILE")
INVENTORY = Path(MOLECULE).parent if MOLECULE else Path(__file__).parent / "hosts.yml"
LOGS = ROOT / ".cache/acceptance"
SUMMARY = LOGS / "summary"
USERS: pytest.StashKey[Users] = pytest.StashKey()
RATE = 250 if not MOLECULE else 80  # fast requests a second on each host


class Users:
    """The load on all hosts. What they see in a phase counts, unless the phase is one in which they are to suffer."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.phases: list[tuple[str, dict[str, Tally]]] = []
        self.excused: set[str] = set()
        self.loads: dict[str, Load] = {}

    def come(self) -> None:
        for host in self.fleet.hosts:
            load = Load(
                f"https://{host.address()}", DOMAIN, rate=RATE, slow_seconds=self.fleet.slow_seconds,
                slow=4, ws=3, sse=3,
            )  # fmt: skip
            load.__enter__()
            self.loads[host.name] = load
        self.begin("the users come")
        self.settle()

    def go(self) -> None:
        for load in self.loads.values():
            load.stop()
        for load in self.loads.values():
            load.__exit__()
        if self.loads:
            self.phases.append((self.name, {name: load.tallies[-1] for name, load in self.loads.items()}))
        self.loads = {}

    def begin(self, name: str) -> dict[str, Tally]:
        """Begin a phase; what each host's users saw in the one before."""
        ended = {host: load.phase(name) for host, load in self.loads.items()}
        if self.phases or hasattr(self, "name"):
            self.phases.append((self.name, ended))
        self.name = name
        return ended

    def settle(self, seconds: float = 60) -> None:
        """Until no request has failed for two seconds, and some were answered."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            before = [(len(load.tally.failures), load.tally.requests) for load in self.loads.values()]
            time.sleep(2)
            after = [(len(load.tally.failures), load.tally.requests) for load in self.loads.values()]
            if all(a[0] == b[0] and a[1] > b[1] for a, b in zip(after, before, strict=True)):
                return
        raise AssertionError(f"the users are not served again within {seconds} s\n{self.report()}")

    @contextmanager
    def lossless(self, name: str, *, resent: bool = False, kinds: tuple[str, ...] = ()):
        """A phase in which no request may fail. With `kinds`, only of these; the others are shown, and do not count.

        A request may be sent again, on a new connection, only where something is meant to close idle ones.
        """
        self.begin(name)
        tallies = {host: load.tally for host, load in self.loads.items()}
        try:
            yield tallies
            time.sleep(1)  # what is on its way
            for load in self.loads.values():
                load.wait(50)
        finally:
            self.begin("between the tests")
            if kinds:
                self.excuse(tallies, kinds)
        report = "\n".join(tally.report() for tally in tallies.values())
        assert not any(tally.failures for tally in tallies.values()), report
        assert resent or not any(tally.resent for tally in tallies.values()), report

    def excuse(self, tallies: dict[str, Tally], kinds: tuple[str, ...]) -> None:
        for tally in tallies.values():
            tally.excused += [failure for failure in tally.failures if failure.what not in kinds]
            tally.failures = tally.failed(*kinds)

    @contextmanager
    def control(self, name: str):
        """A phase that shows what the users would see if it were done otherwise. It does not count."""
        self.begin(name)
        self.excused.add(name)
        tallies = {host: load.tally for host, load in self.loads.items()}
        try:
            yield tallies
            self.settle()
            for load in self.loads.values():
                load.answered()  # what was sent in between may fail late
        finally:
            self.begin("between the tests")

    @contextmanager
    def away(self):
        """Without users: a machine that is down serves nobody."""
        self.go()
        try:
            yield
        finally:
            self.come()

    def report(self) -> str:
        return "\n".join(load.tally.report() for load in self.loads.values())

    def counted(self) -> list[Tally]:
        return [tally for name, tallies in self.phases if name not in self.excused for tally in tallies.values()]

    def table(self) -> str:
        lines = [Tally.HEADER]
        for name, tallies in self.phases:
            for host, tally in tallies.items():
                place = f" ({host.rpartition('-')[2]})" if len(tallies) > 1 else ""
                note = "  not counted" if name in self.excused else ""
                note += f"  and {len(tally.excused)} that nothing promises" if tally.excused else ""
                lines.append(tally.line(name + place) + note)
        return "\n".join(lines)


def pytest_configure(config: pytest.Config):
    config.addinivalue_line("markers", "long: only in `make acceptance`; Molecule's scenario leaves it out")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]):
    long = [item for item in items if MOLECULE and item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory) -> Fleet:
    fleet = Fleet(INVENTORY, tmp_path_factory.mktemp("source"), long=not MOLECULE)
    fleet.deployed(playbook="site")
    return fleet


@pytest.fixture(scope="session")
def all_users(fleet: Fleet, pytestconfig: pytest.Config):
    users = pytestconfig.stash[USERS] = Users(fleet)
    users.come()
    yield users
    users.go()


@pytest.fixture(scope="module")
def slow_seconds() -> float:
    return SHORT


@pytest.fixture
def users(slow_seconds: float, all_users: Users, fleet: Fleet) -> Users:
    """The users, and an app that the next deploy finds changed in nothing but its version."""
    fleet.reset()
    fleet.guard(0)
    if slow_seconds != fleet.slow_seconds:
        # A release lets its users end what they do only as long as it was told to when it was made.
        raised = slow_seconds > fleet.slow_seconds
        fleet.patience(slow_seconds)
        if raised:
            fleet.deployed()
            fleet.next_version()
        for load in all_users.loads.values():
            load.slow_seconds = slow_seconds
    return all_users


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    users = item.config.stash.get(USERS, None)
    if report.failed and users:
        report.sections.append(("what the users see now", users.report()))
        for host in users.fleet.hosts:
            journal, file = host.journal(), LOGS / f"{item.name}-{host.name}.journal"
            LOGS.mkdir(parents=True, exist_ok=True)
            file.write_text(journal, encoding="utf-8")
            last = "\n".join(line[:200] for line in journal.splitlines()[-10:])
            report.sections.append((f"journal of {host.name}, its last lines; more in {file.relative_to(ROOT)}", last))
    return report


def pytest_terminal_summary(terminalreporter, config: pytest.Config):
    users = config.stash.get(USERS, None)
    if not users:
        return
    terminalreporter.section("what the users saw; times in ms, of fast requests")
    terminalreporter.write_line(users.table())
    for tally in users.counted():
        if tally.failures:
            terminalreporter.write_line(tally.report())
    counted = users.counted()
    requests, failed = sum(tally.requests for tally in counted), sum(len(tally.failures) for tally in counted)
    LOGS.mkdir(parents=True, exist_ok=True)
    SUMMARY.write_text(json.dumps({"requests": requests, "failed": failed}), encoding="utf-8")
