"""Makes the collection importable under its full name, as Ansible does, and the programs that the roles install."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import ansible_collections

sys.path.append(str(Path(__file__).parent))

HERE = str(Path(__file__).parent.parent / "collections" / "ansible_collections")
ansible_collections.__path__ = [HERE, *ansible_collections.__path__]

# On a host _host has this name. A package of its own: its modules must not replace those under the long name.
package = types.ModuleType("fastapi_host")
package.__path__ = [str(Path(__file__).parent.parent / "plugins/module_utils/_host")]
sys.modules["fastapi_host"] = package

PROGRAMS = Path(__file__).parent.parent / "roles/monitoring/files"
sys.path[:0] = [str(PROGRAMS / name) for name in ("troubleshoot", "resources", "exporter")]
