"""`-e app=NAME` means the same in every playbook."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


def play(playbook: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["ansible-playbook", "--inventory", str(Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent),
         f"daoman.fastapi.{playbook}", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
    )  # fmt: skip


def test_releases_are_those_of_the_app():
    listed = play("releases", "-e", "app=shop")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert "shop  2" in listed.stdout and "blog  2" not in listed.stdout


@pytest.mark.parametrize(
    ("playbook", "words"),
    [
        ("releases", "there is no app 'shpo' on this host. There are: blog, shop."),
        ("deploy", "fastapi_apps has no app 'shpo'. Did you mean 'shop'?"),
    ],
)
def test_an_unknown_app_lists_those_that_there_are(playbook, words):
    refused = play(playbook, "-e", "app=shpo")
    assert refused.returncode != 0
    assert words in " ".join((refused.stdout + refused.stderr).split())
