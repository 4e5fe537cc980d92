"""The cache, in memory and in Redis, and readiness, which depends on it."""

import time

import pytest

from app import cache
from tests.support import free_port, wait_until


def test_ttl_is_five_minutes():
    assert cache.TTL == cache.create_cache("memory://").ttl == 300


def test_second_request_is_answered_from_memory(client):
    first = client.get("/cached").json()
    assert client.get("/cached").json() == first  # `computed_at` too
    assert first["ttl"] == 300


def test_value_is_computed_again_after_its_time(make_client, monkeypatch):
    monkeypatch.setattr(cache, "TTL", 0.1)
    client = make_client()
    first = client.get("/cached").json()
    time.sleep(0.2)
    assert client.get("/cached").json()["computed_at"] > first["computed_at"]


def test_live_and_ready(client):
    assert client.get("/health/live").json() == {"status": "ok"}
    assert client.get("/health/ready").json()["status"] == "ok"


def test_unreachable_redis_means_not_ready_but_alive_and_serving(make_client, capfd):
    client = make_client(cache_url=f"redis://:secret@127.0.0.1:{free_port()}/0")
    start = time.monotonic()
    answer = client.get("/health/ready")
    assert time.monotonic() - start < 4  # aiocache alone waits 5
    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "reason": "the cache does not answer"}
    assert client.get("/health/live").status_code == 200
    assert client.get("/cached").status_code == 200
    log = capfd.readouterr().err
    assert "ConnectionError" in log
    assert "secret" not in log


@pytest.mark.redis
def test_redis_is_shared_by_all_workers_and_expires(redis_url, serve):
    server = serve("--workers=3", APP_CACHE_URL=redis_url)
    first = server.http.get("/cached").json()
    answers, workers = [], set()

    def two_workers_answered() -> bool:
        # A new connection each time, so that another worker may take it.
        close = {"Connection": "close"}
        workers.add(server.http.get("/whoami", headers=close).json()["pid"])
        answers.append(server.http.get("/cached", headers=close).json())
        return len(workers) > 1 and len(answers) >= 20

    wait_until(two_workers_answered, "two workers answer")
    assert all(answer == first for answer in answers)


@pytest.mark.redis
def test_redis_key_lives_for_five_minutes(redis_url, make_client):
    import redis

    client = make_client(cache_url=redis_url)
    assert client.get("/health/ready").status_code == 200
    client.get("/cached")
    with redis.Redis.from_url(redis_url) as database:
        assert 295 <= database.ttl("example-app:answer") <= 300
