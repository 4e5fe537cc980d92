"""A release that fails, at whatever step, costs no user a request; the run says where and why."""

from __future__ import annotations

import pytest
from fleet import APP, long_but


def breaks_import(fleet):
    fleet.edit("import logging\n", "import logging\nimport nonsense\n")
    return {}


def hangs_at_import(fleet):
    fleet.edit("app = create_app()", "import time\ntime.sleep(600)\napp = create_app()")
    return {"service": {"timeout_start": 4}}


def hangs_in_lifespan(fleet):
    fleet.edit("    stopping = asyncio.Event()", "    stopping = await asyncio.sleep(600)", "lifespan.py")
    return {"health": {"timeout": 4}}


def raises_in_lifespan(fleet):
    fleet.edit("    stopping = asyncio.Event()", '    raise RuntimeError("no database")', "lifespan.py")
    return {"health": {"timeout": 4}}


def is_never_ready(fleet):
    fleet.edit("    if request.state.stopping.is_set():", "    if True:", "health.py")
    return {"health": {"timeout": 3}}


def needs_what_does_not_exist(fleet):
    project = fleet.source / "pyproject.toml"
    project.write_text(project.read_text(encoding="utf-8").replace('"uvicorn-worker>=0.4"', '"uvicorn-worker>=99"'))
    return {}


def hook(point):
    def change(fleet):
        return {"release": {"hooks": {point: ["echo said by the hook; exit 3"]}}}

    return change


# What is done to the release; the phase that the run names; what else it says.
CASES = {
    "fetch": (lambda fleet: {"subdirectory": "nowhere"}, "fetch", "'nowhere' is not in the source"),
    "before_build": (hook("before_build"), "before_build", "said by the hook"),
    "build": (needs_what_does_not_exist, "build", "uvicorn-worker>=99"),
    "after_build": (hook("after_build"), "after_build", "said by the hook"),
    "check-config": (breaks_import, "check", "No module named 'nonsense'"),
    "hang at import": (hangs_at_import, "check", "not done within 4 s"),
    "migrate": (hook("migrate"), "migrate", "said by the hook"),
    "start": (
        lambda fleet: {"gunicorn": {"extra": 'def on_starting(server):\n    raise RuntimeError("not today")\n'}},
        "start",
        "not today",
    ),
    "hang in lifespan": (hangs_in_lifespan, "readiness", "did not answer 200"),
    "exception in lifespan": (raises_in_lifespan, "readiness", "no database"),
    "readiness": (is_never_ready, "readiness", "the last answer was 503"),
    "before_switch": (hook("before_switch"), "before_switch", "said by the hook"),
    "after_switch": (hook("after_switch"), "after_switch", "said by the hook"),
}
SHORT = ("check-config", "readiness")


@pytest.mark.parametrize("step", long_but(SHORT, CASES))
def test_a_release_that_fails_changes_nothing_for_users(fleet, users, step):
    change, phase, words = CASES[step]
    before = fleet.versions()
    options = change(fleet)
    with users.lossless(f"failure: {step}") as tallies:
        run = fleet.refused(**options)
    assert f"{APP}: {phase} failed: " in run.output, run.output
    assert words in run.output, run.output
    if phase != "after_switch":  # there it serves for a moment
        assert {version for tally in tallies.values() for version in tally.versions} == before


@pytest.mark.long
def test_a_source_that_is_not_there_changes_nothing_for_users(fleet, users):
    with users.lossless("failure: fetch from a server that is down"):
        run = fleet.refused(source="http://127.0.0.1:9/app.tar.gz", checksum="sha256:" + "0" * 64)
    assert f"{APP}: fetch failed: cannot download http://127.0.0.1:9/app.tar.gz" in run.output, run.output


@pytest.mark.long
def test_after_a_failure_the_next_deploy_works(fleet, users):
    fleet.refused(**is_never_ready(fleet))
    fleet.reset()
    with users.lossless("deploy after a failed one"):
        fleet.deployed()
    assert fleet.versions() == {fleet.version}


@pytest.mark.long
def test_a_failed_release_is_marked_and_no_rollback_chooses_it(fleet, users):
    fleet.deployed()
    good = fleet.version
    fleet.next_version()
    fleet.refused(**is_never_ready(fleet))
    failed = {host.name: host.releases()[-1] for host in fleet.hosts}
    for host in fleet.hosts:
        assert host.state(failed[host.name]) == "failed"
    fleet.reset()
    fleet.deployed()
    with users.lossless("rollback past a failed release"):
        fleet.deployed("-e", f"app={APP}", playbook="rollback")
    assert fleet.versions() == {good}
    one = failed[fleet.hosts[0].name]
    refused = fleet.play("rollback", "-e", f"app={APP}", "-e", f"release={one}")
    assert refused.returncode != 0
    assert f"cannot go to release '{one}'" in refused.output, refused.output


# -- the guard --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_guard_goes_back_from_a_slow_release_and_loses_nothing(fleet, users):
    fleet.guard(6, requests=10)
    fleet.edit("async def whoami(request: Request) -> dict[str, Any]:\n", WHOAMI_SLOW, "routes.py")
    with users.lossless("guard: a slow release"):
        run = fleet.refused()
    assert f"{APP}: guard failed: " in run.output
    assert "requests after the switch took up to" in run.output


WHOAMI_SLOW = "async def whoami(request: Request) -> dict[str, Any]:\n    await asyncio.sleep(1.2)\n"


def test_the_guard_goes_back_from_a_release_with_errors(fleet, users):
    """What the bad release answers is seen by users; nothing else is, and nothing after the guard's time."""
    fleet.guard(6)
    fleet.edit(
        "async def whoami(request: Request) -> dict[str, Any]:\n",
        'async def whoami(request: Request) -> dict[str, Any]:\n    raise RuntimeError("bad release")\n',
        "routes.py",
    )
    with users.lossless("guard: a release with errors", kinds=("post", "static", "slow", "ws", "sse")) as tallies:
        run = fleet.refused()
    assert f"{APP}: guard failed: " in run.output
    assert "500 for GET /whoami" in run.output
    assert any(tally.excused for tally in tallies.values())
    for tally in tallies.values():
        errors = tally.excused
        assert not errors or {(error.what, error.kind) for error in errors} == {("get", "status")}
        assert all(error.detail.startswith("500") for error in errors), tally.report()
        assert not errors or errors[-1].at - errors[0].at < 10, "users saw errors after the guard's time"
    for host in fleet.hosts:
        assert host.state(host.releases()[-1]) in ("failed", "rolled back")


@pytest.mark.long
def test_the_hook_after_a_failure_is_told_which(fleet, users):
    tell = 'echo "$FASTAPI_HOOK $FASTAPI_RELEASE $FASTAPI_PREVIOUS" > /srv/shop/shared/told'
    with users.lossless("failure with a hook after it"):
        fleet.refused(release={"hooks": {"migrate": ["exit 1"], "after_failure": [tell]}})
    told = fleet.hosts[0].run("cat /srv/shop/shared/told").split()
    assert told[0] == "after_failure" and told[2] == fleet.hosts[0].live()
