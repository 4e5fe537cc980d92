# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every role: its spec is complete and true, its tasks are a table of contents, its files are marked."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.daoman.fastapi.plugins.module_utils import apps, rules, spec
from ansible_collections.daoman.fastapi.plugins.modules import systemd_units

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
# As the design lays them out.
EXPECTED = ["certbot_tls", "gunicorn_app", "hardening", "monitoring", "nginx", "systemd_service"]


def load(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def every_option(options: dict, path: str = ""):
    """All options of a spec with their paths, at every depth."""
    for name, option in options.items():
        where = f"{path}.{name}" if path else name
        yield where, option
        yield from every_option(option.get("options") or {}, where)


def every_task(tasks: list):
    """All tasks of a file, those in blocks too."""
    for task in tasks or []:
        yield task
        for inner in ("block", "rescue", "always"):
            yield from every_task(task.get(inner) or [])


def files(pattern: str) -> list[Path]:
    found = sorted(ROOT.glob(pattern))
    assert found, f"nothing matches {pattern}: the test would test nothing"
    return found


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


TASK_FILES = [*files("roles/*/tasks/*.yml"), *files("playbooks/*.yml"), *ROOT.glob("roles/*/handlers/*.yml")]
TEMPLATES = files("roles/*/templates/*.j2")
OPTIONS = [
    pytest.param(role, where, option, id=f"{role}: {where}")
    for role in ROLES
    for point in spec.entry_points(role).values()
    for where, option in every_option(point.get("options") or {})
]


def test_all_roles_are_there():
    assert ROLES == EXPECTED


# -- specs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_the_spec_and_the_defaults_agree(role):
    options = spec.load(role)
    defaults = load(ROOT / "roles" / role / "defaults/main.yml") or {}
    documented = {name: option["default"] for name, option in options.items() if "default" in option}
    assert defaults == documented
    assert {name: type(value) for name, value in defaults.items()} == {
        name: type(value) for name, value in documented.items()}


@pytest.mark.parametrize("role", ROLES)
def test_the_defaults_fit_the_spec(role):
    filled, problems = spec.check(spec.load(role), load(ROOT / "roles" / role / "defaults/main.yml") or {})
    assert problems == []
    assert rules.check(role, filled) == []


@pytest.mark.parametrize("role", ROLES)
def test_public_variables_carry_the_roles_name(role):
    for point in spec.entry_points(role).values():
        assert [name for name in point.get("options") or {} if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_says_what_it_is_for(role):
    for point in spec.entry_points(role).values():
        assert point.get("short_description") and point.get("description")


@pytest.mark.parametrize("role, where, option", OPTIONS)
def test_an_option_is_typed_and_described(role, where, option):
    description = option.get("description")
    text = " ".join(description) if isinstance(description, list) else description or ""
    assert option.get("type"), "has no type"
    assert text.strip().endswith((".", ")")), "has no description of whole sentences"
    if option["type"] == "list":
        assert option.get("elements"), "is a list without elements"
    if option.get("options"):
        assert option["type"] == "dict" or option.get("elements") == "dict"
    assert not (option.get("required") and "default" in option), "is required and has a default"
    # null fails for most types, and what a template would find, facts, is not there yet
    assert "default" not in option or option["default"] is not None
    assert "{{" not in str(option.get("default", ""))
    # Ansible's validation shows such values all the same: secrets are plain strings, hidden at the task
    assert "no_log" not in option or option["no_log"] is False


def test_every_option_of_the_apps_is_one_of_a_role():
    roles = {}
    for role in ("certbot_tls", "gunicorn_app", "nginx"):
        for where, option in every_option(spec.load(role)):
            roles.setdefault(where.rpartition(".")[2], []).append(option.get("description"))
    for where, option in every_option(apps.options()["fastapi_apps"]["options"]):
        name = where.rpartition(".")[2]
        assert where in ("certificate", "nginx") or option.get("description") in roles[name], where


def test_the_module_takes_what_the_role_documents():
    """systemd_units has its units' options in its documentation, its code and the role's spec."""
    documented = yaml.safe_load(systemd_units.DOCUMENTATION)["options"]["units"]["suboptions"]
    role = spec.load("systemd_service")["systemd_service_units"]["options"]

    def essence(options):
        keys = ("type", "elements", "choices", "default", "required")
        return {name: {key: option[key] for key in keys if key in option} for name, option in options.items()}

    assert essence(documented) == essence(role) == essence(systemd_units.OPTIONS)


def test_the_readmes_and_the_reference_are_generated():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/docs.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_table_would_be_seen():
    found = importlib.util.spec_from_file_location("docs", ROOT / "scripts/docs.py")
    docs = importlib.util.module_from_spec(found)
    found.loader.exec_module(docs)
    old = docs.with_table("# role\n", docs.table({"a": {"type": "str", "description": "A."}}))
    new = docs.with_table(old, docs.table({"a": {"type": "int", "description": "A."}}))
    assert "| `a` | str |" in old and "| `a` | int |" in new and "str" not in new
    assert new.count(docs.BEGIN) == 1


# -- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_the_metadata_says_where_the_role_runs(role):
    meta = load(ROOT / "roles" / role / "meta/main.yml")
    info = meta["galaxy_info"]
    assert info["license"] == "GPL-3.0-or-later"
    assert info["min_ansible_version"] == "2.19"
    assert info["platforms"] == [{"name": "Debian", "versions": ["bookworm", "trixie"]}]
    assert info["description"] == spec.entry_points(role)["main"]["short_description"]
    assert meta["dependencies"] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_a_readme_of_its_own(role):
    assert (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8").startswith(f"# daoman.fastapi.{role}\n")


# -- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_the_main_tasks_are_a_table_of_contents(role):
    tasks = load(ROOT / "roles" / role / "tasks/main.yml")
    for task in tasks:
        assert set(task) <= {"name", "ansible.builtin.import_tasks", "when", "tags"}, task
        assert "ansible.builtin.import_tasks" in task
    assert tasks[0]["ansible.builtin.import_tasks"] == "validate.yml"
    names = [task["ansible.builtin.import_tasks"] for task in tasks]
    files = list((ROOT / "roles" / role / "tasks").glob("*.yml"))
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    included = set(re.findall(r"ansible.builtin.include_tasks: (\w+\.yml)", text))
    there = {path.name for path in files} - {"main.yml"}
    assert set(names) | included == there, "a file that nothing imports, or an import of nothing"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_validates_its_own_variables_first(role):
    first = load(ROOT / "roles" / role / "tasks/validate.yml")[0]
    assert first["daoman.fastapi.validate"] == {"role": role}
    # Skipped with --tags, it would let the tagged tasks run on unchecked variables.
    assert first.get("when") is None


@pytest.mark.parametrize("path", TASK_FILES, ids=short)
def test_a_file_is_short(path):
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 80


def tasks_of(path: Path) -> list[dict]:
    data = load(path)
    if path.parent.name == "playbooks":
        data = [task for play in data for part in ("pre_tasks", "tasks", "post_tasks") for task in play.get(part) or []]
    return list(every_task(data))


@pytest.mark.parametrize("path", TASK_FILES, ids=short)
def test_no_task_hides_its_failure(path):
    for task in tasks_of(path):
        assert not task.get("ignore_errors") and not task.get("ignore_unreachable"), task["name"]
        assert task.get("failed_when") not in (False, "false", "False"), task["name"]


PHASE = re.compile(r"^[A-Z][a-z]+ \| [A-Z][^|]+[^.|]$")


@pytest.mark.parametrize("path", [path for path in TASK_FILES if path.name != "main.yml"], ids=short)
def test_a_task_names_its_phase_and_what_becomes_true(path):
    wrong = [task.get("name") for task in tasks_of(path) if not PHASE.match(task.get("name") or "")]
    assert wrong == []


@pytest.mark.parametrize("path", files("roles/*/tasks/*.yml"), ids=short)
def test_internal_variables_are_marked(path):
    role = path.parent.parent.name
    public = set(spec.load(role))
    for task in tasks_of(path):
        made = [task["register"]] if "register" in task else []
        made += list(task.get("vars") or {})
        made += list(task.get("ansible.builtin.set_fact") or {})
        made += [(task.get("loop_control") or {}).get("loop_var", "item")] if "loop" in task else []
        # the port of SSH, which a role may have changed under the feet of the run
        allowed = {*public, "item", f"__{role}", "ansible_port"}
        assert [name for name in made if name not in allowed and not name.startswith(f"__{role}_")] == [], task["name"]


@pytest.mark.parametrize("path", [*TASK_FILES, *files("roles/*/defaults/*.yml"), *TEMPLATES], ids=short)
def test_facts_are_not_injected(path):
    text = path.read_text(encoding="utf-8")
    injected = re.findall(r"\bansible_(?!facts\b|managed\b|check_mode\b|diff_mode\b|builtin\b)\w+", text)
    assert [name for name in injected if name.startswith(("ansible_os", "ansible_dist", "ansible_proc", "ansible_def",
                                                          "ansible_all", "ansible_mem", "ansible_host"))] == []


@pytest.mark.parametrize("path", files("roles/*/tasks/*.yml"), ids=short)
def test_roles_name_no_group(path):
    assert not re.search(r"\bgroups\[|\bgroups\.|fastapi_(app|lb|monitoring)\b", path.read_text(encoding="utf-8"))


# -- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TEMPLATES, ids=short)
def test_a_template_says_that_it_is_managed_and_by_which_role(path):
    head = "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:4])
    assert "ansible_managed" in head
    assert f"daoman.fastapi.{path.parent.parent.name}" in head
    assert not re.search(r"now\(|ansible_date_time|strftime", path.read_text(encoding="utf-8")), "has a time in it"


# -- the repository's text --------------------------------------------------------------------------------------------

LISTED = subprocess.run(
    ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
    capture_output=True, text=True, check=True,
).stdout.split("\0")
TEXTS = [
    path
    for path in map(Path, filter(None, LISTED))
    if (ROOT / path).is_file() and not (ROOT / path).is_symlink()
    and path.suffix in (".py", ".yml", ".j2", ".sh", ".toml", "") and path != Path(__file__).relative_to(ROOT)
]
AWAY = re.compile(r"#\s*(noqa|nosec|type: ignore|yamllint disable|shellcheck disable|pragma: no cover)\S*(.*)")


@pytest.mark.parametrize("path", TEXTS, ids=str)
def test_a_linter_is_told_to_look_away_only_with_a_reason(path):
    """A reason stands on the line, or as a comment on the line before."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        marker = AWAY.search(line)
        if not marker:
            continue
        reason = re.sub(r"[A-Z]{1,4}\d+|[\w-]+(\[[\w-]+\])|[:,=\s]", "", marker[2])
        before = lines[number - 1].strip() if number else ""
        assert len(reason) > 8 or before.startswith("#"), f"{path}:{number + 1}: {line.strip()}"


@pytest.mark.parametrize("path", files("plugins/**/*.py"), ids=short)
def test_a_plugin_carries_the_licence(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines:
        return
    assert [line for line in lines if line != "#!/usr/bin/python"][:3] == [
        "# Copyright (c) 2026 daoman.fastapi contributors",
        "# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)",
        "# SPDX-License-Identifier: GPL-3.0-or-later",
    ]
    assert "from __future__ import annotations" in lines


@pytest.mark.parametrize("path", files("plugins/action/*.py"), ids=short)
def test_an_action_has_a_documented_sibling(path):
    assert "DOCUMENTATION" in (ROOT / "plugins/modules" / path.name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*files("plugins/modules/*.py"), *files("plugins/filter/*.py")], ids=short)
def test_a_plugin_is_documented(path):
    documented = re.findall(r"^(\w+) = r?\"\"\"", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"DOCUMENTATION", "EXAMPLES", "RETURN"} <= set(documented)
