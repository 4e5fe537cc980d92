"""What --check says comes true: on a bare host it predicts the very changes that follow, afterwards none."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

RUNS = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "runs")


def changed_tasks(file: Path) -> Counter[str]:
    tasks = json.loads(file.read_text(encoding="utf-8"))["tasks"]
    return Counter(f"{task['host']}: {task['task']}" for task in tasks if task["changed"])


def runs() -> list[Path]:
    """The runs since the containers were created; a developer's `molecule converge` has no check before it."""
    found = sorted(RUNS.glob("*.json"))
    if not found or not found[0].name.endswith("-check.json"):
        pytest.skip("the first run was no check: use `molecule test`, or `molecule check` before `molecule converge`")
    return found


def test_check_on_the_bare_host_predicts_the_changes():
    check, run, *_ = runs()
    predicted, happened = changed_tasks(check), changed_tasks(run)
    assert not happened - predicted, "changed, but not predicted"
    assert not predicted - happened, "predicted, but not changed"


def test_a_bare_host_is_changed():
    """Guards the comparison above: two empty sets would agree as well."""
    assert changed_tasks(runs()[1])


def test_check_on_the_finished_host_predicts_nothing():
    assert not changed_tasks([run for run in runs() if run.name.endswith("-check.json")][-1])
