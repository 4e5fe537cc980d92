"""What alpha's code does while it is released: in builds, hooks, the check, and in what it leaves for root to walk."""

from __future__ import annotations

import re
import shlex

import pytest

# Where alpha's code runs in a release, in this order, and as whom.
BUILD = ("build-before", "build", "build-after")
LATER = ("check", "migrate", "start", "before-switch", "after-switch")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
UNSEEN = "find {} -xdev {} -print0 | tr '\\n\\0' '?\\n'"


def test_nothing_of_others_changes(attacked, host):
    assert attacked[host.backend.hostname].by_attack() == {}


def test_alpha_is_released_with_its_hostile_build(outcomes, tenant):
    """Or the tests below would look at nothing."""
    assert [outcomes[name].failure.strip() for name in ("build", "after")] == ["", ""]
    assert {report["place"] for report in tenant.reports()} >= {*BUILD, *LATER}


def test_no_code_of_an_app_is_run_by_root(tenant):
    found = [(report["place"], report.get("argv")) for report in tenant.reports() if report.get("uid") == 0]
    assert not found


@pytest.mark.parametrize("place", [*BUILD, *LATER, "pth", "after-failure"])
def test_code_of_an_app_has_no_privileges(tenant, place):
    # After the build, hooks read the environment, which is the app's by its group.
    groups = {int(tenant.sh("id -g alpha"))} if place in ("build-after", "pth") else set()
    reports = tenant.reports(place)
    assert reports
    for report in reports:
        assert report["capabilities"] == 0
        assert report["no_new_privileges"]
        assert set(report["groups"]) <= {report["gid"], *groups}


def test_a_build_runs_as_neither_the_app_nor_another(tenant):
    app = int(tenant.sh("id -u alpha"))
    others = {int(tenant.sh(f"id -u {name}")) for name in ("beta", "www-data")}
    builds = {report["uid"] for report in tenant.reports(*BUILD)}
    assert len(builds) == 1 and not builds & {0, app, *others}
    assert {report["uid"] for report in tenant.reports(*LATER)} == {app}


@pytest.mark.parametrize("place", [*BUILD, *LATER, "after-failure"])
def test_code_of_an_app_reaches_nothing_of_others(tenant, place):
    for report in tenant.reports(place):
        assert report["could"] == {}


def test_what_a_build_starts_ends_with_it(tenant):
    """Before anything of the release is looked at: no process of a build is there before a check, and after it."""
    checks = [report["time"] for report in tenant.reports("check")]
    lives: dict[int, list[float]] = {}
    for report in tenant.reports("alive"):
        if report["of"] in BUILD:
            lives.setdefault(report["pid"], []).append(report["time"])
    assert checks and lives
    assert not [pid for pid, seen in lives.items() if any(seen[0] < check < seen[-1] for check in checks)]


def test_what_a_check_or_hook_starts_ends_with_it(outcomes, tenant):
    ends = {"after-failure": outcomes["drip"].ended}
    late = [
        report["of"]
        for report in tenant.reports("alive")
        if report["time"] > ends.get(report["of"], outcomes["after"].ended) + 1
    ]
    assert not late
    users = shlex.quote("^_?(eve|fay|gus)$")
    assert tenant.host.run(f"ps -eo user:32,args --no-headers | grep -E {users}").stdout == ""


def test_the_environment_of_builds_reaches_builds_only(tenant):
    seen = {
        name: {report["place"] for report in tenant.reports() if name in report.get("env", {})}
        for name in ("BUILD_CANARY", "BUILD_SECRET")
    }
    # What runs at every start of the environment's Python runs in the build, too.
    everywhere = {"pth", "script"}
    assert seen["BUILD_CANARY"] - everywhere == {*BUILD}
    assert seen["BUILD_SECRET"] - everywhere == {"build"}


def test_what_a_build_was_given_is_not_printed_when_it_fails(outcomes):
    assert "UV_CACHE_DIR" in outcomes["secrets"].failure
    assert not re.search("(build|secret)-canary", outcomes["secrets"].failure)


def test_files_of_builds_and_hooks_in_directories_of_everybody_end_with_them(tenant):
    assert (
        tenant.sh(
            "find /tmp /var/tmp /dev/shm /dev/mqueue /run/lock -name 'left-by-alpha*' -not -path '*/systemd-private-*'"
        )
        == ""
    )


def test_a_changed_cache_does_not_reach_the_next_build(tenant):
    assert tenant.sh("cat /srv/alpha/current/venv/lib/python3*/site-packages/victimlib.py") == "POISONED = False"


def test_the_world_outside_is_not_asked_by_root(tenant):
    """Nor by way of settings of tools that lie in the source."""
    asked = [(entry["uid"], entry["path"]) for entry in tenant.log()]
    assert [path for uid, path in asked if uid == 0] == []
    assert [path for _uid, path in asked if path.startswith(("/simple", "/pip.conf", "/mirror", "/lfs"))] == []


# What is laid out


@pytest.mark.parametrize(
    "name", ["static-link", "static-parent", "static-inner", "static-file", "static-up", "swapped-static"]
)
def test_a_published_directory_that_leads_out_is_refused(outcomes, name):
    assert re.search(r"static|app", outcomes[name].failure)
    assert "exit 3" not in outcomes[name].failure  # that is the end of a release which nothing stopped


@pytest.mark.parametrize("name", ["subdirectory", "swapped-subdirectory"])
def test_a_project_that_leads_out_is_refused(outcomes, name):
    assert outcomes[name].failure.strip()
    assert "exit 3" not in outcomes[name].failure


def test_releases_have_plain_files_directories_and_links_alone(tenant):
    odd = r"\( -type b -o -type c -o -type p -o -type s -o -type f -perm /7000 -o -type f -links +1 \)"
    assert tenant.sh(UNSEEN.format("/srv/*/releases /srv/*/venvs", odd)) == ""
    assert tenant.sh(UNSEEN.format("/srv/*/releases", r"-type d -perm /7002")) == ""


def test_releases_are_roots(tenant):
    assert tenant.sh(UNSEEN.format("/srv/alpha/releases /srv/alpha/venvs /srv/eve/releases", r"\! -user root")) == ""


def test_published_files_of_beta_are_its_own(tenant):
    for url in ("/static/env", "/static/victim/secret", "/static/up/env"):
        for app in ("alpha", "beta"):
            assert tenant.get(url, app)[0] in (403, 404)


@pytest.mark.parametrize("name", ["chain.tar.gz", "link-out.tar.gz", "hard-link.tar.gz", "dots.zip"])
def test_an_archive_that_leads_out_is_refused(outcomes, name):
    assert "fetch failed" in outcomes[name].failure


# git


@pytest.mark.parametrize("name", ["ext", "option", "command", "file", "local", "missing", "private", "ssh"])
def test_a_submodule_of_the_attackers_choice_is_refused(outcomes, tenant, name):
    assert outcomes[name].failure.strip() and "exit 3" not in outcomes[name].failure
    assert "canary" not in outcomes[name].failure


def test_the_ssh_key_is_shown_to_the_sources_own_host_only(outcomes, tenant):
    assert "cannot read the git repository" not in outcomes["ssh"].failure
    said = tenant.sh("journalctl -u outside-sshd -o cat")
    assert "publickey" not in said, said


def test_tokens_are_in_no_command_line(tenant):
    assert tenant.sh("journalctl -q -u outside-watch -o cat --grep canary || true") == ""


# What a deploy prints, and how long it lasts


@pytest.mark.parametrize("name", ["output", "escape", "endless", "drip"])
def test_output_is_bounded_and_safe_for_a_terminal(outcomes, name):
    failure = outcomes[name].failure
    assert failure.strip() and not CONTROL.search(failure)
    assert len(failure) < 200_000


@pytest.mark.parametrize("name", ["output", "escape", "endless", "drip", "deadline", "fifo", "memory", "forks"])
def test_a_deploy_ends(outcomes, name):
    assert outcomes[name].failure.strip()
    # Well before the deadline of a build (900 s), however busy the machine is.
    assert outcomes[name].seconds < 240, outcomes[name].failure


@pytest.mark.parametrize("name", ["escape", "endless", "drip"])
def test_an_answer_that_is_none_fails_readiness(outcomes, name):
    assert "readiness" in outcomes[name].failure


def test_a_build_is_bounded(tenant):
    forked = [report["count"] for report in tenant.reports("forked")]
    assert forked and max(forked) < 3000
    assert "/devoured" not in [entry["path"] for entry in tenant.log()]


def test_what_a_build_prints_fills_no_file_system(tenant):
    sizes = [report["size"] for report in tenant.reports("flooded")]
    assert sizes and max(sizes) < 10 << 20


def test_the_dynamic_loader_of_root_takes_no_orders_of_an_app(tenant):
    assert tenant.sh("find /srv/eve/shared -user root") == ""


# Names


@pytest.mark.parametrize(
    "name",
    ["new-alice", "new-debconf", "absent-alice", "absent-git", "absent-outside", "absent-debconf", "absent-ldconfig"],
)
def test_what_was_there_before_is_neither_adopted_nor_removed(outcomes, tenant, name):
    kind, _, account = name.partition("-")
    # The removal of what there is not has nothing to do.
    assert outcomes[name].failure.strip() or kind == "absent"
    if account in ("alice", "git", "outside"):
        assert tenant.host.user(account).exists
        assert tenant.host.user(account).shell != "/usr/sbin/nologin" or account == "outside"


# Honest apps


def test_an_honest_app_keeps_what_honest_sources_have(tenant):
    source = "/srv/beta/current/src"
    assert tenant.sh(f"readlink {source}/node_modules/.bin/tool") == "../tool/cli.js"
    assert (
        tenant.sh(f"readlink {source}/tests/data/dangling {source}/tests/data/absolute")
        == "not-there\n/nonexistent/file"
    )
    assert tenant.host.file(f"{source}/README.txt").content == b"one\r\ntwo\r\n"
    assert tenant.sh(f"readlink {source}/static/current.css") == "v1/site.css"


def test_beta_serves_as_if_it_were_alone(tenant):
    assert tenant.get("/", "beta") == (200, '{"app": "beta", "lib": "submodule", "secret": 15}')
    assert tenant.get("/static/v1/site.css", "beta") == (200, "body { color: green }\n")
