"""Makes the collection importable under its full name, as Ansible does, and the programs that the roles install."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible_collections

HERE = str(Path(__file__).parent.parent / "collections" / "ansible_collections")
ansible_collections.__path__ = [HERE, *ansible_collections.__path__]

# On a host it has this name.
from ansible_collections.daoman.fastapi.plugins.module_utils import _host  # noqa: E402  the path is set above

sys.modules["fastapi_host"] = _host

PROGRAMS = Path(__file__).parent.parent / "roles/monitoring/files"
sys.path[:0] = [str(PROGRAMS / name) for name in ("troubleshoot", "resources", "exporter")]
