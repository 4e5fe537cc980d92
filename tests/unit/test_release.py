"""What a release is: sources told apart, digests, ids, pruning, and what must never leave the host's directories."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import redact, release
from ansible_collections.daoman.fastapi.plugins.module_utils._host.caged_fetch import (
    Failed,
    unpack,
    unsafe_member,
    verify,
)
from ansible_collections.daoman.fastapi.plugins.module_utils._host.caged_install import requirement_name
from ansible_collections.daoman.fastapi.plugins.module_utils._host.systemd import env_file
from ansible_collections.daoman.fastapi.plugins.module_utils._host.tree import reader

PARAMS = {
    "name": "shop",
    "source_type": "git",
    "subdirectory": "",
    "extras": ["b", "a"],
    "groups": [],
    "shared_paths": [],
    "build_hooks": {"before_build": [], "after_build": []},
    "server_requirements": ["gunicorn==27.0.1"],
    "static_paths": ["app/static"],
    "socket_group": "www-data",
    "files": {"gunicorn.conf.py": "workers = 5\n", "start.sh": "#!/bin/sh\n"},
    "env_file": 'KEY="value"\n',
    "units": {"service": "[Service]\n", "socket": "[Socket]\n"},
}


@pytest.mark.parametrize(
    "source, expected",
    [
        ("https://git.example.com/acme/api.git", "git"),
        ("https://github.com/acme/api", "git"),
        ("git@github.com:acme/api.git", "git"),
        ("git@github.com:acme/api", "git"),
        ("ssh://git@host:2222/acme/api", "git"),
        ("file:///srv/git/api.git", "git"),
        ("/srv/git/api.git", "git"),
        ("./api", "directory"),
        ("/home/me/api", "directory"),
        ("~/api", "directory"),
        (".", "directory"),
        ("apps/api", "directory"),
        ("dist/api-1.0.tar.gz", "archive"),
        ("https://example.com/api-1.0.tar.gz?token=x", "archive"),
        ("api.zip", "archive"),
        ("dist/api-1.0-py3-none-any.whl", "wheel"),
        ("https://example.com/api-1.0-py3-none-any.whl#x", "wheel"),
        ("my-app==1.4.2", "requirement"),
        ("my_app[redis,postgres] >= 2", "requirement"),
        ("my-app", "requirement"),
        ("my-app @ https://example.com/my_app-1.0-py3-none-any.whl", "requirement"),
    ],
)
def test_a_source_is_known_by_its_look(source, expected):
    assert release.source_type(source) == expected


@pytest.mark.parametrize(
    "source, source_type, more",
    [
        ("https://example.com/api.git", "auto", ["git"]),
        ("git@example.com:api", "auto", ["git", "openssh-client"]),
        ("ssh://git@example.com/api", "auto", ["git", "openssh-client"]),
        ("/srv/api", "git", ["git"]),
        ("./api", "auto", []),
        ("api.tar.gz", "auto", []),
    ],
)
def test_git_is_installed_only_where_it_is_used(source, source_type, more):
    apps = [{"source": "./other", "source_type": "auto"}, {"source": source, "source_type": source_type}]
    assert release.build_packages(apps) == ["ca-certificates", "python3", "python3-pip-whl", *more]


def test_credentials_are_not_shown():
    assert redact.redact_url("https://me:secret@host/x.git") == "https://host/x.git"
    assert redact.redact_url("git@host:x.git") == "git@host:x.git"


def test_equal_inputs_are_one_release():
    first = release.inputs(PARAMS, "a" * 40, "python3.13")
    second = release.inputs({**PARAMS, "extras": ["a", "b"]}, "a" * 40, "python3.13")
    assert release.digest(first) == release.digest(second)


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"gunicorn.conf.py": "workers = 6\n", "start.sh": "#!/bin/sh\n"}},
        {"env_file": 'KEY="other"\n'},
        {"units": {"service": "[Service]\nNice=1\n", "socket": "[Socket]\n"}},
        {"units": {"service": "[Service]\n", "socket": "[Socket]\nBacklog=1\n"}},
        {"server_requirements": ["gunicorn==26.0.0"]},
        {"extras": ["a"]},
        {"groups": ["extra"]},
        {"static_paths": []},
        {"subdirectory": "api"},
        {"socket_group": "nginx"},
    ],
)
def test_whatever_decides_how_the_app_runs_makes_another_release(change):
    before = release.digest(release.inputs(PARAMS, "a" * 40, "python3.13"))
    assert release.digest(release.inputs({**PARAMS, **change}, "a" * 40, "python3.13")) != before


def test_revision_and_python_make_another_release():
    before = release.digest(release.inputs(PARAMS, "a" * 40, "python3.13"))
    assert release.digest(release.inputs(PARAMS, "b" * 40, "python3.13")) != before
    assert release.digest(release.inputs(PARAMS, "a" * 40, "python3.14")) != before


def test_the_manifest_holds_no_secret():
    assert "value" not in json.dumps(release.inputs(PARAMS, "a" * 40, "python3.13"))


def test_an_id_is_its_time_and_the_start_of_its_digest():
    id_ = release.release_id("0123456789abcdef", now=0)
    assert id_ == "19700101T000000Z-0123456789ab"
    assert release.ID.match(id_)


def test_only_the_environment_is_secret():
    assert release.file_mode("env") == 0o600
    assert release.file_mode("start.sh") == 0o750
    assert release.file_mode("gunicorn.conf.py") == 0o640


def manifest(id_, revision="0" * 40, **more):
    inputs = {"source": {"revision": revision}}
    return {"id": id_, "digest": id_[-12:], "created": "", "by": "me@here", "version": "v1", "inputs": inputs, **more}


@pytest.fixture
def layout(tmp_path):
    layout = release.Layout("shop", root=str(tmp_path))
    for number in range(1, 6):
        directory = layout.release(f"2026010{number}T000000Z-{number:012x}")
        os.makedirs(directory)
        with open(os.path.join(directory, "manifest.json"), "w", encoding="utf-8") as stream:
            json.dump(manifest(os.path.basename(directory), created=f"2026-01-0{number}T00:00:00Z"), stream)
    return layout


def test_the_live_release_is_the_one_the_link_names(layout):
    assert layout.live_id() is None
    id_ = layout.ids()[0]
    os.symlink(layout.socket(id_), layout.live)
    assert layout.live_id() == id_


def test_a_link_to_something_else_names_no_release(layout):
    os.symlink("/run/other.sock", layout.live)
    assert layout.live_id() is None


def items(states):
    """Releases a, b, c, ... of which each letter tells the state: good, failed, rolled back, built."""
    words = {"g": "good", "f": "failed", "r": "rolled back", "b": "built"}
    return [{"id": name, "state": words[letter]} for name, letter in zip("abcdefgh", states, strict=False)]


def test_releases_come_in_the_order_of_their_last_deploy(layout):
    first, second, third, *_others = layout.ids()
    os.unlink(layout.release(first, "manifest.json"))
    with open(layout.release(second, "state.json"), "w", encoding="utf-8") as stream:
        json.dump({"state": "good", "deployed": "2026-03-01T00:00:00Z"}, stream)
    found = layout.releases_by_age()
    assert [each["id"] for each in found] == [third, *layout.ids()[3:], second], "the incomplete one is none"
    assert [each["state"] for each in found] == ["built"] * 3 + ["good"]


def test_the_number_counts_and_not_the_time(layout):
    first, second, *others = layout.ids()
    for id_, facts in (
        (first, {"sequence": 7, "deployed": "2001-01-01T00:00:00Z"}),
        (second, {"deployed": "2036-01-01T00:00:00Z"}),
        (others[0], {"sequence": 6, "deployed": "2037-01-01T00:00:00Z"}),
    ):
        with open(layout.release(id_, "state.json"), "w", encoding="utf-8") as stream:
            json.dump({"state": "good", **facts}, stream)
    assert [item["id"] for item in layout.releases_by_age()] == [*others[1:], second, others[0], first]


@pytest.mark.parametrize(
    "states, kept, way_back, keep, expected",
    [
        ("ggggg", "de", "dcba", 2, ["a", "b", "c"]),
        ("ggggg", "de", "dcba", 4, ["a"]),
        ("ggggg", "de", "dcba", 9, []),
        ("ggggg", "ade", "a", 1, ["b", "c"]),  # what a rollback would choose is kept, however old it is
        ("ggrgg", "aeb", "ba", 4, ["c"]),  # what lies on no way back goes first
        ("ggggg", "eda", "ab", 4, ["c"]),  # and the farthest before the nearest
        ("gff", "b", "", 5, ["c"]),  # failed ones go, but never what serves
        ("ggf", "cb", "b", 1, ["a"]),
    ],
)
def test_pruning_keeps_what_serves_what_it_replaced_and_the_way_back(states, kept, way_back, keep, expected):
    assert release.prunable(items(states), set(kept), list(way_back), keep) == expected


HOOKS = ("before_build", "after_build", "migrate", "before_switch", "after_switch", "after_failure")


def steps(hosts="a", **hooks):
    app = {"release": {"hooks": {**{point: [] for point in HOOKS}, **hooks}}}
    return [(step["until"], "".join(step["hosts"])) for step in release.steps(app, list(hosts), "25%")]


def test_one_host_and_commands_wait_for_nothing():
    assert steps() == steps(migrate=["alembic upgrade head"], before_build=["make"]) == [("done", "")]


def test_a_file_of_tasks_is_waited_for():
    assert steps(before_build=["a.yml"], migrate=["x", "m.yaml"], after_switch=["s.yml"]) == [
        ("fetch", ""),
        ("migrate", ""),
        ("switch", ""),
        ("done", ""),
    ]


def test_a_fleet_builds_everywhere_migrates_once_and_switches_in_batches():
    assert steps("abcdefgh", migrate=["alembic upgrade head"]) == [
        ("seal", ""),
        ("migrate", ""),
        ("done", "ab"),
        ("done", "cd"),
        ("done", "ef"),
        ("done", "gh"),
    ]


def test_only_the_one_step_of_a_fleet_migrates():
    app = {"release": {"hooks": {**{point: [] for point in HOOKS}, "migrate": ["x"]}}}
    assert [(step["once"], step["migrate"]) for step in release.steps(app, ["a", "b"])] == [
        (False, False),
        (True, True),
        (False, False),
        (False, False),
    ]


def test_a_fleet_that_waits_takes_all_locks_first():
    app = {"release": {"hooks": {hook: [] for _stage, hook in release.POINTS}}}
    first, second, *_others = [step["until"] for step in release.steps(app, ["a", "b"], wait=True)]
    assert (first, second) == ("lock", "seal")
    assert "lock" not in [step["until"] for step in release.steps(app, ["a", "b"])]
    assert [step["until"] for step in release.steps(app, ["a"], wait=True)] == ["done"]


@pytest.mark.parametrize("batch, count, size", [("1", 9, 1), ("3", 9, 3), ("25%", 9, 2), ("25%", 2, 1), ("100%", 7, 7)])
def test_a_batch_is_a_number_or_a_share(batch, count, size):
    assert release.batch_size(batch, count) == size


def project(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return str(tmp_path)


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"uv__lock": "", "requirements__txt": "", "pyproject__toml": ""}, "uv.lock"),
        ({"pylock__toml": "", "requirements__txt": ""}, "pylock.toml"),
        ({"requirements__txt": "", "pyproject__toml": ""}, "requirements.txt"),
        ({"pyproject__toml": ""}, "pyproject.toml"),
        ({"setup__py": ""}, None),
    ],
)
def test_a_lock_is_preferred(tmp_path, files, expected):
    assert release.dependency_file(reader(project(tmp_path, **files), "")) == expected


@pytest.mark.parametrize(
    "name, files, expected",
    [
        ("uv.lock", {"uv__lock": 'source = { virtual = "." }', "pyproject__toml": "[project]\n"}, False),
        ("uv.lock", {"uv__lock": 'source = { editable = "." }', "pyproject__toml": "[build-system]\n"}, True),
        (
            "uv.lock",
            {
                "uv__lock": 'source = { virtual = "." }',
                "pyproject__toml": "[build-system]\n[tool.uv]\npackage = false\n",
            },
            False,
        ),
        ("uv.lock", {"uv__lock": 'source = { directory = "libs/x" }', "pyproject__toml": "[project]\n"}, True),
        ("requirements.txt", {"requirements__txt": "fastapi==1\n"}, False),
        ("requirements.txt", {"requirements__txt": "-r base.txt\n"}, True),
        ("requirements.txt", {"requirements__txt": "-e .\n"}, True),
        ("requirements.txt", {"requirements__txt": "./libs/x\n"}, True),
        ("pyproject.toml", {"pyproject__toml": "[project]\n"}, False),
        ("pyproject.toml", {"pyproject__toml": "[build-system]\n"}, True),
    ],
)
def test_an_environment_with_the_apps_own_files_belongs_to_one_revision(tmp_path, name, files, expected):
    top = project(tmp_path, **files)
    assert release.installs_own_files(name, reader(top, "")) is expected
    first = release.venv_key(release.inputs(PARAMS, "a" * 40, "python3.13"), reader(top, ""), name)
    second = release.venv_key(release.inputs(PARAMS, "b" * 40, "python3.13"), reader(top, ""), name)
    assert (first != second) is expected


def test_another_lock_is_another_environment(tmp_path):
    data = release.inputs(PARAMS, "a" * 40, "python3.13")
    first = release.venv_key(data, reader(project(tmp_path, requirements__txt="fastapi==1\n"), ""), "requirements.txt")
    second = release.venv_key(data, reader(project(tmp_path, requirements__txt="fastapi==2\n"), ""), "requirements.txt")
    assert first != second


@pytest.mark.parametrize(
    "requirement, name",
    [
        ("uvicorn[standard]==0.54.0", "uvicorn"),
        ("python_json.logger>=3", "python-json-logger"),
        ("Gunicorn", "gunicorn"),
    ],
)
def test_names_of_packages_are_normalised(requirement, name):
    assert requirement_name(requirement) == name


@pytest.mark.parametrize(
    "name, link, unsafe",
    [
        ("a/b", None, False),
        ("/etc/passwd", None, True),
        ("../x", None, True),
        ("a/../../x", None, True),
        ("a/link", "../b", False),
        ("a/link", "../../b", True),
        ("link", "/etc/passwd", True),
    ],
)
def test_archive_members_stay_inside(name, link, unsafe):
    assert unsafe_member(name, link) is unsafe


def make_tar(path, *members):
    with tarfile.open(path, "w:gz") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                data = content.encode()
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            else:
                member.linkname = content
                archive.addfile(member)
    return str(path)


def test_a_single_top_directory_is_left_out(tmp_path):
    target = tmp_path / "src"
    target.mkdir()
    unpack(make_tar(tmp_path / "a.tar.gz", ("app-1.0/main.py", tarfile.REGTYPE, "x")), str(target), strip=True)
    assert (target / "main.py").read_text() == "x"


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", tarfile.REGTYPE, "x"),
        ("/evil", tarfile.REGTYPE, "x"),
        ("link", tarfile.SYMTYPE, "/etc/passwd"),
        ("link", tarfile.SYMTYPE, "../../etc/passwd"),
        ("hard", tarfile.LNKTYPE, "../../etc/passwd"),
    ],
)
def test_an_archive_that_reaches_out_is_refused_whole(tmp_path, member):
    target = tmp_path / "src"
    target.mkdir()
    path = make_tar(tmp_path / "a.tar.gz", ("good", tarfile.REGTYPE, "x"), member)
    with pytest.raises(Failed, match="outside the release"):
        unpack(path, str(target), strip=False)
    assert list(target.iterdir()) == []


def test_a_zip_that_reaches_out_is_refused(tmp_path):
    target = tmp_path / "src"
    target.mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../evil", "x")
    with pytest.raises(Failed, match="outside the release"):
        unpack(str(tmp_path / "a.zip"), str(target), strip=False)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_text("not an archive")
    with pytest.raises(Failed, match="cannot be unpacked"):
        unpack(str(tmp_path / "a.tar.gz"), str(tmp_path), strip=False)


def test_a_wrong_checksum_is_refused_with_both(tmp_path):
    (tmp_path / "a").write_text("x")
    verify(str(tmp_path / "a"), "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "a")
    with pytest.raises(Failed, match=r"sha256:2d71.*wanted sha256:00"):
        verify(str(tmp_path / "a"), "sha256:" + "0" * 64, "a")


def test_secrets_do_not_reach_the_output():
    env = {"DATABASE_URL": "postgres://me:secret@db/x", "PASSWORD": "postgres", "DEBUG": "1"}
    assert redact.redact("1 cannot reach postgres://me:secret@db/x", env) == "1 cannot reach <DATABASE_URL>"


def test_the_names_of_an_environment_give_no_value_away():
    env = {"KEY": "-----BEGIN-----\nMIIEow==\nB=\"x\"\n", "PLAIN": "a=b", "QUOTED": 'say "hi" \\', "EMPTY": ""}
    assert release.env_values(env_file(env)) == env


def test_json_lines_of_the_journal_become_readable():
    lines = [
        "plain",
        json.dumps({"level": "ERROR", "message": "boom", "exc_info": "Traceback\n  ValueError: x"}),
        "[1]",
    ]
    assert release.journal_text(lines) == "plain\nERROR boom\nTraceback\n  ValueError: x\n[1]"


def test_a_traceback_that_comes_again_and_again_is_shown_once():
    line = json.dumps({"level": "ERROR", "message": "boom", "exc_info": "Traceback\n  ValueError: x"})
    told = "other\nother\nERROR boom\nTraceback\n  ValueError: x"
    assert release.journal_text([line, "other", "other", line]) == told
