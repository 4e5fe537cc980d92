"""One command puts a site into maintenance, another takes it out again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def maintenance(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["ansible-playbook", "--inventory", str(Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent),
         "daoman.fastapi.maintenance", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
    )  # fmt: skip


def test_a_site_goes_into_maintenance_and_comes_back_and_others_go_on(web):
    begun = maintenance("-e", "app=shop")
    try:
        assert begun.returncode == 0, begun.stdout + begun.stderr
        response = web.get("https://shop.example.com/whoami")
        assert (response.status, response.headers.get("retry-after")) == (503, "300"), response
        assert web.get("https://blog.example.com/whoami", cert="blog").status == 200
        assert "changed=0" in maintenance("-e", "app=shop").stdout, "it is already in maintenance"
    finally:
        maintenance("-e", "app=shop", "-e", "maintenance=false")
    assert web.get("https://shop.example.com/whoami").status == 200


def test_a_misspelt_site_is_named():
    refused = maintenance("-e", "app=shpo")
    assert refused.returncode != 0
    assert "There is no site 'shpo' on this host" in refused.stdout + refused.stderr
