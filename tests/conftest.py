"""Makes the collection importable under its full name, as Ansible does, beside those of the tool environment."""

from __future__ import annotations

from pathlib import Path

import ansible_collections

HERE = str(Path(__file__).parent.parent / "collections" / "ansible_collections")
ansible_collections.__path__ = [HERE, *ansible_collections.__path__]
