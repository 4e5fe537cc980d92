# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks values against the options of a role's meta/argument_specs.yml.

Ansible's own validator stops at the first kind of problem, names no list index, knows no nearest name, fills no
default below the first level and prints secrets. This one reports everything at once. It converts with Ansible's own
functions, so that what both accept means the same; it is stricter where Ansible would silently change the meaning:
a boolean or a float for a string ('version: 1.10' arrives as 1.1), a boolean for a number. Text must fit the place
where it ends up (see destinations).
"""

from __future__ import annotations

import copy
import difflib
import math
import os
import re
from functools import lru_cache

from ansible.module_utils.common import validation
from ansible.module_utils.parsing.convert_bool import BOOLEANS_FALSE, BOOLEANS_TRUE
from ansible_collections.daoman.fastapi.plugins.module_utils import option_destinations

ROLES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "roles")

# Values below an option of this name are secrets in every spec: an application's environment, also in a unit.
SECRET_OPTIONS = frozenset(["Environment", "build_env", "build_secrets", "env", "gunicorn_app_tools_env"])
HIDDEN = "value not shown"
LONGEST_VALUE = 60

TYPE_NAMES = {
    "bool": "true or false",
    "dict": "a dict",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "path": "a path",
    "str": "a string",
}
PLURALS = {"dict": "dicts", "float": "numbers", "int": "whole numbers", "path": "paths", "str": "strings"}
CONVERTERS = {
    "bits": validation.check_type_bits,
    "bool": validation.check_type_bool,
    "bytes": validation.check_type_bytes,
    "dict": validation.check_type_dict,
    "float": validation.check_type_float,
    "int": validation.check_type_int,
    "json": validation.check_type_jsonarg,
    "jsonarg": validation.check_type_jsonarg,
    "list": validation.check_type_list,
    "path": validation.check_type_path,
    "str": validation.check_type_str,
}


class SpecError(Exception):
    """The spec itself is missing or wrong: a fault of the collection, not of the user."""


class _WrongType(Exception):
    """The value does not fit the type; the text says how to mend it."""


@lru_cache(maxsize=64)
def entry_points(role, roles=ROLES):
    """All entry points of a role's argument specs. The result is shared: do not change it."""
    import yaml  # here, because only the controller has it for certain

    for name in ("argument_specs.yml", "argument_specs.yaml"):
        path = os.path.join(roles, role, "meta", name)
        if os.path.isfile(path):
            break
    else:
        raise SpecError(f"role '{role}' has no meta/argument_specs.yml in {roles}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with open(path, encoding="utf-8") as stream:
            data = yaml.load(stream, Loader=loader)
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not valid YAML: {error}") from error
    specs = (data or {}).get("argument_specs") or {}
    if "main" not in specs:
        raise SpecError(f"{path} has no entry point 'main'")
    for point in specs.values():
        option_destinations.mark(role, point.get("options") or {})
    return specs


def load(role, roles=ROLES):
    """The options of a role's entry point 'main'. The result is shared: do not change it."""
    return entry_points(role, roles)["main"].get("options") or {}


def join(path, key):
    """The path of a key below a path, as one would write it in Ansible."""
    if isinstance(key, str) and re.match(r"^[A-Za-z_][A-Za-z0-9_-]*$", key):
        return f"{path}.{key}" if path else str(key)
    return f"{path}[{key!r}]"


def show(value):
    """A value for a message: short, on one line, without the contents of containers or passwords in addresses."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a dict with %s" % (", ".join(show(key).strip("'") for key in list(value)[:5]) or "nothing in it")
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        text = repr(re.sub(r"://[^/@\s]+@", "://***@", str(value)))
        closing = text[0]
    else:
        text, closing = str(value), ""
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…" + closing


def nearest(name, names, cutoff=0.6):
    """The name most like the given one, or None. Dashes and capitals do not count."""
    plain = {}
    for candidate in names:
        plain.setdefault(_plain(candidate), candidate)
    found = difflib.get_close_matches(_plain(name), list(plain), 1, cutoff)
    return plain[found[0]] if found else None


def _plain(name):
    return str(name).lower().replace("-", "_")


class Problem(str):
    """One line: where, what is wrong, the value and how to mend it."""

    def __new__(cls, path, text, shown="", mend=""):
        parts = [f"{path}: ", text, f" ({shown})" if shown else "", f". {mend}" if mend else ""]
        self = str.__new__(cls, "".join(parts))
        self.path, self.text = path, text
        return self

    def hidden(self):
        """The same without the value, and without a mend that could quote it."""
        return Problem(self.path, self.text, HIDDEN)


def problem(path, text, value=None, hidden=False, mend=""):
    """A problem with a value."""
    return Problem(path, text, HIDDEN if hidden else f"value: {show(value)}", mend)


def check(options, value, path="", is_secret=None):
    """Checks a dict of values against options.

    :arg options: the options of a spec
    :arg value: the values by option name
    :arg path: what to call the dict in messages; empty for a role's variables
    :arg is_secret: function(path) -> bool, for values that must not be shown besides those the spec knows
    :returns: the values with all defaults filled in, and a list of problems; where there is a problem the value is the
        default, or None
    """
    checker = _Checker(is_secret)
    filled = checker.options(options, value, path, False, (options, path))
    return filled, checker.problems


def check_option(spec, value, path, is_secret=None):
    """Checks the value of one option; as check()."""
    checker = _Checker(is_secret)
    hidden = _secret(path.rpartition(".")[2], spec)
    filled = checker.option(spec, value, path, hidden, (spec.get("options") or {}, path))
    return filled, checker.problems


def defaults(options):
    """What the options come to when nothing is set."""
    return {name: default(spec) for name, spec in options.items()}


def default(spec):
    """An option's default, with the defaults below it. A dict that must be given as a whole is None."""
    value = copy.deepcopy(spec.get("default"))
    options = spec.get("options")
    if not options:
        return value
    kind = spec.get("type", "str")
    if kind == "dict":
        if value is None and any(sub.get("required") for sub in options.values()):
            return None
        return _Checker(None).options(options, value or {}, "", False, (options, ""))
    if kind == "list" and spec.get("elements") == "dict" and isinstance(value, list):
        return [_Checker(None).options(options, item, "", False, (options, "")) for item in value]
    return value


def _secret(name, spec):
    return name in SECRET_OPTIONS or bool(spec.get("no_log")) or hasattr(spec.get("destination"), "secret")


class _Checker:
    def __init__(self, is_secret):
        self.problems = []
        self.is_secret = is_secret or (lambda path: False)

    def add(self, path, text, value, hidden, mend=""):
        self.problems.append(problem(path, text, value, hidden or self.is_secret(path), mend))

    def options(self, options, value, path, hidden, root):
        """root: options and path of the surrounding list element or role, to find where a lost option belongs."""
        names = {}
        for name, spec in options.items():
            names[name] = name
            for alias in spec.get("aliases") or []:
                names[alias] = name
        given = {}
        for key, item in value.items():
            where = join(path, key)
            if not isinstance(key, str):
                self.add(where, "option names are strings", item, hidden, "YAML reads some words as values: quote it")
            elif key not in names:
                self.add(where, "unknown option", item, hidden or _secret(key, {}), self.hint(key, options, path, root))
            elif names[key] in given:
                self.add(where, f"is the same option as '{names[key]}', and both are set", item, hidden, "Keep one")
            else:
                given[names[key]] = (where, item)
        filled = {}
        for name, spec in options.items():
            if name not in given:
                if spec.get("required"):
                    self.problems.append(Problem(join(path, name), "is required and missing", mend=sentence(spec)))
                filled[name] = default(spec)
                continue
            where, item = given[name]
            filled[name] = self.option(spec, item, where, hidden or _secret(name, spec), root)
        return filled

    def hint(self, key, options, path, root):
        close = nearest(key, options, 0.75)
        if close:
            return f"Did you mean '{close}'?"
        places = _places(root[0], root[1])
        close = nearest(key, places, 0.75)
        if close:
            return f"Did you mean '{places[close]}'?"
        close = nearest(key, options)
        if close:
            return f"Did you mean '{close}'?"
        return "Options here: {}".format(", ".join(sorted(options))) if options else ""

    def option(self, spec, value, path, hidden, root):
        kind = spec.get("type", "str")
        if value is None:
            if spec.get("required"):
                self.problems.append(Problem(path, "is required and empty", mend=sentence(spec)))
                return None
            if spec.get("default") is None:
                return default(spec)
        try:
            value = convert(kind, value, spec.get("choices"))
        except _WrongType as error:
            self.add(path, f"expected {expected(spec)}", value, hidden, str(error))
            return default(spec)  # of the right type, so that what comes after can go on
        choices = spec.get("choices")
        if kind == "list":
            return self.elements(spec, value, path, hidden)
        if choices and value not in choices:
            self.choice(value, choices, path, hidden)
        if kind == "dict" and spec.get("options") is not None:
            return self.dict(spec, value, path, hidden, root)
        # an empty value that is the default means "not set"
        if value != spec.get("default") and not self.arrives(spec.get("destination"), value, path, hidden):
            return default(spec)
        return value

    def arrives(self, destination, value, path, hidden):
        """Whether a value fits the place where it ends up. A tuple is for the keys and the values of a dict."""
        if destination is None:
            return True
        if isinstance(destination, tuple):
            # what is no dict below one is for the rules
            entries = value.items() if isinstance(value, dict) else ()
            hidden = hidden or hasattr(destination[1], "secret")
            fits = [
                self.arrives(destination[0], key, join(path, key), hidden)
                and self.arrives(destination[1], item, join(path, key), hidden or _secret(key, {}))
                for key, item in entries]
            return all(fits)
        fault = destination(value)
        if fault:
            self.add(path, fault.text, value, hidden, fault.fix)
        return fault is None

    def elements(self, spec, value, path, hidden):
        kind = spec.get("elements")
        choices = spec.get("choices")
        result = []
        for index, item in enumerate(value):
            where = join(path, index)
            if kind:
                try:
                    # a null in a list is a forgotten value, whatever the type could make of it
                    if item is None:
                        raise _WrongType("Remove the empty entry")
                    item = convert(kind, item, choices)
                except _WrongType as error:
                    self.add(where, f"expected {TYPE_NAMES.get(kind, kind)}", item, hidden, str(error))
                    result.append(None)  # keeps the places of those after it
                    continue
            if choices and item not in choices:
                self.choice(item, choices, where, hidden)
            if kind == "dict" and spec.get("options") is not None:
                item = self.dict(spec, item, where, hidden, (spec["options"], where))
            elif not self.arrives(spec.get("destination"), item, where, hidden):
                item = None
            result.append(item)
        return result

    def dict(self, spec, value, path, hidden, root):
        before = len(self.problems)
        filled = self.options(spec["options"], value, path, hidden, root)
        # with an unknown or wrong option there, a condition's complaint would mislead
        if len(self.problems) == before:
            aliases = {alias: name for name, sub in spec["options"].items() for alias in sub.get("aliases") or []}
            given = {aliases.get(name, name) for name, item in value.items() if item is not None}
            self.relations(spec, given, filled, path)
        return filled

    def choice(self, value, choices, path, hidden):
        close = nearest(value, [str(item) for item in choices]) if isinstance(value, str) else None
        mend = f"Did you mean '{close}'?" if close else ""
        self.add(path, "must be one of {}".format(", ".join(str(item) for item in choices)), value, hidden, mend)

    def relations(self, spec, given, filled, path):
        """The conditions between options. As in Ansible, defaults count for all but the exclusions; null never does."""

        def add(text):
            self.problems.append(Problem(path, text))

        # a dict that only the defaults made is not something the user gave
        present = {name for name, value in filled.items() if name in given or not isinstance(value, (dict, type(None)))}
        for group in _groups(spec.get("mutually_exclusive")):
            both = [name for name in group if name in given]
            if len(both) > 1:
                add(f"{quoted(both, 'and')} exclude each other. Keep one of them")
        for group in _groups(spec.get("required_one_of")):
            if not present.intersection(group):
                add(f"one of {quoted(group, 'or')} is required")
        for group in _groups(spec.get("required_together")):
            missing = [name for name in group if name not in present]
            if missing and len(missing) < len(group):
                have = [name for name in group if name in present]
                add(f"{quoted(have, 'and')} needs {quoted(missing, 'and')} as well")
        for name, needed in (spec.get("required_by") or {}).items():
            missing = [item for item in _strings(needed) if item not in present]
            if name in present and missing:
                add(f"'{name}' needs {quoted(missing, 'and')} as well")
        for rule in spec.get("required_if") or []:
            name, wanted, needed = rule[:3]
            any_of = len(rule) > 3 and rule[3]
            missing = [item for item in _strings(needed) if item not in present]
            if filled.get(name) != wanted or not missing or (any_of and len(missing) < len(_strings(needed))):
                continue
            add(f"{quoted(missing, 'or' if any_of else 'and')} is required when '{name}' is {show(wanted)}")


def _groups(value):
    """A list of lists; a single list is one group."""
    if not value:
        return []
    return [value] if isinstance(value[0], str) else value


def _strings(value):
    return [value] if isinstance(value, str) else list(value)


def quoted(names, word):
    """'a', 'b' and 'c'"""
    names = [f"'{name}'" for name in names]
    return names[0] if len(names) == 1 else "{} {} {}".format(", ".join(names[:-1]), word, names[-1])


def _places(options, path):
    """All options below, with the path of the first of each name; lists are not entered."""
    found = {name: join(path, name) for name in options}
    for name, spec in options.items():
        if spec.get("type") == "dict" and spec.get("options"):
            for inner, place in _places(spec["options"], join(path, name)).items():
                found.setdefault(inner, place)
    return found


def expected(spec):
    """What a value should look like, in words."""
    kind = spec.get("type", "str")
    text = TYPE_NAMES.get(kind, kind)
    if kind == "list" and spec.get("elements"):
        text = f"{text} of {PLURALS.get(spec['elements'], spec['elements'])}"
    return text


def sentence(spec):
    """The first sentence of an option's description, without its markup."""
    text = spec.get("description") or ""
    text = text[0] if isinstance(text, list) and text else text
    first = re.split(r"(?<=[.!?])\s", str(text).strip())[0]
    return re.sub(r"\b[BCEIOPV]\(([^()]*)\)", r"\1", first)


def convert(kind, value, choices=None):
    """A value as the given type, by Ansible's own conversion, or _WrongType with the mend as its text."""
    if kind in ("raw", "any"):
        return value
    if kind in ("str", "path"):
        if isinstance(value, bool):
            # 'no' and 'on' in YAML are booleans: harmless where exactly one choice can be meant
            words = (BOOLEANS_TRUE if value else BOOLEANS_FALSE).intersection(
                item for item in choices or [] if isinstance(item, str)
            )
            if len(words) == 1:
                return next(iter(words))
            raise _WrongType("YAML reads yes, no, on and off as booleans: put the value in quotes")
        if isinstance(value, float):
            raise _WrongType("YAML reads a number here and loses digits (1.10 becomes 1.1): put the value in quotes")
        if isinstance(value, (dict, list, tuple)):
            raise _WrongType("")
    elif kind in ("int", "float", "bytes", "bits"):
        if isinstance(value, bool):
            raise _WrongType("")
        # Python also reads other scripts' digits, blanks around a number, and 1_000
        if kind in ("int", "float") and isinstance(value, str) and not re.fullmatch(r"[0-9.eE+-]+", value):
            raise _WrongType("")
        if kind == "float" and isinstance(value, (str, float)):
            try:
                if not math.isfinite(float(value)):
                    raise _WrongType("")
            except ValueError as error:
                raise _WrongType("") from error
    elif kind == "list" and isinstance(value, dict):
        raise _WrongType("Begin each entry with '- '")
    converter = CONVERTERS.get(kind)
    if converter is None:
        raise SpecError(f"unknown type '{kind}' in a spec")
    try:
        return converter(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise _WrongType("Leave the line out for the default" if value is None else "") from error
