# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host makes of the result of a check, which an app may have written itself."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2
import pytest
from ansible_collections.daoman.fastapi.plugins.module_utils import spec
from ansible_collections.daoman.fastapi.plugins.module_utils._host import preload
from ansible_collections.daoman.fastapi.plugins.module_utils._host.release import ReleaseError

TEMPLATES = Path(__file__).parents[2] / "roles/gunicorn_app/templates"
DATABASE = {"stage": "import", "where": "app/db.py line 3", "what": "opened a connection to 10.0.0.5:5432"}
THREAD = {"stage": "import", "where": "", "what": "started the thread 'feed' (time.sleep)"}
LISTENER = {"stage": "configuration", "where": "", "what": "listens on 127.0.0.1:9100"}


def result(*findings, **changes):
    return json.dumps({"format": 1, "loaded": True, "findings": list(findings), "more": 0, **changes}).encode()


def test_what_a_check_finds_is_read():
    assert preload.parse_findings(result()) == []
    assert preload.parse_findings(result(DATABASE, THREAD, LISTENER)) == [DATABASE, THREAD, LISTENER]
    assert preload.parse_findings(result(DATABASE).decode()) == [DATABASE]
    assert preload.parse_error(result(DATABASE)) == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        '{"format": 1, "loaded": true, "findings": [], "x": "é"}'.encode(),
        b"[" * 10000,
        b'{"format": 1, "findings": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"format": ' + b"1" * 10000 + b"}",
        result()[:-1],
        result() + b" " * preload.LARGEST,
        result(format=2),
        result(findings=None),
        result(findings={"stage": "import"}),
        result(findings=[[]]),
        result({**DATABASE, "stage": "later"}),
        result({**DATABASE, "stage": ["import"]}),
        result({**DATABASE, "what": None}),
        result({**DATABASE, "what": " "}),
        result({**DATABASE, "what": 5}),
        result(*[THREAD] * 21),
    ],
)
def test_a_result_that_cannot_be_read_is_a_reason_not_to_preload(data):
    findings = preload.parse_findings(data)
    assert findings == [preload.UNREADABLE]
    assert json.loads(preload.preload_document("auto", False, findings))["preload"] is False
    assert preload.warning("auto", findings) == (
        "runs without preload: the app left no result of its check that can be read"
    )


def test_texts_of_an_app_are_bounded_and_cannot_move_the_cursor():
    findings = preload.parse_findings(result({**DATABASE, "where": "a\x1b[2J\n\u202eb", "what": "x" * 5000, "x": {}}))
    assert findings == [{"stage": "import", "where": "a?[2J??b", "what": "x" * preload.LONGEST}]
    assert preload.parse_error(result(loaded=False, error="a\rb\x07")) == "a?b?"


@pytest.mark.parametrize("changes", [{"loaded": False}, {"loaded": "true"}, {"loaded": 1}, {"loaded": 0, "error": 3}])
def test_an_app_counts_as_loaded_only_if_its_check_says_so(changes):
    assert preload.parse_error(result(**changes)) == "gunicorn cannot load the app"
    assert preload.parse_error(b"") == preload.UNREADABLE["what"]


@pytest.mark.parametrize(
    ("setting", "unsafe", "findings", "expected"),
    [
        ("auto", False, [], True),
        ("auto", False, [DATABASE], False),
        ("auto", False, [LISTENER], True),  # shared with preload and without
        ("true", False, [], True),
        (True, False, [LISTENER], True),
        ("true", True, [DATABASE], True),
        ("false", False, [], False),
        (False, False, [DATABASE], False),
    ],
)
def test_a_release_is_preloaded_if_it_may_be(setting, unsafe, findings, expected):
    document = json.loads(preload.preload_document(setting, unsafe, findings))
    assert document == {"format": 1, "preload": expected, "findings": findings}


@pytest.mark.parametrize("setting", ["true", True])
def test_preload_is_refused_with_what_was_found_and_the_ways_out(setting):
    with pytest.raises(ReleaseError, match=r"app/db.py line 3 opened a connection to 10.0.0.5:5432 at impo") as caught:
        preload.preload_document(setting, False, [LISTENER, DATABASE, THREAD])
    assert caught.value.phase == "check"
    assert all(way in caught.value.message for way in ("lifespan", "auto", "gunicorn.preload_unsafe"))


@pytest.mark.parametrize(
    ("setting", "findings", "line"),
    [
        ("auto", [], ""),
        ("false", [DATABASE], ""),
        (
            "auto",
            [DATABASE, THREAD],
            "runs without preload: app/db.py line 3 opened a connection to 10.0.0.5:5432 at import, and 1 more of the "
            "kind",
        ),
        ("auto", [THREAD], "runs without preload: the app started the thread 'feed' (time.sleep) at import"),
        (
            "true",
            [THREAD],
            "is preloaded because gunicorn.preload_unsafe is set: the app started the thread 'feed' (time.sleep) at "
            "import",
        ),
        (
            "false",
            [LISTENER],
            "gunicorn.extra listens on 127.0.0.1:9100. All workers share that, also without preload: do it in the hook "
            "post_fork",
        ),
    ],
)
def test_one_line_tells_what_was_found(setting, findings, line):
    assert preload.warning(setting, findings) == line


def configuration(**gunicorn):
    """gunicorn.conf.py of an app with these options under gunicorn."""
    app, problems = spec.check(
        spec.load("gunicorn_app")["gunicorn_app_apps"]["options"],
        {"name": "shop", "domain": "shop.example.com", "source": "./shop", "app": "shop:app", "gunicorn": gunicorn},
        "app",
    )
    assert problems == []
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined)
    environment.filters.update(to_json=json.dumps, comment=lambda text: f"# {text}", bool=bool)
    template = environment.get_template("gunicorn.conf.py.j2")
    return template.render(app=app, ansible_managed="", gunicorn_app_metrics_socket="/run/x.sock")


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({}, 'fastapi_check.preload("auto", RELEASE / "preload.json")'),
        ({"preload_app": True}, 'fastapi_check.preload("true", RELEASE / "preload.json")'),
        ({"preload_app": False}, 'fastapi_check.preload("false", RELEASE / "preload.json")'),
        (
            {"preload_app": "true", "preload_unsafe": True},
            'fastapi_check.preload("true", RELEASE / "preload.json", unsafe=True)',
        ),
    ],
)
def test_gunicorns_configuration_holds_the_setting_and_not_the_finding(options, call):
    text = configuration(**options)
    compile(text, "gunicorn.conf.py", "exec")
    assert f"\npreload_app = {call}\n" in text
