"""What sandboxed units can and cannot do, and that units come all or none."""

from __future__ import annotations

import base64
import json
import shlex
import time

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils._host import systemd


def wait_for(condition, seconds: float = 10):
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.1)


def service(name: str, command: str, **extra) -> dict:
    return {
        "name": name,
        "sections": {"Service": {"ExecStart": command}, "Install": {"WantedBy": "multi-user.target"}},
        **extra,
    }


# -- what runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["worker.service", "tick.timer", "greet.socket", "queue@mail.service"])
def test_units_run_and_start_at_boot(host, name):
    unit = host.service(name)
    assert unit.is_running and unit.is_enabled


def test_units_are_roots_and_say_who_wrote_them(host):
    file = host.file("/etc/systemd/system/worker.service")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)
    assert file.content_string.startswith("# Ansible managed: daoman.fastapi.systemd_service\n")


def test_a_list_gives_a_directive_several_times(host):
    pid = host.check_output("systemctl show --value --property=MainPID worker.service")
    environment = host.check_output(f"tr '\\0' '\\n' < /proc/{pid}/environ").splitlines()
    assert {"A=first one", "B=2"} <= set(environment)


def test_a_timer_fires(host):
    host.check_output("rm -f /run/ticked")
    wait_for(lambda: host.file("/run/ticked").exists)


def test_a_socket_starts_its_service(host):
    code = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/greet.sock'); print(s.recv(9).decode())"
    assert host.check_output(f'python3 -c "{code}"').strip() == "hello"


def test_a_template_is_not_started_itself(host):
    running = host.check_output("systemctl list-units --plain --no-legend 'queue@*'").splitlines()
    assert [line.split()[0] for line in running] == ["queue@mail.service"]


# -- the sandbox ------------------------------------------------------------------------------------------------------

CLOSED = ["write /etc", "write /usr", "write /srv", "write /run", "list /home", "list /root", "read /dev/mem",
          "set the clock", "see the host's /tmp", "see the host's shared memory", "see others' processes",
          "signal others' processes", "trace processes", "make a user namespace", "make a setuid file", "become root",
          "memory to write and execute", "ask D-Bus", "ask the kernel for routes"]
OPEN = ["write /tmp", "temporary file", "shared memory", "write its state", "unix socket"]
# Lists of what it got at.
OF_OTHERS = ["read what is others'", "write what is others'", "list what is others'", "connect to what is others'"]


@pytest.fixture
def probe(host):
    """Runs the probe of a profile and tells what it could do."""
    host.check_output("touch /tmp/of-the-host /dev/shm/of-the-host; "
                      "install -m 4755 /usr/bin/id /usr/local/bin/probe-id; install -d -m 0700 /run/probe-secret; "
                      "install -m 0600 /etc/hostname /run/probe-secret/file; "
                      "install -m 0600 /etc/hostname /run/probe-file")
    server = "systemd-run --unit=probe-listener --collect --quiet python3 -m http.server 7001"
    host.run("systemctl stop probe-listener.service")
    host.check_output(server)
    wait_for(lambda: host.socket("tcp://0.0.0.0:7001").is_listening)
    settings = json.dumps({
        "address": host.check_output("hostname -I").split()[0],
        "pid": int(host.check_output("systemctl show --value --property=MainPID probe-listener")),
        "closed": ["/run/probe-file", "/run/probe-secret/file", "/etc/shadow"], "hidden": ["/run/probe-secret"],
        "sockets": ["/run/systemd/private"], "ports": [],
    })
    host.check_output(f"echo '{settings}' >/run/probe.json")

    def run(profile):
        done = host.run(f"systemctl start probe-{profile}.service")
        assert done.rc == 0, host.check_output(f"journalctl --no-pager -n 20 -u probe-{profile}.service")
        return json.loads(host.file(f"/run/probe-{profile}.json").content_string)

    yield run
    host.run("systemctl stop probe-listener.service")
    host.run("rm -rf /etc/probe-was-here /usr/probe-was-here /srv/probe-was-here /run/probe-was-here "
             "/dev/shm/probe-was-here /dev/shm/of-the-host /usr/local/bin/probe-id /run/probe-secret /run/probe-file")


def test_the_probe_can_all_of_it_without_a_sandbox(probe):
    could = probe("none")
    able = {name for name, done in could.items() if done}
    assert able >= set(CLOSED) - {"read /dev/mem"} | set(OPEN) | set(OF_OTHERS) | {"loopback", "network"}, could


@pytest.mark.parametrize(
    "profile, loopback, network", [("strict", False, False), ("localhost", True, False), ("network", True, True)]
)
def test_a_profile_closes_what_it_says_and_no_more(probe, profile, loopback, network):
    could = probe(profile)
    for name in ("listen on a service's port", "any free port"):  # what the app's own unit says
        del could[name]
    assert could == {**dict.fromkeys(CLOSED, False), **dict.fromkeys(OPEN, True), **{name: [] for name in OF_OTHERS},
                     "loopback": loopback, "network": network}


@pytest.mark.parametrize("profile, limit", [("strict", 0.3), ("localhost", 1.0), ("network", 1.2)])
def test_the_exposure_is_low(host, profile, limit):
    done = host.run(f"systemd-analyze security --no-pager --threshold={int(limit * 10)} probe-{profile}.service")
    assert done.rc == 0, done.stdout.splitlines()[-1]


# -- refused before anything is written -------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_an_unknown_directive_does_not_reach_the_disk(units, arguments):
    bad = service("bad.service", "/usr/bin/sleep infinity")
    bad["sections"]["Service"]["Exec-Stop"] = "/usr/bin/true"
    said = units.refused(service("good.service", "/usr/bin/sleep infinity"), bad, arguments=arguments)
    assert "systemd_service_units[1].sections.Service.Exec-Stop" in said
    assert "Did you mean 'ExecStop'?" in said
    assert units.text("bad.service") is None and units.text("good.service") is None


def test_a_bad_value_does_not_reach_the_disk(units):
    bad = service("bad.service", "/usr/bin/sleep infinity")
    bad["sections"]["Service"]["Restart"] = "sometimes"
    assert "sometimes" in units.refused(bad)
    assert units.text("bad.service") is None


def test_a_missing_command_does_not_reach_the_disk(units):
    said = units.refused(service("bad.service", "/usr/bin/no-such-thing"))
    assert "/usr/bin/no-such-thing is not executable" in said
    assert units.text("bad.service") is None


@pytest.mark.either_host
def test_a_missing_command_is_only_a_warning_in_check_mode(units):
    done = units.run(service("bad.service", "/usr/bin/no-such-thing"), arguments=("--check",))
    assert done.returncode == 0, done.stdout
    assert "/usr/bin/no-such-thing is not executable" in done.stdout + done.stderr
    assert units.text("bad.service") is None


def test_too_exposed_a_service_does_not_reach_the_disk(units):
    said = units.refused(service("bad.service", "/usr/bin/sleep infinity", exposure_limit=1.5))
    assert "over the limit of 1.5" in said
    assert units.text("bad.service") is None


@pytest.mark.either_host
def test_an_unknown_option_names_the_right_one(units):
    # Ansible's own check of the role's arguments comes first here
    done = units.run({**service("bad.service", "/usr/bin/true"), "profil": "strict"})
    assert done.returncode == 2 and "systemd_service_units.profil" in done.stdout + done.stderr
    assert units.text("bad.service") is None


# -- all or none ------------------------------------------------------------------------------------------------------


@pytest.mark.either_host
@pytest.mark.parametrize("command", ["/usr/bin/false", "/usr/bin/sh -c 'echo about to fail; sleep 0.3; exit 3'"])
def test_a_broken_start_leaves_the_running_version(units, command):
    units.applied(service("job.service", "/usr/bin/sleep infinity"))
    text = units.text("job.service")
    said = units.taken_back(service("job.service", command))
    assert "did not stay up" in said and "job.service: Main process exited" in said
    assert units.text("job.service") == text
    assert units.show("job.service", "ActiveState") == "active"
    assert "infinity" in units.show("job.service", "ExecStart")


@pytest.mark.either_host
def test_a_crash_loop_counts_as_a_broken_start(units):
    looping = service("job.service", "/usr/bin/false")
    looping["sections"]["Service"].update(Restart="always", RestartSec="100ms")
    looping["sections"]["Unit"] = {"StartLimitIntervalSec": 0}
    units.taken_back(looping)
    assert units.text("job.service") is None
    assert units.show("job.service", "ActiveState") == "inactive"


@pytest.mark.either_host
def test_a_new_unit_that_does_not_start_leaves_nothing(host, units):
    units.taken_back(service("job.service", "/usr/bin/false"))
    assert units.text("job.service") is None
    assert not host.file("/etc/systemd/system/multi-user.target.wants/job.service").exists
    assert units.show("job.service", "LoadState") == "not-found"


@pytest.mark.either_host
def test_one_broken_unit_takes_the_others_back(units):
    units.applied(service("first.service", "/usr/bin/sleep 1001"), service("second.service", "/usr/bin/sleep 1002"))
    units.taken_back(service("first.service", "/usr/bin/sleep 2001"), service("second.service", "/usr/bin/false"),
                  {"name": "third.service", "state": "absent"})
    for name, seconds in (("first.service", "1001"), ("second.service", "1002")):
        assert seconds in units.text(name)
        assert seconds in units.show(name, "ExecStart")
        assert units.show(name, "ActiveState") == "active"


@pytest.mark.either_host
def test_what_is_to_go_stays_where_its_successor_fails(units):
    units.applied(service("old.service", "/usr/bin/sleep infinity"))
    units.taken_back({"name": "old.service", "state": "absent"}, service("new.service", "/usr/bin/false"))
    assert units.text("old.service") is not None
    assert units.show("old.service", "ActiveState") == "active"


# -- changes ----------------------------------------------------------------------------------------------------------


@pytest.mark.either_host
def test_only_what_changed_is_restarted(units):
    def run(seconds):
        units.applied(service("a.service", "/usr/bin/sleep 1001"), service("b.service", f"/usr/bin/sleep {seconds}"))
        return units.show("a.service", "MainPID"), units.show("b.service", "MainPID")

    before, after = run(1001), run(1002)
    assert before[0] == after[0] and before[1] != after[1]


@pytest.mark.either_host
def test_a_file_that_systemd_has_not_read_is_read(host, units):
    """As an interrupted run leaves it: the new file is there, the old one runs."""
    units.applied(service("job.service", "/usr/bin/sleep 1001"))
    host.check_output("sed -i s/1001/1002/ /etc/systemd/system/job.service")
    units.applied(service("job.service", "/usr/bin/sleep 1002"))
    assert "1002" in units.show("job.service", "ExecStart")
    pid = units.show("job.service", "MainPID")
    assert "1002" in host.check_output(f"tr '\\0' ' ' < /proc/{pid}/cmdline")


@pytest.mark.either_host
def test_a_unit_that_replaces_a_running_one_of_a_package_is_restarted(host, units):
    host.check_output("printf '[Service]\nExecStart=/usr/bin/sleep 1001\n' > /usr/lib/systemd/system/job.service")
    host.check_output("systemctl daemon-reload && systemctl start job.service")
    try:
        units.applied(service("job.service", "/usr/bin/sleep 1002"))
        pid = units.show("job.service", "MainPID")
        assert "1002" in host.check_output(f"tr '\\0' ' ' < /proc/{pid}/cmdline")
        units.taken_back(service("job.service", "/usr/bin/false"))
        assert "1002" in units.show("job.service", "ExecStart")
    finally:
        host.check_output("rm /usr/lib/systemd/system/job.service")


@pytest.mark.either_host
def test_a_unit_with_a_changed_drop_in_is_restarted(host, units):
    """Of a unit that a package brings there is no file here that would tell of a change."""
    units.applied(service("job.service", "/usr/bin/sleep 1001"))
    host.check_output("mkdir /etc/systemd/system/job.service.d")
    host.check_output("printf '[Service]\nNice=7\n' > /etc/systemd/system/job.service.d/50-nice.conf")
    try:
        units.applied({"name": "job.service", "state": "started"})
        assert units.show("job.service", "Nice") == "0"
        units.applied({"name": "job.service", "state": "started", "stale": True})
        assert host.check_output(f"ps -o ni= -p {units.show('job.service', 'MainPID')}").strip() == "7"
    finally:
        host.check_output("rm -r /etc/systemd/system/job.service.d")


@pytest.mark.either_host
def test_a_changed_socket_is_restarted_with_its_running_service(host, units):
    def run(path):
        return units.applied(
            {"name": "held.socket", "sections": {"Socket": {"ListenStream": path},
                                                 "Install": {"WantedBy": "sockets.target"}}},
            {"name": "held.service", "sections": {"Service": {"ExecStart": "/usr/bin/sleep infinity"}}},
        )

    run("/run/held-1.sock")
    host.check_output("systemctl start held.service")
    run("/run/held-2.sock")
    assert host.file("/run/held-2.sock").is_socket
    assert units.show("held.socket", "ActiveState") == "active"
    assert units.show("held.service", "ActiveState") == "active"


@pytest.mark.either_host
def test_a_changed_install_section_moves_the_links(host, units):
    unit = service("job.service", "/usr/bin/sleep infinity")
    units.applied(unit)
    unit["sections"]["Install"]["WantedBy"] = "graphical.target"
    units.applied(unit)
    wants = "/etc/systemd/system/{}.target.wants/job.service"
    assert host.file(wants.format("graphical")).exists
    assert not host.file(wants.format("multi-user")).exists


@pytest.mark.either_host
def test_stopped_units_stop_and_do_not_start_at_boot(units):
    units.applied(service("job.service", "/usr/bin/sleep infinity"))
    units.applied(service("job.service", "/usr/bin/sleep infinity", state="stopped", enabled=False))
    assert units.show("job.service", "ActiveState") == "inactive"
    assert units.show("job.service", "UnitFileState") == "disabled"


@pytest.mark.either_host
def test_absent_takes_drop_ins_links_and_instances_along(host, units):
    template = {"name": "many@.service", "sections": {
        "Service": {"ExecStart": "/usr/bin/sleep infinity"}, "Install": {"WantedBy": "multi-user.target"}}}
    units.applied(template, {"name": "many@one.service", "state": "started", "enabled": True})
    host.check_output("mkdir /etc/systemd/system/many@.service.d")
    host.check_output("printf '[Service]\\nNice=1\\n' > /etc/systemd/system/many@.service.d/nice.conf")
    units.applied({"name": "many@.service", "state": "absent"})
    assert host.run("ls -d /etc/systemd/system/many@* /etc/systemd/system/*/many@*").stdout == ""
    assert units.show("many@one.service", "ActiveState") == "inactive"
    assert "changed=0" in units.applied({"name": "many@.service", "state": "absent"})


# -- environment files ------------------------------------------------------------------------------------------------


def test_an_environment_file_holds_any_value(host):
    values = {
        "EMPTY": "", "SPACES": "  both ends  ", "QUOTES": "it's \"x\"", "BACKSLASHES": "C:\\new\\", "BACKTICKS": "`id`",
        "DOLLARS": "$HOME ${PATH} $$", "PERCENT": "100% %h %%", "HASH": "# no comment", "SEMICOLON": "; none either",
        "EQUALS": "a=b=", "LINES": "-----BEGIN-----\nabc==\n\n-----END-----\n", "CONTINUED": "a\\\nb", "TAB": "\ta\t",
        "UNICODE": "žluťoučký 漢字 😀", "JSON": json.dumps({"a": ["b\"c\\", 1]}), "TRUE": True, "NUMBER": 8000,
    }
    encoded = base64.b64encode(systemd.env_file(values).encode()).decode()
    host.check_output(f"echo {encoded} | base64 -d > /run/values.env")
    read = shlex.quote("import json, os; print(json.dumps(dict(os.environ)))")
    out = host.check_output(f"systemd-run --pipe --wait --quiet -p EnvironmentFile=/run/values.env python3 -c {read}")
    got = json.loads(out)
    expected = {name: systemd.env_value(value) for name, value in values.items()}
    assert {name: got.get(name) for name in values} == expected
