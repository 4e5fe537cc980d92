"""A site that asks for a password asks for all that it has, and asking is not a way to stop nginx."""

from __future__ import annotations

import time

import pytest

CLOSED = "https://closed.example.com"
AT_ONCE = ["--parallel", "--parallel-immediate", "--http1.1"]


@pytest.fixture
def ask(nginx):
    return lambda path, *arguments: nginx.ask(CLOSED + path, *arguments, trust="spread")


EVERYTHING = [
    "/", "/x", "/docs", "/redoc", "/docs/oauth2-redirect", "/openapi.json", "/static/css/site.css",
    "/static/site.3f2a9c1b.css",
    "/static/old.27e20196a850.css", "/part/x", "/kept/x", "/old", "/raw/x", "/.well-known/x"]


@pytest.mark.parametrize("path", EVERYTHING)
def test_a_password_on_the_root_is_the_sites(ask, path):
    response = ask(path)
    assert (response.status, response["WWW-Authenticate"]) == (401, 'Basic realm="Members"')
    assert not response.all("X-Backend") and not response.all("Location")
    assert ask(path, "--user", "alice:wrong").status == 401
    assert ask(path, "--user", "alice:wonderland").status == (301 if path == "/old" else 200)


def test_what_is_said_to_be_open_is(ask):
    assert ask("/health").status == 200
    assert ask("/health/x").status == 401


def test_challenges_are_answered_without_a_password(nginx):
    assert nginx.ask("http://closed.example.com/.well-known/acme-challenge/token").text == "token\n"


def test_a_kept_answer_is_not_for_those_without_a_password(ask):
    path = f"/kept/reply?{time.time_ns()}"
    assert ask(path, "--user", "alice:wonderland").status == 200
    assert ask(path).status == 401


def test_passwords_can_be_tried_only_so_often(nginx, ask):
    """The burst and what comes in meanwhile, and no more are checked. Others, and what is open, are not concerned."""
    client = ("--interface", "127.0.6.6")
    found = nginx.statuses(f"{CLOSED}/?[1-800]", *AT_ONCE, *client, "--user", "alice:wrong")
    assert found["401"] >= 200 and found["429"] >= 100 and found["401"] + found["429"] == 800
    assert ask("/", *client).status == 401, "no password, nothing to check"
    assert ask("/health", *client, "--user", "alice:wrong").status == 200
    assert ask("/", "--interface", "127.0.7.7", "--user", "alice:wonderland").status == 200


@pytest.fixture(scope="module")
def refused(operated):
    """What the role says of files of passwords that nginx could not use, of logs, and that it changed nothing."""
    before = operated.tree(), operated.workers()
    site = {"name": "closed", "domain": "closed.example.com", "certificate": "spread", "auth_basic": "x"}
    operated.host.check_output("install -m 600 /dev/null /etc/closed.htpasswd")
    said = operated.refusals({
        "missing": {"nginx_sites": [{**site, "auth_basic_user_file": "/etc/nobody.htpasswd"}]},
        "closed": {"nginx_sites": [{**site, "auth_basic_user_file": "/etc/closed.htpasswd"}]},
        "none": {"nginx_sites": [site]},
        "log": {"nginx_http_extra": "server { listen 8089; access_log /srv/alpha/shared/media/x.log; }"},
    })
    assert (operated.tree(), operated.workers()) == before
    return said


@pytest.mark.parametrize("case, words", [
    ("missing", ["/etc/nobody.htpasswd, named by nginx_sites[0]", "does not exist", "Nothing was changed"]),
    ("closed", ["/etc/closed.htpasswd", "cannot be read by www-data (mode 0600)"]),
    ("none", ["nginx_sites[0].auth_basic_user_file: is required with auth_basic"]),
    # nginx opens it as root, wherever a link there leads
    ("log", ["/srv/alpha/shared/media/x.log cannot be a log of nginx", "below /var/log"]),
])
def test_what_nginx_would_only_find_out_later_is_refused_before(refused, case, words):
    assert [word for word in words if word not in refused[case]] == []
