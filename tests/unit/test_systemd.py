# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units as text, the profiles, environment files, and how systemd's answers are read. That systemd itself reads the
files so is proved on real hosts, by the Molecule scenario systemd_service."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import systemd


def test_a_unit_is_rendered():
    text = systemd.render(
        {
            "Unit": {"Description": "x"},
            "Service": {"ExecStart": ["", "/bin/a", "/bin/b"], "PrivateTmp": True, "Restart": False, "Nice": 5,
                        "User": None, "AmbientCapabilities": ""},
        },
        "Ansible managed: role",
    )
    assert text == (
        "# Ansible managed: role\n\n[Unit]\nDescription=x\n\n"
        "[Service]\nExecStart=\nExecStart=/bin/a\nExecStart=/bin/b\n"
        "PrivateTmp=yes\nRestart=no\nNice=5\nAmbientCapabilities=\n")


def test_without_a_header_a_unit_begins_with_its_first_section():
    assert systemd.render({"Timer": {"OnCalendar": "daily"}}) == "[Timer]\nOnCalendar=daily\n"


@pytest.mark.parametrize("value", ["a\nExecStart=/bin/evil", "a\0b"])
def test_a_value_cannot_end_its_directive(value):
    with pytest.raises(ValueError, match="one line"):
        systemd.render({"Service": {"Environment": [value]}})


def test_what_a_unit_sets_itself_wins_over_its_profile():
    sections = {"Unit": {"A": "b"}, "Service": {"ExecStart": "/x", "PrivateTmp": False, "UMask": "0027"}}
    before = {name: dict(directives) for name, directives in sections.items()}
    closed = systemd.apply_profile(sections, "strict")
    assert closed["Service"]["PrivateTmp"] is False and closed["Service"]["UMask"] == "0027"
    assert closed["Service"]["ProtectSystem"] == "strict" and closed["Service"]["PrivateNetwork"] is True
    assert closed["Unit"] == {"A": "b"}
    assert sections == before


@pytest.mark.parametrize("profile", [None, "", "none"])
def test_without_a_profile_a_unit_stays_as_it_is(profile):
    sections = {"Service": {"ExecStart": "/x"}}
    assert systemd.apply_profile(sections, profile) == sections


def test_each_profile_opens_what_the_one_before_closes():
    families = [systemd.PROFILES[name]["RestrictAddressFamilies"] for name in ("strict", "localhost", "network")]
    assert families == ["AF_UNIX", "AF_UNIX AF_INET AF_INET6", "AF_UNIX AF_INET AF_INET6"]
    assert "IPAddressDeny" in systemd.PROFILES["localhost"] and "IPAddressDeny" not in systemd.PROFILES["network"]
    for profile in systemd.PROFILES.values():
        assert systemd.SANDBOX.items() <= profile.items()


@pytest.mark.parametrize("profile", systemd.PROFILES)
def test_what_docs_promise_of_every_profile(profile):
    """That they hold for the units of a host, and what an app then gets at, is for Molecule."""
    closed = systemd.PROFILES[profile]
    assert closed["ProtectProc"] == "invisible" and closed["InaccessiblePaths"] == "-/run/dbus"
    assert closed["TemporaryFileSystem"].startswith("/dev/shm:")
    assert closed["ProtectSystem"] == "strict" and closed["CapabilityBoundingSet"] == ""


@pytest.mark.parametrize("own, lines", [
    ({}, ["-/run/dbus"]), ({"InaccessiblePaths": None}, ["-/run/dbus"]), ({"InaccessiblePaths": []}, []),
    ({"InaccessiblePaths": "-/run/systemd/journal"}, ["-/run/systemd/journal", "-/run/dbus"]),
    ({"InaccessiblePaths": ["/a", "/b"]}, ["/a", "/b", "-/run/dbus"])])
def test_what_a_unit_closes_is_closed_besides_d_bus(own, lines):
    unit = systemd.render(systemd.apply_profile({"Service": own}, "network"))
    assert [line.partition("=")[2] for line in unit.splitlines() if line.startswith("InaccessiblePaths")] == lines


@pytest.mark.parametrize(
    "value, line",
    [
        ("plain", 'A="plain"\n'),
        ("", 'A=""\n'),
        (" x ", 'A=" x "\n'),
        ('say "hi"', 'A="say \\"hi\\""\n'),
        ("C:\\new", 'A="C:\\\\new"\n'),
        ("$HOME `id`", 'A="\\$HOME \\`id\\`"\n'),
        ("100%", 'A="100%"\n'),
        ("it's", 'A="it\'s"\n'),
        ("a\nb", 'A="a\nb"\n'),
        (True, 'A="true"\n'),
        (False, 'A="false"\n'),
        (8000, 'A="8000"\n'),
        (None, 'A=""\n'),
    ],
)
def test_an_environment_file_quotes_its_values(value, line):
    assert systemd.env_file({"A": value}) == line


@pytest.mark.parametrize(
    "name, value", [("A-B", "x"), ("1A", "x"), ("A\nB", "x"), (1, "x"), ("A", "\0"), ("A", "\x1b[0m"), ("A", "a\r\n")]
)
def test_what_systemd_would_drop_is_an_error(name, value):
    with pytest.raises(ValueError):
        systemd.env_file({name: value})


def test_an_error_about_a_value_does_not_show_it():
    with pytest.raises(ValueError) as error:
        systemd.env_file({"A": "hunter2\0"})
    assert "hunter2" not in str(error.value)


def test_a_quoted_word_is_one_word():
    assert systemd.quote('A=50% of "x"\\') == '"A=50%% of \\"x\\"\\\\"'


class FakeRun:
    """Answers as systemd does, with the directory that the units were put in."""

    def __init__(self, code, out="", err=""):
        self.answer = code, out, err

    def __call__(self, argv, environ_update=None):
        path = next(word for word in argv if word.startswith("/"))
        directory = os.path.dirname(path)
        self.argv = argv
        self.seen = {path.name: path.read_text(encoding="utf-8") for path in Path(directory).iterdir()}
        code, out, err = self.answer
        return code, out.replace("DIR", directory), err.replace("DIR", directory)


FILES = {"a.service": "[Service]\n", "b.timer": "[Timer]\n"}


def test_without_units_nothing_is_run():
    assert systemd.verify({}, None) == []


ITEMS = "[Service]\nExecStart=COMMAND [...]\nRestart=SERVICERESTART\n\n[Timer]\nOnCalendar=TIMER\n"


@pytest.mark.parametrize(
    "there, code, out, known",
    [
        (True, 0, ITEMS, {"Service": ["ExecStart", "Restart"], "Timer": ["OnCalendar"]}),
        (True, 0, "stray=1\n" + ITEMS, {"Service": ["ExecStart", "Restart"], "Timer": ["OnCalendar"]}),
        (True, 1, ITEMS, {}),
        (False, 0, ITEMS, {}),
    ],
)
def test_the_directives_that_systemd_knows_are_read(monkeypatch, there, code, out, known):
    monkeypatch.setattr(systemd.os.path, "exists", lambda path: there)
    assert systemd.known_directives(lambda argv, environ_update: (code, out, "")) == known


def test_all_units_are_verified_together_and_nothing_stays():
    run = FakeRun(0)
    assert systemd.verify(FILES, run) == []
    assert run.seen == FILES
    assert not os.path.exists(os.path.dirname(run.argv[-1]))


@pytest.mark.parametrize(
    "line, expected",
    [
        # systemd 252 and 257
        ("DIR/a.service:7: Unknown key name 'Exec-Start' in section 'Service', ignoring.", ("Service", "Exec-Start")),
        ("DIR/a.service:7: Unknown key 'Exec-Start' in section [Service], ignoring.", ("Service", "Exec-Start")),
    ],
)
def test_an_unknown_key_is_found_though_the_exit_code_is_0(line, expected):
    found = systemd.findings(FILES, FakeRun(0, err=line + "\n"))
    assert [(item["unit"], item["section"], item["key"]) for item in found] == [("a.service", *expected)]
    assert found[0]["text"].startswith("a.service:7: Unknown key")


def test_an_unknown_section_is_found():
    found = systemd.findings(FILES, FakeRun(0, err="DIR/a.service:1: Unknown section 'Servcie'. Ignoring.\n"))
    assert found[0]["section"] == "Servcie" and "key" not in found[0]


def test_a_missing_command_is_told_apart():
    line = "a.service: Command /opt/x is not executable: No such file or directory\n"
    assert systemd.findings(FILES, FakeRun(1, err=line))[0]["command"] == "/opt/x"


def test_what_systemd_says_of_other_units_is_theirs():
    err = "/lib/systemd/system/x.service:3: Unknown key 'A' in section [B], ignoring.\n"
    assert systemd.verify(FILES, FakeRun(0, err=err)) == []


@pytest.mark.parametrize("err, said", [("Failed to prepare\n", "Failed to prepare"), ("", "without a word")])
def test_a_failure_is_never_silent(err, said):
    found = systemd.verify(FILES, FakeRun(1, err=err))
    assert len(found) == 1 and said in found[0]


@pytest.mark.parametrize(
    "out, level",
    [
        ("  NAME\n→ Overall exposure level for a.service: 1.3 OK 🙂\n", 1.3),
        ("\n→ Overall exposure level for a@b.service: 10.0 UNSAFE\n", 10.0),
        ("Overall exposure level for a.service: 9 UNSAFE\n", 9.0),
    ],
)
def test_the_exposure_is_read(out, level):
    assert systemd.exposure("a.service", FILES, FakeRun(0, out=out)) == level


def test_no_exposure_is_an_error_not_a_zero():
    with pytest.raises(ValueError, match=r"nothing about a\.service: Failed"):
        systemd.exposure("a.service", FILES, FakeRun(1, err="Failed\n"))


def test_the_nearest_directive_ignores_dashes_and_capitals():
    known = {"Service": ["ExecStart", "ExecStop", "Restart"]}
    assert systemd.nearest("Exec-Start", "Service", known) == "ExecStart"
    assert systemd.nearest("execstop", "Service", known) == "ExecStop"
    assert systemd.nearest("zzz", "Service", known) is None
    assert systemd.nearest("ExecStart", "Timer", known) is None
