"""Every line is one JSON object, a request has one id everywhere, and logs are rotated without losing a line."""

from __future__ import annotations

import json
import time

ASK = "curl --silent --include --insecure --max-time 10 --resolve shop.example.com:443:127.0.0.1"


def app_lines(doctor, since: str = "-1h") -> list[str]:
    script = f"journalctl --no-pager --output cat --since {since} _SYSTEMD_UNIT=$unit.service"
    return doctor.shell(script).stdout.splitlines()


def test_all_that_gunicorn_and_the_app_say_is_json(doctor):
    """Boot lines, warnings of the app, and tracebacks."""
    doctor.shell("again; get /log?hello; get /boom; sleep 0.5")
    lines = app_lines(doctor, "-30s")
    entries = [json.loads(line) for line in lines]
    assert all(isinstance(entry, dict) and entry["message"] and entry["level"] for entry in entries), lines
    messages = "\n".join(entry["message"] for entry in entries)
    assert "Booting worker" in messages and "the app says: hello" in messages
    (trace,) = [entry["exc_info"] for entry in entries if "RuntimeError: it went wrong" in entry.get("exc_info", "")]
    assert trace.startswith("Traceback (most recent call last)")


def test_one_id_runs_from_the_edge_to_the_app_and_back(doctor):
    answers = {path: doctor.shell(f"{ASK} https://shop.example.com{path}").stdout for path in ("/log?one", "/boom")}
    time.sleep(1.5)
    requests = [
        json.loads(line) for line in doctor.host.check_output("tail -n 20 /var/log/nginx/shop.access.log").splitlines()
    ]
    entries = [json.loads(line) for line in app_lines(doctor, "-30s")]
    for path, answer in answers.items():
        headers = dict(line.lower().split(": ", 1) for line in answer.replace("\r", "").splitlines() if ": " in line)
        id_ = headers["x-request-id"]
        assert len(id_) == 32
        assert [entry["uri"] for entry in requests if entry["request_id"] == id_] == [path]
        said = [entry for entry in entries if entry.get("request_id") == id_]
        assert len(said) == 1, (path, entries)
    assert "RuntimeError" in said[0]["exc_info"]


def test_what_belongs_to_no_request_has_no_id(doctor):
    boots = [json.loads(line) for line in app_lines(doctor) if "Booting worker" in line]
    assert boots and not any("request_id" in entry for entry in boots)


def test_every_line_of_nginx_is_json(doctor):
    doctor.shell(
        f"{ASK} --user-agent 'a \"quote\" \\ and \x01' 'https://shop.example.com/log?q=%22%5c%0a' || true; sleep 1.5"
    )
    lines = doctor.host.check_output("cat /var/log/nginx/shop.access.log").splitlines()
    assert lines and all(isinstance(json.loads(line), dict) for line in lines)


def test_rotation_loses_no_line_and_opens_no_log_to_others(doctor):
    """Under requests: none is missing, and the new files belong to www-data:adm."""
    rotate = "sleep 0.4; logrotate --force /etc/logrotate.d/nginx; wait; sleep 1.5"
    marks = "for n in $(seq 60); do get /log?rotation-$n; done & " + rotate
    assert doctor.shell(marks).rc == 0
    found = doctor.shell(
        "zcat -f /var/log/nginx/shop.access.log* | grep -o 'rotation-[0-9]*' | sort -u | wc -l"
    ).stdout.strip()
    assert found == "60"
    listed = doctor.host.check_output(
        "stat -c '%U:%G %a %s %n' /var/log/nginx/shop.access.log /var/log/nginx/shop.access.log-*"
    )
    assert len(listed.splitlines()) >= 2
    for line in listed.splitlines():
        assert line.startswith("www-data:adm 640 "), listed
        assert line.split()[2] != "0", "a log without a line: " + listed


def test_rotation_is_scheduled_and_sound(host):
    assert host.check_output("systemctl is-active logrotate.timer") == "active"
    done = host.run("logrotate --debug /etc/logrotate.d/nginx")
    assert done.rc == 0 and "error" not in (done.stdout + done.stderr).lower().replace("error.log", "")


def test_a_log_that_grows_too_large_is_rotated_within_the_hour(host):
    log = "/var/log/nginx/error.log"
    assert "*-*-* *:00:00" in host.check_output("systemctl show --property TimersCalendar logrotate.timer")
    for size, rotated in (("499M", False), ("501M", True)):
        host.check_output(f"truncate --size {size} {log}; logrotate --state /root/rotated /etc/logrotate.d/nginx")
        assert (host.file(log).size < 1 << 20) is rotated, size
    host.check_output("rm /var/log/nginx/error.log-*")


def test_the_journal_is_kept_and_bounded(host):
    assert host.file("/var/log/journal").is_directory
    said = host.check_output("journalctl --no-pager --unit systemd-journald --output cat")
    assert "max 1" in said and "G" in said, said
    text = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert "SystemMaxUse=1G" in text and "MaxRetentionSec=1month" in text
