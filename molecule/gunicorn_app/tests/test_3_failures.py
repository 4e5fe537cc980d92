"""Releases that fail say why, and the one that serves goes on."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.either_host

def test_an_app_that_cannot_be_imported_says_why(tiny):
    tiny.deployed()
    tiny.edit("import json", "import json\nimport nonsense")
    out = tiny.refused()
    assert "Traceback (most recent call last)" in out
    assert "ModuleNotFoundError: No module named 'nonsense'" in out


def test_an_app_that_does_not_start_says_why(host, tiny):
    tiny.deployed()
    # An exception here would tell uvicorn that the app has no lifespan; frameworks report theirs like this.
    tiny.edit(
        '{"type": message["type"] + ".complete"}', '{"type": "lifespan.startup.failed", "message": "no database"}'
    )
    out = tiny.refused()
    assert "no database" in out
    failed = host.check_output("grep -l '\"failed\"' /srv/tiny/releases/*/state.json").split()
    assert len(failed) == 1


def test_an_app_that_is_not_ready_says_what_it_answered(tiny):
    tiny.deployed()
    tiny.edit("status = 400 if host", 'status = 503 if scope["path"] == "/health/ready" else 400 if host')
    assert "the last answer was 503" in tiny.refused(health={"timeout": 3})


def test_an_app_that_hangs_at_import_is_given_up(tiny):
    tiny.deployed()
    tiny.edit("import json", "import json\nimport time\ntime.sleep(600)")
    assert "does not come to its end within 3 s" in tiny.refused(service={"timeout_start": 3})


def test_a_unit_that_systemd_does_not_know_is_refused(tiny):
    tiny.deployed()
    assert "Memory-Max" in tiny.refused(service={"overrides": {"Service": {"Memory-Max": "1G"}}})


def test_a_unit_that_is_too_open_is_refused(tiny):
    tiny.deployed()
    assert "over service.exposure_limit 1.5" in tiny.refused(
        service={"overrides": {"Service": {"PrivateDevices": False, "ProtectHome": False}}}
    )


def test_a_lower_limit_counts_though_the_unit_is_the_same(tiny):
    tiny.deployed()
    tiny.edit('REVISION = "1"', 'REVISION = "4"')
    assert "over service.exposure_limit 0.1" in tiny.refused(service={"exposure_limit": 0.1})


def test_secrets_are_not_shown_by_a_failure(tiny):
    tiny.deployed()
    tiny.edit("import json", 'import json\nimport os\nraise RuntimeError(os.environ["TOKEN"])')
    out = tiny.refused(env={"TOKEN": "correct-horse-battery"})
    assert "correct-horse-battery" not in out
    assert "RuntimeError: <TOKEN>" in out
