"""A deploy that is killed, at whatever step, leaves a site that serves; the next one repairs what it left."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from fleet import APP, killed, long_but, wait_for

POINTS = ("migrate", "before_switch", "after_switch")
PHASES = ("fetch", "build", "check", "migrate", "start", "ready", "before_switch")
PHASES += ("switch", "after_switch", "guard", "drain")
SHORT = ("after_switch",)


def held(phase: str) -> dict:
    """Options with which a deploy stays in a phase for long enough to be met there."""
    return {"release": {"hooks": {phase: ["sleep 5"]}}} if phase in POINTS else {}


def repaired(fleet) -> None:
    """The next deploy works and leaves nothing of the interrupted one."""
    fleet.deployed()
    assert fleet.versions() == {fleet.version}
    for host in fleet.hosts:
        assert host.served_alone(host.live()), host.units()
        for release in host.releases():
            assert host.run(f"ls /srv/{APP}/releases/{release}/manifest.json"), release


@pytest.mark.parametrize("phase", long_but(SHORT, PHASES))
def test_a_deploy_that_is_killed_leaves_a_site_that_serves(fleet, users, phase):
    before = fleet.versions()
    fleet.guard(2 if phase == "guard" else 0)
    if phase == "fetch":  # so large that unpacking it takes a moment
        (fleet.source / "large").write_bytes(bytes(200_000_000))
    if phase == "build":  # an environment of its own, so that there is something to build
        project = fleet.source / "pyproject.toml"
        project.write_text(project.read_text(encoding="utf-8") + f"# {fleet.version}\n", encoding="utf-8")
    with users.lossless(f"SIGKILL in phase {phase}"):
        killers = [host.when_phase(phase, "kill -9 $pid") for host in fleet.hosts]
        run = fleet.play("deploy", **held(phase))
        # A migration runs on one host, and where that fails, the others do not go on.
        assert True in [killer.wait(1) for killer in killers], f"phase {phase} was not met\n{run.output}"
        assert run.returncode != 0, run.output
        assert fleet.versions() <= {*before, fleet.version}
    fleet.reset()
    fleet.guard(0)
    with users.lossless(f"repair after phase {phase}"):
        repaired(fleet)


@pytest.mark.parametrize("phase", long_but((), ("migrate", "after_switch")))
def test_a_controller_that_dies_leaves_a_site_that_serves(fleet, users, phase):
    with users.lossless(f"controller killed in phase {phase}"):
        reached = fleet.hosts[0].when_phase(phase)
        run = fleet.start("deploy", **held(phase))
        assert reached.wait(), killed(run)
        killed(run)
        # What runs on a host goes on without its controller; until then another run is told to wait.
        wait_for(lambda: not any(host.is_busy() for host in fleet.hosts), 60, "the end of the module")
    fleet.next_version()
    with users.lossless("repair after a killed controller"):
        repaired(fleet)


@pytest.mark.long
def test_of_two_deploys_at_once_one_is_told_to_wait(fleet, users):
    with users.lossless("two deploys at once"):
        reached = fleet.hosts[0].when_phase("migrate")
        first = fleet.start("deploy", **held("migrate"))
        assert reached.wait(), killed(first)
        second = fleet.play("deploy", env={"APP_VERSION": "second"})
        output = first.communicate()[0]
    assert first.returncode == 0, output
    assert second.returncode != 0
    assert f"{APP}: another run is changing it: " in second.output, second.output
    assert fleet.versions() == {fleet.version}


@pytest.mark.long
def test_a_run_that_hangs_can_be_taken_over(fleet, users):
    with users.lossless("a run that hangs is taken over"):
        reached = fleet.hosts[0].when_phase("migrate")
        first = fleet.start("deploy", release={"hooks": {"migrate": ["sleep 600"]}})
        assert reached.wait(), killed(first)
        fleet.deployed("-e", "break_lock=true")
        wait_for(lambda: first.poll() is not None, 30, "the end of the run that was taken over")
    assert first.returncode != 0
    assert fleet.versions() == {fleet.version}


def reboot(fleet) -> None:
    """Pull the plug of all machines, and wait until they are up again."""
    names = [host.name for host in fleet.hosts]
    subprocess.run(["docker", "restart", "--time", "0", *names], check=True, capture_output=True)
    for host in fleet.hosts:
        wait_for(lambda host=host: host.run("systemctl is-system-running", check=False) in ("running", "degraded"), 60)


@pytest.mark.parametrize("phase", [pytest.param("before_switch", marks=pytest.mark.long), "after_switch"])
def test_a_reboot_amid_a_deploy_starts_the_live_release_alone(fleet, users, phase):
    with users.away():
        reached = fleet.hosts[0].when_phase(phase)
        run = fleet.start("deploy", **held(phase))
        assert reached.wait(), killed(run)
        os.killpg(run.pid, signal.SIGKILL)
        live = fleet.live()
        run.communicate()
        reboot(fleet)
        for host, release in zip(fleet.hosts, live, strict=True):
            service = f"{APP}@{release}.service"
            wait_for(lambda host=host, unit=service: host.run(f"systemctl is-active {unit}", check=False) == "active")
            assert host.live() == release
            assert host.running() == [service, f"{APP}@{release}.socket"]
    fleet.next_version()
    with users.lossless("repair after a reboot"):
        repaired(fleet)
