# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What root runs, and what it follows: read from the code of the programs that run as root.

What stands in a list of exceptions here has its reason beside it. An exception that is no longer there fails, too.
"""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Run as the build account, and only by Cage.program(), which hands over their text.
CAGED = sorted(ROOT.glob("plugins/module_utils/_host/caged_*.py"))
# Run by workers of apps.
OF_APPS = sorted(ROOT.glob("roles/gunicorn_app/files/*.py"))
PYTHON = sorted(
    path for pattern in ("plugins/module_utils/**/*.py", "plugins/modules/*.py", "roles/*/files/**/*.py")
    for path in ROOT.glob(pattern) if path not in OF_APPS)
PROGRAMS = [path for path in PYTHON if path not in CAGED]
# These meet what apps and their builds lay out.
RELEASES = [
    path for path in PROGRAMS
    if path.parent.name == "_host" or path.stem == "app_absent" or path.stem.startswith("release")]
TREE = ROOT / "plugins/module_utils/_host/tree.py"

# What a command of root may be, where it is written out. Of an app's tree there is nothing.
HOST_PROGRAMS = frozenset([
    *("getent", "journalctl", "loginctl", "nginx", "/usr/sbin/nginx", "ssh", "systemctl", "systemd-analyze", "timeout"),
    *("find", "gpasswd", "groupdel", "ipcrm", "openssl", "rm", "useradd", "userdel"),
])
# (file, function): why the program is not written out there.
COMMANDS = {
    ("_host/build.py", "uv"): "pip of the distribution, which takes uv by its hash only",
    ("_host/build.py", "interpreter"): "uv of the collection, which root installed by its hash",
    ("_host/accounts.py", "_run"): "its callers are looked at",
    ("_host/ctl.py", "deploy_user"): "sudo, to the same program as root; what it may do is in sudoers",
    ("_host/run.py", "run_bounded"): "runs commands for the front ends; its callers are looked at",
    ("_host/run.py", "run_command"): "runs commands for the front ends; its callers are looked at",
    ("_host/environment.py", "with_environment"): "cp of a tree that only root writes, into a directory of root's own",
    ("_host/systemd.py", "findings"): "systemd-analyze, over units in a directory of root's own",
    ("_host/systemd.py", "known_directives"): "systemd itself",
}

# (file, function or task): why a shell runs there.
SHELLS = {
    ("plugins/module_utils/_host/cutover.py", "hook"): "a hook is a command of the app's owner, as the app's user",
    ("plugins/module_utils/_host/cutover.py", "build_hook"): "a hook of the build, as the build account",
    ("plugins/module_utils/_host/deploy.py", "_share"): "fixed text; runs as the app's user, and paths are arguments",
    ("roles/monitoring/files/troubleshoot/fastapi_doctor/facts.py", "_nginx_test"):
        "fixed text in a mount name space of its own; paths are arguments",
    ("roles/certbot_tls/tasks/install.yml", "Install | Certbot is of the wanted version"):
        "a build that must be complete or not there; its values are quoted, and checked as versions",
}
# Text that starts a shell, in files that are not Python: (file, text).
TEXTS = {
    ("roles/gunicorn_app/templates/start.sh.j2", "#!/bin/sh"):
        "for the operator's hands; its values are a checked name and umask, and what it starts has the app's user",
    ("roles/monitoring/files/troubleshoot.sh", "#!/bin/sh"): "starts the doctor with its arguments as they are",
    ("roles/gunicorn_app/files/fastapictl", "#!/bin/sh"): "starts fastapictl with its arguments as they are",
    ("roles/hardening/tasks/deploy_user.yml", "/bin/sh"): "the login shell of the deploy user, not a program of root",
    ("plugins/module_utils/certificates.py", "#!/bin/sh"): "certbot's hook: exec of one fixed command",
    ("plugins/module_utils/certificates.py", "SHELL=/bin/sh"): "cron, where there is no systemd; fixed text",
}

# (file, function, call): why a path may be followed there.
FOLLOWED = {
    ("_host/build.py", "ensure", "os.chown"): "a directory that root made, in one that is root's",
    ("_host/cage.py", "make_work", "os.chmod"): "directories of root below /run",
    ("_host/cage.py", "make_out", "os.chown"): "a directory that root made, in one that is root's",
    ("_host/deploy.py", "close", "os.chown"): "root's, in a directory of root's, and no link; for what 0.2.0 left",
    ("_host/deploy.py", "close", "os.chmod"): "root's, in a directory of root's, and no link; for what 0.2.0 left",
    ("_host/history.py", "tidy", "os.chmod"): "state.json of a release, in a directory of root's, and no link",
    ("_host/places.py", "correct", "os.chmod"): "directories of root in those of root, and no link",
    ("_host/places.py", "correct", "os.chown"): "directories of root in those of root, and no link",
    ("_host/places.py", "make", "os.chmod"): "directories that root made in those of root",
    ("_host/shell.py", "make_directory", "os.chown"): "for directories in those of root",
    ("_host/shell.py", "make_directory", "os.chmod"): "for directories in those of root",
    ("_host/source.py", "_lay_down", "os.chmod"): "a directory that root made, in one that is root's",
    ("_host/source.py", "_lay_down", "os.chown"): "a directory that root made, in one that is root's",
    ("_host/upkeep.py", "keep_directories", "os.chown"): "a file in a directory of root's, and no link is followed",
    ("_host/upkeep.py", "give", "os.chown"): "a socket in a directory of root's below /run",
    ("_host/upkeep.py", "give", "os.chmod"): "a socket in a directory of root's below /run",
    ("_host/source.py", "_lay_down", "shutil.copyfileobj"): "from descriptor to descriptor",
    ("_host/systemd.py", "__exit__", "shutil.rmtree"): "a temporary directory of root's own",
}


def short(path):
    return str(path.relative_to(ROOT))


def host(path):
    """As short(), for the package that runs on hosts."""
    return short(path).removeprefix("plugins/module_utils/")


def functions(path):
    """(name of the innermost function, node) for every node of a file."""

    def below(node, name):
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else name
            yield inner, child
            yield from below(child, inner)

    yield from below(ast.parse(path.read_text(encoding="utf-8")), "")


def called(node):
    """The dotted name of what a call calls."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


# -- no shell ---------------------------------------------------------------------------------------------------------


SHELL_CALL = re.compile(r"os\.(system|popen)|subprocess\.get(status)?output|pty\.spawn")


def shells(path):
    """Functions of a file that have a shell started."""
    for name, node in functions(path):
        if isinstance(node, ast.Call):
            options = {item.arg: item.value for item in node.keywords}
            asked = [options[each] for each in ("shell", "use_unsafe_shell") if each in options]
            if any(ast.unparse(each) != "False" for each in asked) or SHELL_CALL.fullmatch(called(node)):
                yield name
        words = [item.value for item in ast.iter_child_nodes(node) if isinstance(item, ast.Constant)]
        for shell, option in itertools.pairwise(words):
            if re.fullmatch(r"(/bin/|/usr/bin/)?(ba|da)?sh", str(shell)) and str(option).startswith("-"):
                yield name


def shell_tasks(tasks):
    for task in tasks or []:
        if {"ansible.builtin.shell", "shell", "ansible.builtin.raw", "raw"} & set(task):
            yield task.get("name", "")
        for inner in ("block", "rescue", "always"):
            yield from shell_tasks(task.get(inner))


def test_no_program_of_root_starts_a_shell_without_a_reason():
    found = {(short(path), name) for path in PYTHON for name in shells(path)}
    for path in (*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/handlers/*.yml")):
        found |= {(short(path), name) for name in shell_tasks(yaml.safe_load(path.read_text(encoding="utf-8")))}
    assert found == set(SHELLS)


def test_no_unit_script_or_template_starts_a_shell_without_a_reason():
    found = set()
    for pattern in ("roles/*/templates/*", "roles/*/files/**/*", "roles/*/tasks/*.yml", "roles/*/vars/*.yml",
                    "plugins/module_utils/**/*.py"):
        for path in ROOT.glob(pattern):
            if path.is_file() and path.suffix not in (".json", ".html", ".lib", ".pyc"):
                text = path.read_text(encoding="utf-8")
                found |= {
                    (short(path), match)
                    for match in re.findall(r"#!/\S*sh\b|SHELL=\S+|(?:ba|da)?sh -c|(?<![\"'/])/bin/sh\b(?!\")", text)}
    found = {(path, text) for path, text in found if not (text == "/bin/sh" and (path, "#!/bin/sh") in found)
             and not (text == "/bin/sh" and (path, "SHELL=/bin/sh") in found)}
    assert found == set(TEXTS)


# -- what an app's author wrote runs as a user ------------------------------------------------------------------------


RUNS = re.compile(r"subprocess\.|os\.(exec|spawn|posix_spawn|fork)|pty\.|runpy\.|importlib\.|(exec|eval|compile)$")


def constants(path):
    """Names of a module that stand for a text."""
    return {
        target.id: node.value.value
        for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)}


def first_word(node, known, lists):
    """The program of a command that is written out, else the code that names it."""
    node = lists.get(ast.unparse(node), node)
    if isinstance(node, (ast.List, ast.Tuple)) and node.elts:
        return first_word(node.elts[0], known, lists)
    if isinstance(node, ast.Starred):
        return first_word(node.value, known, lists)
    return node.value if isinstance(node, ast.Constant) else known.get(ast.unparse(node), ast.unparse(node))


@pytest.mark.parametrize("path", [path for path in RELEASES if path.parent.name == "_host"], ids=host)
def test_root_runs_programs_of_the_host_and_nothing_of_a_release(path):
    """All else goes through a Cage, which runs it as a user in a unit of its own."""
    known = constants(path)
    lists = {}
    for name, node in functions(path):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            lists.setdefault(name, {}).update({ast.unparse(target): node.value for target in node.targets})
    wrong = set()
    # A function that is called run() and takes no command.
    own = {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body
           if isinstance(node, ast.FunctionDef) and node.name == "run"}
    for name, node in functions(path):
        text = called(node)
        # Cage._run() takes a kind and a user; what it starts itself is systemctl.
        other = (text == "self._run" and path.name == "cage.py") or text in own
        if re.fullmatch(r"(self\.)?(_?shell\.run|_run|run)", text) and node.args and not other:
            # _run(run, "program", ...) passes on what runs it.
            words = node.args[1:] if ast.unparse(node.args[0]) == "run" else node.args
            word = first_word(words[0], known, lists.get(name, {}))
            if word not in HOST_PROGRAMS:
                wrong.add((name, word))
        if RUNS.match(text):
            wrong.add((name, text))
    excepted = {function for file, function in COMMANDS if file == host(path)}
    assert {function for function, _word in wrong} == excepted, (
        f"{wrong}: through self.cage, or into HOST_PROGRAMS or COMMANDS with a reason")


def test_caged_programs_are_not_called_by_root():
    """Their text is handed over; nothing of them is imported for its functions."""
    names = {path.stem for path in CAGED}
    for path in PROGRAMS:
        for _name, node in functions(path):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").rpartition(".")[2] not in names, short(path)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert ast.unparse(node.func.value) not in names, f"{short(path)}: {ast.unparse(node)}"


# -- nothing is followed ----------------------------------------------------------------------------------------------

BY_PATH = re.compile(
    r"os\.(walk|chown|lchown|chmod|setxattr|truncate|utime)|shutil\.\w+|tarfile\.open|zipfile\.ZipFile|\w+\.extractall")
# How the code calls trees that an app, its author or a build can change.
APP_TREE = re.compile(r"shared|scratch|\bsrc\b|_source\b|_project\b|\bvenv\b|static|\.new\b")


def follows(path):
    """(function, call) of what acts on a path by its name, and so on what a link there leads to."""
    for name, node in functions(path):
        text = called(node)
        if not text:
            continue
        options = {item.arg for item in node.keywords}
        if BY_PATH.fullmatch(text) and "dir_fd" not in options and text != "shutil.which":
            yield name, text
        if text == "open" and node.args and APP_TREE.search(ast.unparse(node.args[0])):
            yield name, text


def test_root_goes_into_the_trees_of_apps_by_descriptors_only():
    found = {(host(path), *where) for path in RELEASES if path != TREE for where in follows(path)}
    assert found == set(FOLLOWED), "use tree.py, or name the reason in FOLLOWED"


def test_the_tree_is_opened_without_following_links():
    """In tree.py, every open has O_NOFOLLOW, and every change has a descriptor."""
    flags = constants_of_flags(TREE)
    for name, node in functions(TREE):
        text = called(node)
        if text == "os.open":
            given = ast.unparse(node.args[1])
            assert "O_NOFOLLOW" in given or all(
                "O_NOFOLLOW" in flags.get(each, "") for each in re.findall(r"\b[A-Z]{3,}\b", given)), f"{name}: {given}"
        elif re.fullmatch(r"os\.(chown|unlink|rmdir|rename|symlink|mkdir)", text):
            options = {item.arg for item in node.keywords}
            assert options & {"dir_fd", "src_dir_fd"}, f"{name}: {ast.unparse(node)}"
        assert text not in ("os.chmod", "os.walk", "shutil.rmtree"), name


def constants_of_flags(path):
    return {
        target.id: ast.unparse(node.value)
        for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.Assign)
        for target in node.targets if isinstance(target, ast.Name)}


# -- the tests see what they are for ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [
    'subprocess.run(text, shell=True)', 'module.run_command(text, use_unsafe_shell=True)', 'os.system(text)',
    'run(["/bin/sh", "-c", text])', 'run("bash", "-c", text)',
])
def test_a_shell_would_be_seen(code, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(f"def act():\n    {code}\n")
    assert list(shells(path)) == ["act"]


@pytest.mark.parametrize("code", [
    "shutil.rmtree(path)", "os.chown(path, 0, 0)", "for entry in os.walk(path): pass",
    "open(os.path.join(self.shared, name))", "archive.extractall(path)",
])
def test_a_path_that_is_followed_would_be_seen(code, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(f"def act():\n    {code}\n")
    assert len(list(follows(path))) == 1
