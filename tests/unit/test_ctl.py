# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of a host: what they take, what they refuse, what they print, and how they end."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import deploy_keys
from ansible_collections.daoman.fastapi.plugins.module_utils._host import ctl, files, kit
from ansible_collections.daoman.fastapi.plugins.module_utils._host.lock import BREAK, Locked
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import Layout, ReleaseError
from ansible_collections.daoman.fastapi.plugins.module_utils._host.run import run_bounded, run_command

SETTINGS = {
    "name": "shop",
    "source_type": "git",
    "source": "https://ann:s3cret@git.internal/shop.git",
    "version": "v1",
    "env": {},
    "kit": kit.VERSION,
    "task_files": {"migrate": [], "after_switch": []},
}


# -- what is asked for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "shop v1",
        "fastapi-deploy shop v1",
        "sudo fastapi-deploy shop v1",
        "sudo -n fastapi-deploy shop v1",
        "sudo -n /usr/local/sbin/fastapi-deploy shop v1",
        "/usr/local/sbin/fastapi-deploy shop v1",
        " shop v1 ",
    ],
)
def test_a_key_may_ask_for_a_deploy(command):
    assert ctl.asked(command) == ("shop", "v1")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "shop",
        "shop v1 more",
        "id",
        "sudo -n -u root fastapi-deploy shop v1",
        "sudo -i shop v1",
        "shop v1;id",
        "shop v1 && id",
        "shop $(id)",
        "shop `id`",
        "shop v1\nid",
        "shop v1\n",
        "shop\tv1",
        "shop 'v1'",
        "../shop v1",
        "Shop v1",
        "shop -v1",
        "shop --upload-pack=id",
        "shop v1|id",
        "shop v1>x",
        "/bin/sh -c 'shop v1'",
        "scp -t /tmp",
        "internal-sftp",
        "fastapi-deploy --from-ssh",
        "shop v\x001",
        "/tmp/fastapi-deploy shop v1",
        f"shop {'v' * 201}",
        f"{'s' * 32} v1",
    ],
)
def test_a_key_may_ask_for_nothing_else(command):
    assert ctl.asked(command) is None


def test_a_key_that_asks_for_something_else_gets_the_usage(monkeypatch, capsys):
    monkeypatch.setattr(os, "execve", lambda *_given: pytest.fail("something was run"))
    for command in ("id", "", "sudo -n bash"):
        monkeypatch.setenv("SSH_ORIGINAL_COMMAND", command)
        assert ctl.deploy_user(["--from-ssh"]) == ctl.USAGE
    assert "APP VERSION" in capsys.readouterr().err


def test_a_key_calls_sudo_with_two_words_and_nothing_of_its_environment(monkeypatch):
    called = []
    monkeypatch.setattr(os, "execve", lambda *given: called.append(given))
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", "shop v1.2.3")
    monkeypatch.setenv("LD_PRELOAD", "/tmp/evil.so")
    ctl.deploy_user(["--from-ssh"])
    ((program, words, env),) = called
    assert program == "/usr/bin/sudo" and words == ["sudo", "-n", ctl.PROGRAM, "shop", "v1.2.3"]
    assert sorted(env) == ["LC_ALL", "PATH"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["shop"],
        ["shop", "v1", "x"],
        ["../shop", "v1"],
        ["shop", "--x"],
        ["shop", "v1\n"],
        ["shop v1", "v1"],
        ["--from-ssh", "x"],
    ],
)
def test_other_words_are_wrong_usage(words, monkeypatch):
    monkeypatch.setattr(ctl, "deploy", lambda *_given, **_more: pytest.fail("it was run"))
    assert ctl.deploy_user(words) == ctl.USAGE


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["deploy"],
        ["deploy", "shop"],
        ["deploy", "Shop", "v1"],
        ["rollback"],
        ["deploy", "shop", "v1", "--nonsense"],
        ["releases", "../x"],
        ["restart", "shop"],
    ],
)
def test_wrong_usage_of_fastapictl(words, capsys):
    with pytest.raises(SystemExit) as ended:
        ctl.main(words)
    assert ended.value.code == ctl.USAGE and "usage: fastapictl" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["deploy", "--help"], ["rollback", "--help"], ["releases", "--help"]])
def test_help_names_the_exit_codes(words, capsys):
    with pytest.raises(SystemExit) as ended:
        ctl.main(words)
    assert ended.value.code == 0 and "3 this command cannot" in " ".join(capsys.readouterr().out.split())


# -- what it refuses --------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path):
    def keep(**changes):
        (tmp_path / "shop.json").write_text(json.dumps({**SETTINGS, **changes}))
        return str(tmp_path)

    return keep


def test_a_version_is_released_with_the_settings_of_the_last_run(kept):
    params = ctl.settings_for("shop", "v2", "releaser", kept=kept())
    assert params["version"] == "v2" and params["who"].startswith("releaser@") and params["until"] == "done"
    assert params["reason"] == "deploy of v2 by releaser" and params["break_lock"] is False


@pytest.mark.parametrize(
    "changes, why",
    [
        (
            {"task_files": {"migrate": ["hooks/migrate.yml"], "after_switch": ["warm.yaml"]}},
            r"warm.yaml \(after_switch\), hooks/migrate.yml \(migrate\)",
        ),
        ({"source_type": "directory", "source": "/home/ann/shop"}, r"comes from a directory \(/home/ann/shop\)"),
        ({"source_type": "wheel", "source": "https://ann:s3cret@x/shop.whl"}, r"a wheel \(https://x/shop.whl\)"),
        ({"kit": 1}, "another version of the collection"),
    ],
)
def test_what_only_ansible_can_do_is_named_and_refused(kept, changes, why):
    with pytest.raises(ctl.Refused, match=why) as refused:
        ctl.settings_for("shop", "v2", "releaser", kept=kept(**changes))
    assert "s3cret" not in str(refused.value)


def test_settings_of_an_older_version_are_refused(tmp_path):
    (tmp_path / "shop.json").write_text(json.dumps({"name": "shop", "source_type": "git"}))
    with pytest.raises(ctl.Refused, match=r"Run daoman\.fastapi\.site once"):
        ctl.settings_for("shop", "v2", "releaser", kept=str(tmp_path))


@pytest.mark.parametrize(
    "app, place, why", [("blog", "", "not released by Ansible"), ("shop", "none", "keeps no settings")]
)
def test_an_app_without_settings_is_refused(kept, app, place, why):
    with pytest.raises(ctl.Refused, match=why):
        ctl.settings_for(app, "v2", "releaser", kept=os.path.join(kept(), place))


def test_an_account_that_the_role_did_not_make_is_no_app(tmp_path, monkeypatch):
    def account(name):
        comments = {"shop": "FastAPI app", "blog": "FastAPI app", "alice": "Alice,,,", "link": "FastAPI app"}
        if name not in comments:
            raise KeyError(name)
        return SimpleNamespace(pw_gecos=comments[name])

    monkeypatch.setattr(pwd, "getpwnam", account)
    for name in ("shop", "alice", "nobody-here", "-rf", "a\nb", "blog.old", "*"):
        os.makedirs(tmp_path / "srv" / name / "releases")
    os.makedirs(tmp_path / "srv/blog")
    os.symlink(tmp_path / "srv/shop", tmp_path / "srv/link")
    if os.geteuid() != 0:
        pytest.skip("directories are root's only for root")
    assert files.apps(str(tmp_path)) == ["shop"]


# -- what it prints ---------------------------------------------------------------------------------------------------


class Work:
    def __init__(self, tmp_path, failure=None, warnings=(), changed=True):
        self.layout = Layout("shop", str(tmp_path))
        self.cutover = SimpleNamespace(warnings=list(warnings), secrets={"DB_PASSWORD": "hunter22hunter"})
        self.result = {"changed": changed, "release": "20260101T000000Z-0123456789ab", "version": "v1"}
        self.failure = failure

    def run(self):
        if self.failure:
            raise self.failure


def test_the_outcome_is_one_line(tmp_path, capsys):
    assert ctl.carry_out(lambda: Work(tmp_path, warnings=["odd\x1b]0;x\x07"])) == ctl.DONE
    out, err = capsys.readouterr()
    assert out == "changed: shop serves release 20260101T000000Z-0123456789ab of v1\n"
    assert err == "warning: odd\\x1b]0;x\\x07\n"
    ctl.carry_out(lambda: Work(tmp_path, changed=False))
    assert capsys.readouterr().out == "unchanged: shop serves release 20260101T000000Z-0123456789ab of v1\n"


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ctl.Refused, match=r"do not fit .*'of_later'"):
        ctl.carry_out(lambda: {}["of_later"])


def test_a_failure_is_safe_for_a_terminal_and_without_secrets(tmp_path, capsys):
    failure = ReleaseError("check", "it failed", "boom \x1b]52;c;AAAA\x07 \u202e hunter22hunter")
    assert ctl.carry_out(lambda: Work(tmp_path, failure)) == ctl.FAILED
    said = capsys.readouterr().err
    assert "\\x1b]52;c;AAAA\\x07 \\u202e <DB_PASSWORD>" in said and "\x1b" not in said


def test_a_lock_has_an_exit_code_of_its_own_and_the_option_of_this_command(tmp_path, capsys):
    failure = Locked(f"it is locked by ann. {BREAK}", {"run": "1"})
    assert ctl.carry_out(lambda: Work(tmp_path, failure)) == ctl.LOCKED
    said = capsys.readouterr().err
    assert "--break-lock" in said and "-e break_lock" not in said


# -- running commands without Ansible ---------------------------------------------------------------------------------


def test_commands_are_run_as_ansible_runs_them(tmp_path):
    code, out, err = run_command(
        ["sh", "-c", "umask; pwd; echo $GIVEN '$HOME'; printf '\\377' >&2; cat; exit 3"],
        cwd=str(tmp_path),
        environ_update={"GIVEN": "x y"},
        umask=0o027,
        errors="surrogate_then_replace",
        expand_user_and_vars=False,
    )
    assert (code, out.splitlines(), err) == (3, ["0027", str(tmp_path), "x y $HOME"], "\udcff")
    assert run_command(["cat"], data="in\n")[1] == "in\n"


def test_a_program_that_is_missing_and_a_wanted_success_are_failures():
    with pytest.raises(ReleaseError, match="cannot run /no/such"):
        run_command(["/no/such"])
    with pytest.raises(ReleaseError, match="ended with 1"):
        run_command(["false"], check_rc=True)


@pytest.mark.parametrize(
    "script, code, most",
    [
        ("yes", 0, 1000),
        ("sleep 60", 124, 1000),
        ("sleep 60 & echo x", 124, 1000),
        ("exec >&- 2>&-; sleep 60", 124, 1000),
        ("echo x; exit 4", 4, 1000),
    ],
)
def test_a_command_that_says_too_much_or_does_not_end_is_ended(script, code, most):
    done = run_bounded(["sh", "-c", script], 1, most, {"PATH": os.environ["PATH"]})
    assert done.code == code and len(done.out) <= most
    assert run_bounded(["/no/such"], 1, 10, {}).code == 127


# -- the package by itself --------------------------------------------------------------------------------------------

HOST = Path(ctl.__file__).parent


def test_the_package_needs_nothing_but_the_standard_library(tmp_path):
    """Isolated, and under its own name, as on a host."""
    shutil.copytree(HOST, tmp_path / "fastapi_host", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys, importlib, pkgutil; sys.path.insert(0, sys.argv[1]); import fastapi_host\n"
        "names = [item.name for item in pkgutil.iter_modules(fastapi_host.__path__)]\n"
        "[importlib.import_module('fastapi_host.' + name) for name in names]\n"
        "assert not [name for name in sys.modules if name.startswith('ansible')]\n"
        "from fastapi_host.ctl import main; main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-IB", "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "usage: fastapictl" in done.stdout, done.stderr
    assert not list(tmp_path.rglob("__pycache__"))


# -- keys of the deploy user ------------------------------------------------------------------------------------------

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPX0 ci of the shop"
HELD = 'command="/usr/local/sbin/fastapi-deploy --from-ssh",restrict '


@pytest.mark.parametrize(
    "keys, text",
    [
        ([KEY], f"{HELD}{KEY}\n"),
        ([f"# ours\n{KEY}\n\n", f" {KEY} "], f"{HELD}{KEY}\n" * 2),
        ([f'from="192.0.2.0/24,!192.0.2.1",pty {KEY}'], f'from="192.0.2.0/24,!192.0.2.1",pty,{HELD}{KEY}\n'),
        ([], ""),
    ],
)
def test_keys_are_held_to_the_command(keys, text):
    assert deploy_keys.authorized_keys(keys, True) == text


def test_keys_that_are_not_held_are_as_given():
    assert deploy_keys.authorized_keys([f"pty {KEY}\n"], False) == f"pty {KEY}\n"


@pytest.mark.parametrize(
    "line",
    ["ssh-ed25519", "AAAA", f"from=x {KEY}", f'command="id" {KEY}', f'pty,Command="id" {KEY}', "PermitRootLogin yes"],
)
def test_lines_that_are_no_keys_or_have_a_command_are_found(line):
    assert deploy_keys.fault(line, True)


def test_a_command_of_its_own_is_in_order_where_keys_are_not_held():
    assert deploy_keys.fault(f'command="id" {KEY}', False) is None
