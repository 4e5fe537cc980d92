# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The validator agrees with Ansible's where it accepts, fills all defaults, and says how to mend what it refuses."""

from __future__ import annotations

import copy

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.daoman.fastapi.plugins.module_utils import spec

OPTIONS = {
    "name": {"type": "str", "required": True, "description": ["What it is called. More."]},
    "kind": {"type": "str", "choices": ["auto", "git", "archive"], "default": "auto"},
    "env": {"type": "dict", "default": {}},
    "token": {"type": "str", "no_log": True},
    "ports": {"type": "list", "elements": "int", "default": []},
    "gunicorn": {
        "type": "dict",
        "default": {},
        "options": {
            "workers": {"type": "int", "default": 0},
            "preload_app": {"type": "bool", "default": True},
            "limits": {"type": "dict", "options": {"files": {"type": "int", "default": 64}}},
        },
    },
    "static": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"url": {"type": "str", "required": True}, "expires": {"type": "str", "default": "30d"}},
    },
}


def problems(value, options=None, **more):
    return spec.check(options or OPTIONS, value, "app", **more)[1]


def one(value, options=None, **more):
    found = problems(value, options, **more)
    assert len(found) == 1, found
    return found[0]


# -- defaults ---------------------------------------------------------------------------------------------------------


def test_defaults_are_filled_at_every_depth():
    filled, found = spec.check(OPTIONS, {"name": "x", "static": [{"url": "/"}]}, "app")
    assert found == []
    assert filled == {
        "name": "x",
        "kind": "auto",
        "env": {},
        "token": None,
        "ports": [],
        "gunicorn": {"workers": 0, "preload_app": True, "limits": {"files": 64}},
        "static": [{"url": "/", "expires": "30d"}],
    }


def test_neither_the_value_nor_the_spec_is_changed():
    value, options = {"name": "x", "gunicorn": {"workers": "3"}}, copy.deepcopy(OPTIONS)
    before = copy.deepcopy(value)
    filled, _problems = spec.check(OPTIONS, value, "app")
    filled["env"]["A"] = "b"
    filled["gunicorn"]["limits"]["files"] = 0
    assert value == before and options == OPTIONS


def test_a_dict_that_must_be_given_as_a_whole_stays_unset():
    options = {"tls": {"type": "dict", "options": {"key": {"type": "str", "required": True}}}}
    assert spec.check(options, {}) == ({"tls": None}, [])


# -- agreement with Ansible -------------------------------------------------------------------------------------------

VALUES = [
    "", "x", "8", "8.0", "8.5", "yes", "no", "true", "False", "1", "a,b", "a, b", "k=v", "k=v, l=w", '{"a": 1}', "{x",
    0, 1, 8, -3, 8.0, 8.5, True, False, None, [], ["a"], [1, "2"], {}, {"a": 1}, "nan", "inf", "~", "10k",
]
# Ansible accepts these, and we do not: it would silently mean something else.
STRICTER = [
    ("str", bool), ("str", float), ("str", dict), ("str", list), ("path", bool), ("path", float), ("path", dict),
    ("path", list), ("int", bool), ("float", bool), ("bytes", bool),
]


@pytest.mark.parametrize("kind", ["str", "int", "float", "bool", "list", "dict", "path", "raw", "bytes"])
@pytest.mark.parametrize("extra", [{}, {"required": True}, {"default": None}], ids=["", "required", "no default"])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_is_accepted_means_what_it_means_to_ansible(kind, extra, value):
    options = {"o": {"type": kind, **extra}}
    filled, found = spec.check(options, {"o": copy.deepcopy(value)})
    if (kind, value) == ("int", "inf"):
        assert found  # Ansible crashes
        return
    theirs = ArgumentSpecValidator(options).validate({"o": copy.deepcopy(value)})
    stricter = (kind, type(value)) in STRICTER or (kind == "float" and value in ("nan", "inf"))
    stricter = stricter or (value is None and extra.get("required"))
    if stricter:
        assert found
    elif theirs.error_messages:
        assert found, "Ansible refuses this: " + theirs.error_messages[0]
    else:
        assert not found
        assert filled["o"] == theirs.validated_parameters["o"]
        assert type(filled["o"]) is type(theirs.validated_parameters["o"])


@pytest.mark.parametrize("elements", ["str", "int", "dict"])
@pytest.mark.parametrize("value", [["1", 2], "1,2", [{}], ["x"], 5], ids=repr)
def test_elements_mean_what_they_mean_to_ansible(elements, value):
    options = {"o": {"type": "list", "elements": elements}}
    theirs = ArgumentSpecValidator(options).validate({"o": copy.deepcopy(value)})
    filled, found = spec.check(options, {"o": copy.deepcopy(value)})
    if (elements, value) == ("str", [{}]):
        assert found  # a dict where a string belongs
    else:
        assert bool(found) == bool(theirs.error_messages)
        assert found or filled["o"] == theirs.validated_parameters["o"]


def test_a_boolean_is_the_one_choice_it_can_mean():
    options = {"o": {"type": "str", "choices": ["yes", "no", "ask"]}}
    assert spec.check(options, {"o": False}) == ({"o": "no"}, [])
    assert spec.check(options, {"o": True}) == ({"o": "yes"}, [])


RELATIONS = {
    "mutually_exclusive": [["a", "b"]],
    "required_together": [["c", "d"]],
    "required_one_of": [["a", "b", "e"]],
    "required_by": {"e": "f"},
    "required_if": [["kind", "x", ["g", "h"]], ["kind", "y", ["g", "h"], True]],
}


@pytest.mark.parametrize(
    "value, said",
    [
        ({"a": "1"}, None),
        ({"a": "1", "b": "1"}, "'a' and 'b' exclude each other"),
        ({}, "one of 'a', 'b' or 'e' is required"),
        ({"a": "1", "c": "1"}, "'c' needs 'd' as well"),
        ({"a": "1", "c": "1", "d": "1"}, None),
        ({"e": "1"}, "'e' needs 'f' as well"),
        ({"a": "1", "kind": "x", "g": "1"}, "'h' is required when 'kind' is 'x'"),
        ({"a": "1", "kind": "y", "g": "1"}, None),
        ({"a": "1", "kind": "y"}, "'g' or 'h' is required when 'kind' is 'y'"),
        ({"a": "1", "kind": "z"}, None),
    ],
)
def test_conditions_between_options(value, said):
    names = [*"abcdefgh", "kind"]
    options = {"o": {"type": "dict", "options": {name: {"type": "str"} for name in names}, **RELATIONS}}
    theirs = ArgumentSpecValidator(options).validate({"o": dict(value)})
    found = spec.check(options, {"o": value})[1]
    assert bool(theirs.error_messages) == bool(found)
    assert found == [] if said is None else found[0].startswith("o: ") and said in found[0]


# -- what is wrong, and how to mend it --------------------------------------------------------------------------------


def test_all_problems_come_at_once_with_their_paths():
    found = problems({
        "kind": "gti",
        "gunicorn": {"wrokers": 3, "workers": "many", "limits": {"files": []}},
        "static": [{"url": "/"}, {"expiers": "1d"}, "x"],
        "ports": [80, "http"],
    })
    assert [text.partition(": ")[0] for text in found] == [
        "app.name", "app.kind", "app.ports[1]", "app.gunicorn.wrokers", "app.gunicorn.workers",
        "app.gunicorn.limits.files", "app.static[1].expiers", "app.static[1].url", "app.static[2]",
    ]


@pytest.mark.parametrize(
    "value, said",
    [
        ({"gunicorn": {"wrokers": 3}}, "app.gunicorn.wrokers: unknown option (value: 3). Did you mean 'workers'?"),
        ({"Gunicorn": {}}, "app.Gunicorn: unknown option (value: a dict with nothing in it). Did you mean 'gunicorn'?"),
        ({"workers": 3}, "app.workers: unknown option (value: 3). Did you mean 'app.gunicorn.workers'?"),
        ({"gunicorn": {"kind": "git"}}, "app.gunicorn.kind: unknown option (value: 'git'). Did you mean 'app.kind'?"),
        ({"zzz": 1}, "Options here: env, gunicorn, kind, name, ports, static, token"),
        ({"kind": "gti"}, "app.kind: must be one of auto, git, archive (value: 'gti'). Did you mean 'git'?"),
        ({"ports": {"a": 1}}, "app.ports: expected a list of whole numbers (value: a dict with a). Begin each entry"),
        ({"static": "x"}, "app.static[0]: expected a dict (value: 'x')"),
        ({"static": None}, "app.static: expected a list of dicts (value: null). Leave the line out for the default"),
        ({"gunicorn": {"preload_app": "maybe"}}, "app.gunicorn.preload_app: expected true or false (value: 'maybe')"),
        ({"ports": [1, None]}, "app.ports[1]: expected a whole number (value: null). Remove the empty entry"),
        ({"gunicorn": True}, "app.gunicorn: expected a dict (value: true)"),
        ({"gunicorn": False}, "(value: false)"),
        ({"gunicorn": [1, 2]}, "(value: a list of 2)"),
        ({"wrokers": 3}, "app.wrokers: unknown option (value: 3). Did you mean 'app.gunicorn.workers'?"),
        ({"kind": "zzz"}, "app.kind: must be one of auto, git, archive (value: 'zzz')"),
        ({"kind": 5}, "app.kind: must be one of auto, git, archive (value: '5')"),
        ({True: 1}, "app[True]: option names are strings"),
        ({"not a name": 1}, "app['not a name']: unknown option"),
    ],
)
def test_a_problem_names_path_value_and_mend(value, said):
    assert said in one({"name": "x", **value})


def test_a_version_that_yaml_shortened_is_not_deployed():
    said = one({"name": 1.1})
    assert "put the value in quotes" in said and "1.10 becomes 1.1" in said


def test_a_choice_with_nothing_near_suggests_nothing():
    assert "Did you mean" not in one({"name": "x", "kind": "zzz"})


def test_where_there_are_no_options_none_are_listed():
    assert spec.check({}, {"a": 1}, "app")[1][0] == "app.a: unknown option (value: 1)"


def test_an_option_and_its_alias_are_one():
    options = {"name": {"type": "str", "aliases": ["title"], "required": True}}
    assert spec.check(options, {"title": "x"}) == ({"name": "x"}, [])
    assert "is the same option as 'name', and both are set" in one({"name": "x", "title": "y"}, options)


def test_each_entry_of_a_list_is_one_of_the_choices():
    options = {"o": {"type": "list", "elements": "str", "choices": ["a", "b"], "default": []}}
    assert spec.check(options, {"o": ["a", "b"]})[1] == []
    assert one({"o": ["a", "c"]}, options) == "app.o[1]: must be one of a, b (value: 'c')"


def test_a_default_that_is_a_list_of_dicts_is_filled():
    inner = {"url": {"type": "str"}, "expires": {"type": "str", "default": "30d"}}
    options = {"o": {"type": "list", "elements": "dict", "default": [{"url": "/"}], "options": inner}}
    assert spec.check(options, {})[0] == {"o": [{"url": "/", "expires": "30d"}]}


def test_conditions_wait_for_what_they_are_about():
    """With `b` misspelt, 'a needs b' would send the reader astray."""
    inner = {"a": {"type": "str"}, "bottom": {"type": "str"}}
    options = {"o": {"type": "dict", "options": inner, "required_together": [["a", "bottom"]]}}
    assert "Did you mean 'bottom'?" in one({"o": {"a": "1", "botom": "1"}}, options)


def test_one_group_and_one_name_need_no_brackets():
    inner = {name: {"type": "str"} for name in "ab"}
    exclusive = {"o": {"type": "dict", "options": inner, "mutually_exclusive": ["a", "b"]}}
    assert "exclude each other" in one({"o": {"a": "1", "b": "1"}}, exclusive)
    needed = {"o": {"type": "dict", "options": {**inner, "other": {"type": "str"}}, "required_by": {"a": "other"}}}
    assert one({"o": {"a": "1"}}, needed) == "app.o: 'a' needs 'other' as well"


def test_an_unknown_type_in_a_spec_is_a_fault_of_the_spec():
    with pytest.raises(spec.SpecError, match="unknown type 'strr'"):
        spec.check({"o": {"type": "strr"}}, {"o": "x"})


@pytest.mark.parametrize("value", [{}, {"name": None}])
def test_a_missing_option_says_what_it_is(value):
    assert one(value).startswith("app.name: is required and ") and one(value).endswith(". What it is called.")


def test_a_long_value_is_shortened():
    said = one({"name": "x", "kind": "a" * 500})
    assert len(said) < 160 and "…'" in said


def test_a_password_in_an_address_is_not_shown():
    said = one({"name": "x", "kind": "https://user:hunter2@git.example.com/x"})
    assert "hunter2" not in said and "git.example.com" in said


SECRET = "hunter2"


@pytest.mark.parametrize(
    "value",
    [
        {"env": SECRET},
        {"env": [SECRET]},
        {"token": [SECRET]},
        {"gunicorn": {"env": SECRET}},
        {"enviroment": {"A": SECRET}},
        {"ports": [{"password": SECRET}]},
    ],
)
def test_a_secret_is_never_shown(value):
    assert SECRET not in one({"name": "x", **value})


def test_a_value_known_as_secret_is_never_shown():
    value = {"name": "x", "kind": SECRET}
    assert SECRET in one(value)
    assert SECRET not in one(value, is_secret=lambda path: path == "app.kind")


def test_the_nearest_name_ignores_dashes_and_capitals():
    assert spec.nearest("Max-Requests", ["max_requests", "max_requests_jitter"]) == "max_requests"
    assert spec.nearest("zzz", ["max_requests"]) is None


# -- the specs themselves ---------------------------------------------------------------------------------------------


def test_a_role_without_a_spec_is_a_clear_error(tmp_path):
    with pytest.raises(spec.SpecError, match=r"has no meta/argument_specs\.yml"):
        spec.load("none", str(tmp_path))


@pytest.mark.parametrize("text, said", [("a: b: c", "not valid YAML"), ("argument_specs: {}", "no entry point 'main'")])
def test_a_broken_spec_is_a_clear_error(tmp_path, text, said):
    meta = tmp_path / "r" / "meta"
    meta.mkdir(parents=True)
    (meta / "argument_specs.yml").write_text(text, encoding="utf-8")
    with pytest.raises(spec.SpecError, match=said):
        spec.load("r", str(tmp_path))
