"""Which server a request is sent to, and what happens when one is killed."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import nginx_rules

SHOP = "https://shop.example.com"
ANSWERS = ("for name in backend a b c; do"
           " until curl -s -o /dev/null --unix-socket /run/$name.sock http://x/; do sleep 0.1; done; done")


def shares(nginx, site: str, path: str = "/?[1-40]", *options: str) -> Counter:
    """How many of the requests that curl makes of a pattern each server answered, and 502 those that none did."""
    text = nginx.curl(f"https://{site}.example.com{path}", "--write-out", "\\n", *options, trust="spread").stdout
    found = Counter(line.rpartition('"backend": "')[2][0] for line in text.splitlines() if '"backend"' in line)
    found.update("502" for line in text.splitlines() if '"status":502' in line)
    return found


@pytest.fixture(autouse=True)
def all_backends_answer(nginx):
    """One that an earlier test killed is back."""
    nginx.host.check_output(ANSWERS)


# -- Methods -----------------------------------------------------------------------------------------------------------


def test_weights_are_shares_and_a_server_that_is_down_has_none(nginx):
    """Exact, because nginx's workers count together."""
    assert shares(nginx, "weight") == {"a": 30, "b": 10}


def test_a_server_that_fails_is_left_out_for_a_while_and_a_backup_serves_while_all_others_are(nginx):
    assert shares(nginx, "backup") == {"a": 40}
    nginx.host.check_output("systemctl stop backend@a")
    try:
        assert shares(nginx, "backup") == {"c": 40}
        failed = time.monotonic()
    finally:
        nginx.host.check_output("systemctl start backend@a")
        nginx.host.check_output(ANSWERS)
    assert shares(nginx, "backup") == {"c": 40}, "back, and not tried again so soon"
    time.sleep(max(0, failed + 4.2 - time.monotonic()))  # nginx counts in whole seconds
    assert shares(nginx, "backup") == {"a": 40}


def test_the_server_with_the_fewest_connections_is_next(nginx):
    """While one of the two is busy, the other has all the rest."""
    code = ("curl -s --insecure --connect-to ::127.0.0.1: 'https://least.example.com/slow?seconds=2' & sleep 0.5;"
            "curl -s --insecure --connect-to ::127.0.0.1: 'https://least.example.com/?[1-10]'; wait")
    text = nginx.host.check_output(f"bash -c {json.dumps(code)}")
    assert sorted([text.count('"backend": "a"'), text.count('"backend": "b"')]) == [1, 10]


def test_a_server_has_no_more_connections_than_it_may(nginx):
    """Two each: of six at a time two find none."""
    text = nginx.host.check_output(
        "curl -s --insecure --connect-to ::127.0.0.1: --parallel --parallel-immediate --http1.1"
        " --write-out '%{http_code}\\n' --output /dev/null 'https://least.example.com/slow?seconds=1&[1-6]'")
    assert Counter(text.split()) == {"200": 4, "502": 2}


def test_a_client_keeps_its_server_by_its_address(nginx):
    one = [shares(nginx, "iphash", "/?[1-10]", "--interface", f"127.0.{number}.1") for number in range(1, 10)]
    assert all(len(found) == 1 for found in one)
    assert len(set().union(*one)) > 1


@pytest.mark.parametrize("site", ["hash", "consistent"])
def test_a_key_keeps_its_server(nginx, site):
    assert len(shares(nginx, site, "/?key=same&[1-10]")) == 1
    assert set(shares(nginx, site, "/?key=[1-40]")) == {"a", "b", "c"}


@pytest.mark.parametrize("site", ["random", "two"])
def test_chance_reaches_all_servers(nginx, site):
    assert set(shares(nginx, site)) == {"a", "b", "c"}


# -- Combinations ------------------------------------------------------------------------------------------------------

METHODS = {
    "round_robin": "", "least_conn": "least_conn;", "ip_hash": "ip_hash;", "hash": "hash $uri;",
    "hash consistent": "hash $uri consistent;", "random": "random;", "random two": "random two least_conn;",
}
SECOND = ({}, {"backup": True}, {"down": True}, {"weight": 2}, {"max_conns": 3}, {"max_fails": 2}, {"weight": 0})


def test_the_rules_and_nginx_agree(nginx):
    """Each method with each parameter, asked of nginx itself."""
    wrong = []
    for name, directive in METHODS.items():
        for parameters in SECOND:
            words = [key if value is True else f"{key}={value}" for key, value in parameters.items()]
            config = (f"events {{}} http {{ upstream x {{ {directive} server 127.0.0.1:1;"
                      f" server 127.0.0.1:2 {' '.join(words)}; }} }}")
            refused = nginx.host.run(f"printf %s '{config}' > /tmp/x.conf && nginx -t -q -c /tmp/x.conf").rc != 0
            found = list(nginx_rules.upstream({
                "method": name, "hash_key": "$uri" if name.startswith("hash") else "",
                "servers": [{"address": "127.0.0.1:1"}, {"address": "127.0.0.1:2", **parameters}]}, "upstream"))
            if refused != bool(found):
                wrong.append((name, parameters, refused, found))
    assert wrong == []


# -- What is offered again ---------------------------------------------------------------------------------------------


def load(nginx, *arguments: str) -> dict:
    """The answers to requests of a method, by status, while the application's workers are killed one by one."""
    return json.loads(nginx.host.check_output("python3 /usr/local/bin/load.py " + " ".join(arguments)))


def test_workers_that_are_killed_under_load_cost_no_idempotent_request(nginx, measured):
    """Connections that nginx has just opened are among those cut off, and idle ones of the dead worker's."""
    result = load(nginx, "shop.example.com", "shop", "GET", "worker", "backend", "/run/backend.sock.seen")
    measured(f"GETs while workers are killed: {result['answers']}")
    assert list(result["answers"]) == ["200"]
    assert result["answers"]["200"] > 500
    assert result["often"] > 1, "no request was cut off: the test shows nothing"


def test_a_backend_that_is_killed_under_load_costs_no_idempotent_request(nginx, measured):
    seen = "/run/a.sock.seen", "/run/b.sock.seen"
    result = load(nginx, "weight.example.com", "spread", "GET", "all", "backend@a", *seen)
    measured(f"GETs while one of two backends is killed: {result['answers']}")
    assert list(result["answers"]) == ["200"]
    assert result["answers"]["200"] > 500
    assert result["often"] == 2, "no request was cut off, or one was sent too often"


def test_a_request_with_side_effects_is_never_sent_twice(nginx, measured):
    result = load(nginx, "shop.example.com", "shop", "POST", "worker", "backend", "/run/backend.sock.seen")
    measured(f"POSTs while workers are killed: {result['answers']}")
    assert set(result["answers"]) == {"200", "502"}
    assert result["often"] == 1


def killed(nginx, url: str, method: str, *sockets: str) -> int:
    """How often a request that kills whoever takes it was sent."""
    path = f"/die?{time.time_ns()}"
    assert nginx.ask(url + path, "--request", method, "--insecure", trust=None).status == 502
    lines = nginx.host.check_output(f"cat {' '.join(f'/run/{name}.sock.seen' for name in sockets)}").splitlines()
    return lines.count(f"{method} {path}")


@pytest.mark.parametrize("method, most", [("GET", 5), ("POST", 1)])
def test_a_request_that_kills_its_worker_is_answered_and_not_offered_for_ever(nginx, method, most):
    """Three workers, each of which may hold an idle connection, and two connections that are opened."""
    nginx.ask(f"{SHOP}/?[1-20]")
    assert 1 <= killed(nginx, SHOP, method, "backend") <= most


@pytest.mark.parametrize("site, method, times", [
    ("random", "GET", 2), ("random", "POST", 2), ("iphash", "GET", 2), ("iphash", "POST", 1), ("two", "GET", 1),
])
def test_a_request_is_offered_as_often_as_asked(nginx, site, method, times):
    """By default to two of three servers, with non_idempotent whatever its method, with off never again."""
    assert killed(nginx, f"https://{site}.example.com", method, "a", "b", "c") == times


@pytest.mark.parametrize("site, times", [("consistent", 3), ("hash", 2)])
def test_a_request_is_offered_for_no_longer_than_asked(nginx, site, times):
    """Each try takes 300 ms; after 500 ms there is none but the one under way."""
    path = f"/impatient/slow?seconds=1&key={time.time_ns()}"
    assert nginx.ask(f"https://{site}.example.com{path}", trust="spread").status == 504
    assert nginx.host.check_output(f"cat /run/[abc].sock.seen | grep -c 'GET {path}$'") == str(times)
