"""What is broken is refused, says why, and changes nothing for users."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def broken_site(rerun):
    return rerun(lambda apps: apps["shop"]["nginx"].update(extra="proxy_passs http://nowhere;"))


@pytest.fixture(scope="module")
def broken_app(rerun):
    """A setting that makes no sense: the app raises while it is imported."""
    return rerun(lambda apps: apps["shop"]["env"].update(APP_LOG_LEVEL="LOUD"), "-e", 'reason="prices with VAT"')


@pytest.fixture(scope="module")
def renamed_app(rerun):
    return rerun(lambda apps: apps["blog"].update(name="gazette"))


@pytest.fixture(scope="module")
def misspelt_option(rerun):
    return rerun(lambda apps: apps["shop"]["gunicorn"].update(wrokers=3))


def assert_says(run, *parts: str):
    missing = [part for part in parts if part not in run.output]
    assert not missing, run.output


def assert_refused(run, host, web):
    assert run.returncode, run.output
    assert run.after[host.backend.hostname] == run.before[host.backend.hostname]
    for app in ("shop", "blog"):
        response = web.get(f"https://{app}.example.com/whoami", cert=app)
        assert response.status == 200, response
        assert response.json()["version"] == app


def test_broken_site_does_not_reach_disk(host, web, broken_site):
    assert_refused(broken_site, host, web)


def test_broken_site_is_named_with_its_variable(broken_site):
    assert_says(broken_site, 'unknown directive "proxy_passs"', "nginx_sites[0]")


def test_app_that_cannot_be_imported_does_not_serve(host, web, broken_app):
    assert_refused(broken_app, host, web)


def test_app_that_cannot_be_imported_shows_its_traceback(broken_app):
    assert_says(broken_app, "Traceback (most recent call last)", "src/app/main.py", "log_level")


def test_one_app_that_fails_stops_nothing_else_and_is_named_at_the_end(host, broken_app):
    report = broken_app.output.rpartition("These failed and keep what they had. All else was done.")[2]
    assert "shop: not released on any host of this play. The cause is on" in report and "blog:" not in report
    for task in ("nginx : Configure | Nginx serves the sites", "monitoring : Host | "):
        assert f"TASK [daoman.fastapi.{task}" in broken_app.output
    assert '"reason": "prices with VAT"' in host.check_output("tail -n 1 /srv/shop/history.jsonl")


def test_an_app_that_the_inventory_no_longer_names_stops_the_run(host, web, renamed_app):
    assert_refused(renamed_app, host, web)
    assert_says(renamed_app, "1 app of this host is not in fastapi_apps: blog (blog.example.com, main). Nothing was")
    assert_says(renamed_app, "{name: blog, state: absent}", "-e keep_orphans=true")
    assert not host.file("/srv/gazette").exists


def test_misspelt_option_changes_nothing(host, web, misspelt_option):
    assert_refused(misspelt_option, host, web)


def test_misspelt_option_is_named_with_the_nearest_right_one(misspelt_option):
    assert_says(misspelt_option, "fastapi_apps[0].gunicorn.wrokers", "Did you mean 'workers'?")
