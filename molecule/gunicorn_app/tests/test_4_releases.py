"""The way of a release: hooks, what outlives it, locks, going back, and leaving nothing behind."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import time

import pytest

pytestmark = pytest.mark.either_host


def releases(host) -> dict[str, str]:
    """What became of each release of tiny."""
    found = {}
    for id_ in host.check_output("ls /srv/tiny/releases").split():
        state = host.run(f"cat /srv/tiny/releases/{id_}/state.json").stdout
        found[id_] = json.loads(state)["state"] if state else "built"
    return found


def history(host) -> list[dict]:
    return [json.loads(line) for line in host.check_output("cat /srv/tiny/history.jsonl").splitlines()]


# -- hooks ------------------------------------------------------------------------------------------------------------

POINTS = ("before_build", "after_build", "migrate", "before_switch", "after_switch")


def test_commands_run_at_their_points(host, tiny):
    """While the release is made, as the account that builds; then as the app's user."""
    tiny.deployed()
    before = tiny.live()
    host.check_output("rm -f /srv/tiny/shared/hooks")
    hooks = {point: ["echo $FASTAPI_HOOK $(id -un) $TOKEN >> hooks"] for point in POINTS[:2]}
    hooks |= {point: ["echo $FASTAPI_HOOK $(id -un) $TOKEN >> /srv/tiny/shared/hooks"] for point in POINTS[2:]}
    hooks["after_switch"].append("echo $FASTAPI_PREVIOUS > $HOME/p")
    tiny.deployed(env={"TOKEN": "of-the-app"}, release={"hooks": hooks})
    lines = host.check_output("cat /srv/tiny/current/src/hooks /srv/tiny/shared/hooks").splitlines()
    users = ["_tiny", "_tiny", "tiny", "tiny", "tiny"]
    assert [line.split() for line in lines] == [[*pair, "of-the-app"] for pair in zip(POINTS, users, strict=True)]
    assert host.check_output("cat /var/cache/tiny/p") == before


def test_what_a_hook_starts_ends_with_it(host, tiny):
    hooks = {point: ["setsid sleep 600 >/dev/null 2>&1 &"] for point in POINTS}
    tiny.deployed(env={"DAEMON": "1"}, release={"hooks": hooks})
    assert host.run("pgrep -x sleep -u tiny,_tiny -a").stdout == ""
    assert host.run("systemctl list-units --all --no-legend 'fastapi-build-*' 'fastapi-run-*'").stdout == ""


def test_what_a_build_is_given_reaches_neither_the_app_nor_its_hooks(host, tiny):
    out = tiny.deployed(
        env={"BUILD": "1"},
        release={
            "build_env": {"PROXY_HINT": "plain"},
            "build_secrets": {"UV_INDEX_PRIVATE_PASSWORD": "index-s3cret"},
            "hooks": {
                "after_build": ["env > seen-by-build-hook", "python -c 'import gunicorn'"],
                "migrate": ["env > /srv/tiny/shared/seen-by-migrate"],
            },
        },
    )
    assert "index-s3cret" not in out
    assert "PROXY_HINT=plain" in host.check_output("cat /srv/tiny/current/src/seen-by-build-hook")
    seen = "/srv/tiny/current/src/seen-by-build-hook /srv/tiny/shared/seen-by-migrate"
    assert host.run(f"grep -l index-s3cret {seen}").stdout == ""
    assert host.run("grep -l PROXY_HINT /srv/tiny/shared/seen-by-migrate").stdout == ""
    pid = host.check_output(f"systemctl show -p MainPID --value tiny@{tiny.live()}.service")
    assert host.run(f"tr '\\0' '\\n' </proc/{pid}/environ | grep -E 'PROXY_HINT|INDEX'").stdout == ""
    assert host.run("grep -rl index-s3cret /srv/tiny /run /etc/systemd").stdout == ""


def test_the_check_and_later_hooks_run_in_the_sandbox_of_the_service(host, tiny):
    probe = "grep -E '^(NoNewPrivs|Seccomp|CapBnd):' /proc/self/status > /srv/tiny/shared/sandbox"
    writes = "touch /var/cache/tiny/x && ! touch /etc/x 2>/dev/null"
    tiny.deployed(env={"SANDBOX": "1"}, release={"hooks": {"migrate": [probe, writes]}})
    lines = host.check_output("cat /srv/tiny/shared/sandbox").splitlines()
    seen = dict(line.split(":\t") for line in lines)
    assert (seen["NoNewPrivs"], seen["Seccomp"], int(seen["CapBnd"], 16)) == ("1", "2", 0)


def test_a_build_is_ended_at_its_deadline_and_at_its_limit_of_memory(host, tiny):
    tiny.deployed()
    out = tiny.refused(env={"SLOW": "1"}, release={"build_timeout": 3, "hooks": {"before_build": ["sleep 60"]}})
    assert "before_build failed: the hook failed: not done within 3 s" in out
    hog = "python3 -c 'x = bytearray(400 << 20); print(len(x))'"
    limits = {"build_memory_max": "100M", "hooks": {"before_build": [hog]}}
    out = tiny.refused(env={"HOG": "1"}, release=limits)
    assert "before_build failed" in out and "419430400" not in out


def test_what_is_no_file_is_refused_by_name(host, tiny):
    tiny.deployed()
    out = tiny.refused(env={"FIFO": "1"}, release={"hooks": {"after_build": ["mkfifo static/odd"]}})
    assert "'static/odd' of the release is a fifo" in out
    out = tiny.refused(env={"LINK": "1"}, release={"hooks": {"after_build": ["ln -s /etc/passwd static/odd"]}})
    assert "the link 'static/odd' in the static directory 'static' leads out of it, to '/etc/passwd'" in out
    out = tiny.refused(env={"DIR": "1"}, release={"hooks": {"after_build": ["rm -r static; ln -s /etc static"]}})
    assert "the static directory 'static' is not a directory of the source" in out


def test_build_hooks_make_files_of_the_release_and_are_part_of_it(host, tiny):
    tiny.deployed(release={"hooks": {"before_build": ["echo one > made"]}})
    first = tiny.live()
    assert host.check_output("cat /srv/tiny/current/src/made") == "one"
    assert host.file("/srv/tiny/current/src/made").user == "root"
    tiny.deployed(release={"hooks": {"before_build": ["echo two > made"]}})
    assert tiny.live() != first


def test_other_hooks_are_no_part_of_a_release(tiny):
    tiny.deployed()
    before = tiny.live()
    assert "changed=0" in tiny.deployed(release={"hooks": {"migrate": ["false"], "after_switch": ["false"]}})
    assert tiny.live() == before


def test_a_release_that_was_good_is_not_migrated_again(host, tiny):
    migrate = {"hooks": {"migrate": ["echo x >> /srv/tiny/shared/migrated"]}}
    host.check_output("rm -f /srv/tiny/shared/migrated")
    for number in ("first", "second", "first"):
        tiny.deployed(env={"MIGRATED": number}, release=migrate)
    assert host.check_output("cat /srv/tiny/shared/migrated").split() == ["x", "x"]


def test_files_of_tasks_run_at_their_points(host, tiny, tmp_path):
    tasks = tmp_path / "hook.yml"
    look = "echo $(readlink /srv/tiny/live.sock) $(systemctl is-active 'tiny@*.service') >> /tmp/points"
    tasks.write_text(json.dumps([{"name": "Look", "ansible.builtin.shell": look}]), encoding="utf-8")
    tiny.deployed()
    before = tiny.live()
    host.check_output("rm -f /tmp/points")
    tiny.deployed(env={"TASKS": "1"}, release={"hooks": {point: [str(tasks)] for point in POINTS}})
    lines = [line.split() for line in host.check_output("cat /tmp/points").splitlines()]
    assert [line[0] == f"/run/tiny/{before}.sock" for line in lines] == [True, True, True, True, False]
    assert [line.count("active") for line in lines] == [1, 1, 1, 2, 2], "started beside the other before the switch"
    assert host.file("/srv/tiny/.lock").size == 0


@pytest.mark.parametrize("point", ["before_build", "after_build", "migrate", "before_switch", "after_switch"])
def test_a_hook_that_fails_fails_the_release_and_changes_nothing(host, tiny, point):
    tiny.deployed()
    failed = "echo $FASTAPI_PHASE > /srv/tiny/shared/failed"
    hooks = {point: ["echo said on the way; exit 3"], "after_failure": [failed]}
    out = tiny.refused(env={"POINT": point}, release={"hooks": hooks})
    assert f"{point} failed: the hook failed ('echo said on the way; exit 3' ended with 3)" in out
    assert "said on the way" in out
    assert host.check_output("cat /srv/tiny/shared/failed") == point


def test_a_task_that_fails_after_the_switch_sends_users_back(host, tiny, tmp_path):
    tasks = tmp_path / "smoke.yml"
    tasks.write_text("- name: Smoke test\n  ansible.builtin.fail: {msg: it smokes}\n", encoding="utf-8")
    tiny.deployed()
    out = tiny.refused(env={"SMOKE": "1"}, release={"hooks": {"after_switch": [str(tasks)]}})
    assert "it smokes" in out
    assert "tiny: not released on any host of this play" in out
    assert list(releases(host).values())[-1] == "failed"
    assert host.file("/srv/tiny/.lock").size == 0


def test_a_missing_file_of_tasks_is_named(tiny):
    tiny.deployed()
    out = tiny.refused(env={"MISSING": "1"}, release={"hooks": {"migrate": ["no/such.yml"]}})
    assert "the hook 'no/such.yml' is no file on the controller" in out


# -- shared paths -----------------------------------------------------------------------------------------------------


def test_shared_paths_outlive_releases_and_begin_with_what_the_source_brings(host, tiny):
    (tiny.source / "data").mkdir()
    (tiny.source / "data/seed").write_text("from the source")
    options = {"release": {"shared_paths": ["data", "media/uploads"]}}
    host.check_output("rm -rf /srv/tiny/shared/data /srv/tiny/shared/media")
    tiny.deployed(env={"SHARED": "1"}, **options)
    assert host.check_output("cat /srv/tiny/shared/data/seed") == "from the source"
    write = "cd /srv/tiny/current/src; echo kept > data/seed; echo new > media/uploads/x"
    host.check_output(f"runuser -u tiny -- sh -c '{write}'")
    (tiny.source / "data/seed").write_text("of the next version")
    tiny.deployed(env={"SHARED": "2"}, **options)
    assert host.check_output("cd /srv/tiny/current/src; cat data/seed media/uploads/x").split() == ["kept", "new"]


def test_nginx_reads_shared_files_where_it_serves_them_and_no_others(host, tiny):
    tiny.deployed(static_paths=["static", "media"], release={"shared_paths": ["media", "private"]})
    for name in ("media", "private"):
        host.check_output(f"runuser -u tiny -- sh -c 'umask 0027; echo x > /srv/tiny/shared/{name}/x'")
    assert host.run("runuser -u www-data -- cat /srv/tiny/current/src/media/x").rc == 0
    assert host.run("runuser -u www-data -- ls /srv/tiny/shared").rc != 0
    assert host.run("runuser -u www-data -- cat /srv/tiny/shared/private/x").rc != 0


def test_a_link_among_the_shared_files_does_not_lead_root_out(host, tiny):
    tiny.deployed()
    host.check_output("runuser -u tiny -- ln -s /etc /srv/tiny/shared/trap")
    try:
        out = tiny.refused(release={"shared_paths": ["trap/daoman"]})
    finally:
        host.check_output("rm /srv/tiny/shared/trap")
    assert "cannot fill the shared paths" in out and ("Permission denied" in out or "Read-only file system" in out)
    assert not host.file("/etc/daoman").exists


# -- going back -------------------------------------------------------------------------------------------------------


def play(tiny, module: str, *arguments: str, register: str = "", **options) -> subprocess.CompletedProcess:
    """Runs a module on tiny's host."""
    tasks = [{f"daoman.fastapi.{module}": {"name": "tiny", **options}, "register": "found"}]
    if register:
        tasks.append({"ansible.builtin.debug": {"msg": register}})
    text = tiny.play.read_text(encoding="utf-8")
    tiny.play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")
    try:
        return tiny.deploy(*arguments)
    finally:
        tiny.play.write_text(text, encoding="utf-8")


def rollback(tiny, **options) -> str:
    done = play(tiny, "release_rollback", **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def revisions(tiny, *names: str) -> list[str]:
    """Releases tiny in these revisions; the ids."""
    ids, before = [], 'REVISION = "1"'
    for name in names:
        tiny.edit(before, f'REVISION = "{name}"')
        before = f'REVISION = "{name}"'
        tiny.deployed(version="HEAD", env={"SETTING": name})
        ids.append(tiny.live())
    return ids


def test_a_rollback_brings_back_code_and_settings_without_the_network(host, tiny, measured):
    first, second = revisions(tiny, "before", "after")
    gateway = host.check_output("ip route show default")
    host.check_output("ip route del default")
    try:
        begun = time.monotonic()
        out = rollback(tiny, reason="prices are wrong")
        measured(f"rollback, the whole playbook: {time.monotonic() - begun:.1f} s")
    finally:
        host.check_output(f"ip route add {gateway}")
    assert "changed=1" in out
    assert (tiny.live(), tiny.ask("/revision"), tiny.ask("/env")["SETTING"]) == (first, "before", "before")
    assert releases(host)[second] == "rolled back"
    last = history(host)[-1]
    assert (last["action"], last["release"], last["previous"], last["outcome"]) == ("rollback", first, second, "good")
    assert last["reason"] == "prices are wrong"


def test_a_release_asks_for_no_reload_of_systemd(host, tiny):
    """Or systemctl warns at every call by hand, and the next run takes all units for changed."""
    host.check_output("systemctl daemon-reload")
    tiny.deployed(env={"RELOADED": "no"})
    rollback(tiny)
    assert "NeedDaemonReload=yes" not in host.check_output("systemctl show --property NeedDaemonReload '*'")


def test_a_rollback_never_chooses_what_failed_or_was_rolled_back(host, tiny):
    first, _second = revisions(tiny, "good", "bad")
    rollback(tiny)
    tiny.edit('REVISION = "bad"', 'REVISION = "better"')
    tiny.deployed()
    tiny.edit("import json", "import json\nimport nonsense")
    tiny.refused()
    rollback(tiny)
    assert tiny.live() == first


def test_a_rollback_goes_where_it_is_told(host, tiny):
    first, second, third = revisions(tiny, "x", "y", "z")
    rollback(tiny, release=first.rpartition("-")[2])
    assert tiny.live() == first
    rollback(tiny, release=third)
    assert tiny.live() == third, "one that was rolled back can be named"
    assert "changed=0" in rollback(tiny, release=third)
    refused = play(tiny, "release_rollback", release="v9")
    assert refused.returncode != 0
    assert "cannot go to release 'v9': there is none of that name" in refused.stderr
    assert second in refused.stderr, "it says what there is"


def test_what_was_rolled_back_is_kept_from_a_deploy_until_it_is_asked_for_again(host, tiny):
    first, second = revisions(tiny, "kept", "left")
    rollback(tiny, reason="prices are wrong")
    done = tiny.deploy(env={"SETTING": "left"})
    assert done.returncode == 0 and tiny.ask("/revision") == "kept", done.stdout + done.stderr
    assert "was not released: it is held since" in done.stdout + done.stderr
    assert "prices are wrong" in done.stdout + done.stderr
    assert tiny.deploy("-e", "gunicorn_app_release_again=true", env={"SETTING": "left"}).returncode == 0
    assert tiny.live() == second
    rollback(tiny)
    assert tiny.live() == first


def test_an_old_release_starts_with_the_environment_of_today(host, tiny):
    first, _second = revisions(tiny, "old", "new")
    assert play(tiny, "release_rollback", env="current").returncode == 0
    assert (tiny.ask("/revision"), tiny.ask("/env")["SETTING"]) == ("old", "new")
    assert tiny.live() != first and host.file(f"/srv/tiny/releases/{tiny.live()}/src/main.py").user == "root"
    assert history(host)[-1]["action"] == "rollback"


def test_a_rollback_in_check_mode_says_where_it_would_go(host, tiny):
    first, second = revisions(tiny, "here", "there")
    out = play(tiny, "release_rollback", "--check", "--diff").stdout
    assert "changed=1" in out and f"+{first}" in out
    assert tiny.live() == second


def test_a_rollback_to_a_release_that_does_not_start_any_more_changes_nothing(host, tiny):
    needed = "/srv/tiny/shared/needed"
    host.check_output(f"touch {needed}")
    tiny.edit('REVISION = "1"', 'REVISION = "needy"')
    service = {"overrides": {"Service": {"ExecStartPre": f"/usr/bin/test -e {needed}"}}}
    tiny.deployed(version="HEAD", service=service)
    first = tiny.live()
    tiny.edit('REVISION = "needy"', 'REVISION = "free"')
    tiny.deployed(version="HEAD")
    second = tiny.live()
    host.check_output(f"rm {needed}")
    refused = play(tiny, "release_rollback")
    assert refused.returncode != 0 and f"tiny@{first}.service does not start" in refused.stdout + refused.stderr
    assert (tiny.live(), tiny.ask("/revision")) == (second, "free")
    assert releases(host)[first] == "does not start"
    assert host.run(f"systemctl is-active tiny@{first}.service").stdout.strip() == "inactive"


def test_a_rollback_to_a_release_that_is_damaged_changes_nothing(host, tiny):
    first, second = revisions(tiny, "sound at first", "sound")
    host.check_output(f"mv /srv/tiny/releases/{first}/src/main.py /srv/tiny/releases/{first}/src/gone.py")
    refused = play(tiny, "release_rollback")
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0 and f"release {first} is damaged" in said and "src/main.py is missing" in said
    assert (tiny.live(), tiny.ask("/revision")) == (second, "sound")


def test_a_state_file_that_is_damaged_is_set_aside_and_in_nobody_s_way(host, tiny):
    first, second = revisions(tiny, "whole", "damaged")
    host.check_output("for f in order.json history.jsonl; do echo '{' >>/srv/tiny/$f; done")
    host.check_output(f"echo '[' >/srv/tiny/releases/{first}/state.json")
    done = play(tiny, "release_rollback", release=first)
    assert done.returncode == 0 and tiny.live() == first, done.stdout + done.stderr
    for path in ("order.json", "history.jsonl", f"releases/{first}/state.json"):
        assert f"/srv/tiny/{path}.damaged-" in done.stdout + done.stderr
    assert history(host)[-1]["previous"] == second
    host.check_output("find /srv/tiny -name '*.damaged-*' -delete")


def test_the_listing_says_what_there_is(host, tiny):
    _first, second = revisions(tiny, "one", "two")
    out = play(tiny, "release_info", register="FOUND{{ found.releases | to_json | b64encode }}DNUOF").stdout
    listed = json.loads(base64.b64decode(out.partition("FOUND")[2].partition("DNUOF")[0]))
    assert [item["id"] for item in listed if item["live"]] == [second]
    assert {item["id"]: item["state"] for item in listed} == releases(host)
    assert all("@" in item["by"] and item["deployed"].endswith("Z") for item in listed if item["state"] == "good")


# -- locks ------------------------------------------------------------------------------------------------------------


def lock(tiny, **options) -> str:
    done = play(tiny, "release_lock", **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_who_holds_an_app_is_told_to_others(host, tiny):
    tiny.deployed()
    lock(tiny, reason="the database is being moved", who="ops@control")
    assert "changed=0" in lock(tiny, reason="the database is being moved", who="ops@control")
    assert "changed=0" in tiny.deployed(), "what changes nothing needs no lock"
    out = tiny.refused(env={"HELD": "1"})
    assert "it is locked by ops@control since 20" in out and "for: the database is being moved" in out
    lock(tiny, state="absent")
    tiny.deployed(env={"HELD": "1"})


def test_a_lock_can_be_broken_and_may_expire(host, tiny):
    tiny.deployed()
    lock(tiny, reason="lunch")
    assert tiny.deploy("-e", "gunicorn_app_break_lock=true", env={"BROKEN": "1"}).returncode == 0
    lock(tiny, reason="lunch", minutes=1)
    host.check_output('sed -i \'s/"until": "20../"until": "2001/\' /srv/tiny/.lock')
    out = tiny.deployed(env={"BROKEN": "2"})
    assert host.file("/srv/tiny/.lock").size == 0, out


def test_no_other_user_can_hold_an_app(host, tiny):
    tiny.deployed(env={"HELD": "by nobody else"})
    assert host.run("setpriv --reuid=nobody --clear-groups flock -n /srv/tiny/.lock true").rc != 0
    # As releases before 0.3 made it.
    host.check_output("chmod 644 /srv/tiny/.lock")
    host.check_output("systemd-run --quiet --collect --unit=holder --uid=nobody flock /srv/tiny/.lock sleep 600")
    try:
        tiny.deployed(env={"HELD": "by nobody"})
    finally:
        held = host.run("systemctl stop holder").rc == 0
    assert held and host.check_output("stat -c '%U %a' /srv/tiny/.lock") == "root 600"


def test_a_hanging_run_is_ended_by_breaking_its_lock(host, tiny):
    tiny.deployed()
    tiny.edit('REVISION = "1"', 'REVISION = "5"')
    said = '{"pid": \'$!\', "owner": "ops", "since": "1", "reason": "x"}'
    holder = f"flock /srv/tiny/.lock sleep 60 & echo '{said}'"
    host.check_output(f"echo {shlex.quote(holder + ' > /srv/tiny/.lock; wait')} > /tmp/holder")
    host.check_output("systemd-run --quiet --collect --unit=holder sh /tmp/holder")
    try:
        out = tiny.refused()
        assert "another run is changing it: ops since 1, for: x" in out
        assert tiny.deploy("-e", "gunicorn_app_break_lock=true").returncode == 0
        assert tiny.ask("/revision") == "5"
    finally:
        host.run("systemctl stop holder")


# -- leaving ----------------------------------------------------------------------------------------------------------


def test_an_absent_app_leaves_nothing(host, tiny):
    name = "gone"
    source = {"name": name, "domain": "gone.example.com", "source": str(tiny.source), "app": "main:app"}
    role = "- {hosts: all, gather_facts: false, become: true, roles: [daoman.fastapi.gunicorn_app]}\n"
    tiny.play.write_text(role, encoding="utf-8")
    tiny.edit("tiny.example.com", "gone.example.com")
    tiny.options = source
    tiny.deployed()
    for account, comment in ((name, "FastAPI app"), (f"_{name}", "FastAPI build")):
        user = host.user(account)
        assert (user.gecos, user.home, user.shell) == (comment, "/nonexistent", "/usr/sbin/nologin")
        assert user.groups == [account]
    # What it could leave behind: a process outside of its unit, files of its uid, where its private ones end.
    left = "touch /dev/shm/x /var/tmp/x; exec sleep 600"
    as_it = f"setsid setpriv --reuid={name} --regid={name} --clear-groups"
    host.check_output(f"{as_it} sh -c '{left}' </dev/null >/dev/null 2>&1 &")
    uid = host.user(name).uid
    logs = "/var/log/nginx"
    host.check_output(f"mkdir -p {logs}; touch {logs}/{name}.access.log {logs}/{name}2.access.log")
    tiny.options = {"name": name, "state": "absent"}
    assert "changed=1" in tiny.deploy("--check").stdout
    assert "changed=1" in tiny.deployed()
    for account in (name, f"_{name}"):
        assert not host.user(account).exists and not host.group(account).exists
    assert host.run(f"pgrep -U {uid}").rc == 1
    assert host.check_output(f"find /tmp /var/tmp /dev/shm -uid {uid}") == ""
    left = host.check_output(f"find / -xdev -name '*{name}*' -not -path '/usr/*'")
    assert left.split() == [f"{logs}/{name}2.access.log"]
    assert host.run(f"ls -d /run/{name}").rc != 0
    assert host.check_output(f"systemctl list-units --all --no-legend '{name}*'") == ""
    host.check_output(f"rm {logs}/{name}2.access.log")
    assert "changed=0" in tiny.deployed()


def test_what_was_there_before_is_refused_by_an_app_of_its_name_and_by_its_removal(host, tiny):
    """A person's account, a cache of a package, a directory of another service."""
    host.check_output(
        "useradd --create-home --shell /bin/bash --comment Alice alice; mkdir -p /srv/ftp; touch /srv/ftp/file"
    )
    facts = "getent passwd alice; stat -c '%U %a %n' /home/alice /srv/ftp /srv/ftp/file /var/cache/apt"
    before = host.check_output(facts)
    role = "- {hosts: all, gather_facts: false, become: true, roles: [daoman.fastapi.gunicorn_app]}\n"
    tiny.play.write_text(role, encoding="utf-8")
    present = {**tiny.options, "domain": "alice.example.com"}
    try:
        for name, said in (
            ("alice", "comment 'Alice', home /home/alice"),
            ("ftp", "/srv/ftp"),
            ("apt", "/var/cache/apt"),
        ):
            for tiny.options in ({**present, "name": name}, {"name": name, "state": "absent"}):
                done = tiny.deploy("--check") if name == "alice" else tiny.deploy()
                assert done.returncode != 0
                output = done.stdout + done.stderr
                assert f"'{name}' is not free on this host" in output and said in output, output
        assert host.check_output(facts) == before
    finally:
        host.check_output("userdel -r alice; rm -r /srv/ftp")


def test_the_history_tells_no_stranger_what_was_released(host, tiny):
    tiny.deployed()
    line = '{"revision": "x @ https://u:very-secret@h/x"}'
    host.check_output(f"echo {shlex.quote(line)} >>/srv/tiny/history.jsonl; chmod 644 /srv/tiny/history.jsonl")
    tiny.deployed()
    assert "very-secret" not in host.check_output("cat /srv/tiny/history.jsonl")
    assert host.check_output("stat -c '%U:%G %a' /srv/tiny/history.jsonl") == "root:adm 640"
    assert host.check_output("stat -c %a /srv/tiny/current/state.json") == "600"
