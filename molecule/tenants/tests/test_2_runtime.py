"""What alpha's app does in its sandbox while it serves: what it publishes, prints, counts and leaves lying about."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager

import pytest

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
UPLOADS = "/srv/alpha/shared/uploads"
# Files of others that nginx's own user may read.
LOOT = {
    "passwd": "/etc/passwd",
    "site": "/etc/nginx/nginx.conf",
    "log": "/var/log/nginx/beta.access.log",
    "static": "/srv/beta/current/src/static/v1/site.css",
    "upload": "/srv/beta/shared/uploads/private.txt",
    "etc/passwd": "/etc",
    "uploads/private.txt": "/srv/beta/shared/uploads",
    "chain/passwd": "../uploads/etc",
}


REMOVE_LINKS = """
for path in map('uploads/{}'.format, os.listdir('uploads')):
    if os.path.islink(path):
        os.unlink(path)
"""
HOSTILE_NAMES = [
    "-rf",
    "a\nb",
    "\x1b]0;owned\x07",
    "..\\..",
    "$(touch doctor-was-here)",
    "`id`",
    "20260101T000000Z-000000000000.sock",
]
LITTER = f"""
import os, sys
for name in {HOSTILE_NAMES!r}:
    open('/srv/alpha/shared/' + name, 'w').close()
os.mkfifo('/srv/alpha/shared/fifo')
os.symlink('/opt/victim/secret', '/srv/alpha/shared/link')
print('\x1b]0;owned\x07\x1b]52;c;cm0gLXJmIC8=\x07ERROR \x9b2J', file=sys.stderr)
print('{{"level": "error", "message": "\\\\u001b]0;owned\\\\u0007"}}', file=sys.stderr, flush=True)
"""
SWEEP = f"""
import os
for name in {[*HOSTILE_NAMES, "fifo", "link"]!r}:
    if os.path.lexists('/srv/alpha/shared/' + name):
        os.unlink('/srv/alpha/shared/' + name)
"""
FLOOD = """
import sys
for number in range(60):
    sys.stderr.write(('x' * 200 + '\\n') * 1000)
sys.stderr.flush()
"""


@pytest.fixture(autouse=True, scope="module")
def live(attacked):
    """alpha serves the release that came after the hostile one."""


@contextmanager
def made_by_alpha(tenant, code: str, undo: str):
    said = tenant.run(f"import os, shutil\nos.chdir({UPLOADS!r})\n{code}")
    assert said == "", said
    try:
        yield
    finally:
        tenant.run(f"import os, shutil\nos.chdir('/srv/alpha/shared')\n{undo}")


def test_an_uploaded_file_is_served(tenant):
    with made_by_alpha(tenant, "open('own.txt', 'w').write('own')", "os.unlink('uploads/own.txt')"):
        assert tenant.get("/uploads/own.txt", "alpha") == (200, "own")


@pytest.mark.parametrize("path", LOOT)
def test_a_link_made_at_run_time_is_not_served(tenant, path):
    tenant.sh("install -o beta -g www-data -m 0640 /dev/null /srv/beta/shared/uploads/private.txt")
    name = path.split("/")[0]
    code = f"os.symlink('/etc', 'etc') if {name!r} == 'chain' else None\nos.symlink({LOOT[path]!r}, {name!r})"
    with made_by_alpha(tenant, code, REMOVE_LINKS):
        status, body = tenant.get(f"/uploads/{path}", "alpha")
        assert status in (403, 404), body[:200]


def test_a_hard_link_to_a_file_of_others_cannot_be_made(tenant):
    said = tenant.run(f"import os\nos.link('/etc/passwd', '{UPLOADS}/passwd')")
    tenant.run(f"import os\nos.unlink('{UPLOADS}/passwd')")
    assert "PermissionError" in said or "OSError" in said


@pytest.mark.parametrize(
    ("target", "url"), [("/etc", "/uploads/passwd"), ("/srv/beta/shared/uploads", "/uploads/private.txt")]
)
def test_a_published_directory_that_becomes_a_link_is_not_served(tenant, target, url):
    """Not even when it is released again."""
    tenant.sh("install -o beta -g www-data -m 0640 /dev/null /srv/beta/shared/uploads/private.txt")
    code = f"os.rename('../uploads', '../was')\nos.symlink({target!r}, '../uploads')"
    with made_by_alpha(tenant, code, "os.unlink('uploads')\nos.rename('was', 'uploads')"):
        assert tenant.get(url, "alpha")[0] in (403, 404)


def test_metrics_of_others_cannot_be_made_up(tenant):
    lines = [
        "fastapi_http_requests_total:5000|c|#app:beta,method:GET,route:/forged,status:500",
        "fastapi_certificate_served:0|g|#app:beta",
        "up:0|g|#app:beta",
    ]
    tenant.run(
        "import socket\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        f"for line in {lines!r}:\n    s.sendto(line.encode(), '/run/fastapi-metrics/statsd.sock')\n"
    )
    metrics = tenant.sh("for try in 1 2 3 4; do curl -sS http://127.0.0.1:9102/metrics; sleep 0.1; done")
    assert 'app="alpha"' in metrics or "fastapi_" in metrics
    for line in metrics.splitlines():
        assert "/forged" not in line
        assert not line.startswith(("up", "fastapi_certificate_served"))


def test_the_doctor_reads_hostile_names_and_lines(tenant):
    assert tenant.run(LITTER) == ""
    try:
        said = tenant.host.run("timeout 40 /usr/local/sbin/troubleshoot.sh 2>&1")
    finally:
        tenant.run(SWEEP)
    assert said.rc != 124
    # Its own colours are another matter: there are none without a terminal.
    assert not CONTROL.search(said.stdout.replace("\t", " "))
    assert "root-secret" not in said.stdout
    assert tenant.sh("find / -xdev -name doctor-was-here") == ""


def test_a_flood_of_lines_leaves_the_journal_of_others(tenant):
    """At most a part of it is kept."""
    before = len(tenant.sh("journalctl -q -o cat -u 'alpha@*'").splitlines())
    tenant.run(FLOOD)
    after = len(tenant.sh("journalctl --sync; journalctl -q -o cat -u 'alpha@*'").splitlines())
    assert after - before < 50_000
    assert tenant.sh("journalctl -q -o cat -u 'beta@*' -n 1") != ""


def test_an_app_writes_nothing_to_the_file_system_of_services(tenant):
    """Who fills /run keeps systemd from starting anything."""
    walk = "import os\nfor top, _names, _files in os.walk('/run'):\n    print(top if os.access(top, os.W_OK) else '')"
    assert tenant.run(walk).split() == []


def test_beta_serves_still(tenant):
    assert tenant.get("/", "beta")[0] == 200


def test_nothing_of_others_has_changed(tenant):
    changed = tenant.sh("python3 /srv/outside/canaries.py")
    # The file that is there for the tests of links is beta's own.
    expected = re.compile(r"/srv/beta/shared/uploads(/private.txt)?")
    assert not [path for path in json.loads(changed) if not expected.fullmatch(path)]
