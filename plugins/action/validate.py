# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleUndefinedVariable
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible.vars.manager import VariableManager
from ansible_collections.daoman.fastapi.plugins.module_utils import (
    apps,
    certificate_rules,
    playbook_variables,
    rules,
    spec,
)

try:
    from ansible.errors import AnsibleValueOmittedError
except ImportError:  # an older core substitutes a placeholder instead of raising
    AnsibleValueOmittedError = ()

try:
    from ansible.parsing.vault import VaultHelper
except ImportError:
    VaultHelper = None

NEEDED = "It lists the apps of this host, each at least with name, domain, source and app"

OMIT = object()
BROKEN = object()
# A template that names one of these brings a secret into the value.
SECRET_WORDS = re.compile(r"vault|secret|passw|token|private|credential|api_?key", re.IGNORECASE)
# How like an option an unknown name must be to count as a misspelling of it.
LIKENESS = 0.75


class Values:
    """A host's variables, resolved leaf by leaf so that a failure has a path and a secret is known as one."""

    def __init__(self, templar, task_vars):
        self.templar = templar
        self.task_vars = task_vars
        self.problems = []
        self.secrets = set()

    def get(self, name):
        return self.resolve(self.task_vars[name], name)

    def is_secret(self, path):
        return any(path == secret or path.startswith((secret + ".", secret + "[")) for secret in self.secrets)

    def resolve(self, value, path):
        if isinstance(value, dict):
            result = {}
            for key, item in value.items():
                item = self.resolve(item, spec.join(path, key))
                if item is not OMIT and item is not BROKEN:
                    result[key] = item
            return result
        if isinstance(value, list):
            items = [self.resolve(item, spec.join(path, index)) for index, item in enumerate(value)]
            # as Ansible does, what is omitted goes; what is broken keeps its place, for the paths of those after it
            return [None if item is BROKEN else item for item in items if item is not OMIT]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str) and self.templar.is_possibly_template(value) and SECRET_WORDS.search(value):
            self.secrets.add(path)
        try:
            result = self.templar.template(value)
        except AnsibleValueOmittedError:
            return OMIT
        except AnsibleUndefinedVariable as error:
            self.problems.append(spec.Problem(path, f"uses a variable that is not there: {_first_line(error)}"))
            return BROKEN
        except AnsibleError as error:
            # the text of other failures can quote the values they failed on
            detail = "" if self.is_secret(path) or _is_below_env(path) else f": {_first_line(error)}"
            self.problems.append(spec.Problem(path, f"cannot be resolved{detail}"))
            return BROKEN
        if VaultHelper is not None and (_is_vaulted(value) or _is_vaulted(result)):
            self.secrets.add(path)
        return result


def _is_vaulted(value):
    return VaultHelper.get_ciphertext(value, with_tags=False) is not None


def _is_below_env(path):
    return any(part in spec.SECRET_OPTIONS for part in re.split(r"[.\[]", path))


def _first_line(error):
    return str(getattr(error, "message", None) or error).strip().splitlines()[0].rstrip(".")


def misspelt(names, prefix, options, ignored=()):
    """What is wrong with the names of a host's variables: errors and warnings."""
    errors, warnings = [], []
    bare = {option[len(prefix) :]: option for option in options if option.startswith(prefix)}
    for name in sorted(names):
        if name in options or name in ignored:
            continue
        if name.startswith(prefix):
            close = spec.nearest(name[len(prefix) :], bare, LIKENESS)
            if close:
                errors.append(f"{name}: unknown variable. Did you mean '{bare[close]}'?")
            else:
                warnings.append(
                    f"{name} begins with '{prefix}' and is no variable of daoman.fastapi. If it is yours, name it "
                    "in fastapi_ignored_variables."
                )
        elif not name.startswith("_"):
            option = _misspelt_prefix(name, bare)
            if option:
                errors.append(f"{name}: unknown variable. Did you mean '{option}'?")
    return errors, warnings


def _misspelt_prefix(name, bare):
    """The option that a name would be with the right prefix; 'ngnix_sites', but not 'nginx2_sites'."""
    for option in bare.values():
        # letters swapped, or an underscore too many or too few
        if sorted(name) == sorted(option) and name[0] == option[0]:
            return option
        if name.replace("_", "") == option.replace("_", ""):
            return option
    return None


class OfInventory(VariableManager):
    """The variables of a host without the extra ones, which hide those of the same name."""

    def __init__(self, loader, inventory):
        super().__init__(loader=loader, inventory=inventory)
        self._extra_vars = {}


class ActionModule(ActionBase):
    """Checks variables on the controller, without a connection to the host."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    # fastapi_apps with all defaults, as far as they are in order
    apps = ()

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _result, args = self.validate_argument_spec(
            argument_spec={
                "role": {"type": "list", "elements": "str", "default": []},
                "apps": {"type": "bool", "default": False},
                "playbook": {"type": "str", "choices": list(playbook_variables.PLAYBOOKS)},
            },
            required_one_of=[["role", "apps", "playbook"]],
        )
        if not args["role"] and not args["apps"] and not args["playbook"]:
            raise AnsibleActionFail("Name a role or a playbook, or set apps: true.")
        values = Values(self._templar, task_vars)
        problems, warnings = [], []
        try:
            ignored = self.ignored(values, task_vars, problems)
            if args["playbook"]:
                result["apps"] = self.check_playbook(args["playbook"], task_vars, ignored, problems)
            if args["apps"]:
                self.check_apps(values, task_vars, ignored, problems, warnings)
            for role in args["role"]:
                self.check_role(role, args["apps"], values, task_vars, ignored, problems, warnings)
        except spec.SpecError as error:
            raise AnsibleActionFail(f"The collection is incomplete: {error}") from error
        for warning in warnings:
            Display().warning(warning)
        result["changed"] = False
        if problems:
            named = args["role"] or [f"the playbook {args['playbook']}"]
            what = "fastapi_apps" if args["apps"] else "the variables of {}".format(", ".join(named))
            result["failed"] = True
            result["msg"] = "{} in {}; nothing was changed:\n{}".format(
                "1 problem" if len(problems) == 1 else f"{len(problems)} problems",
                what,
                "\n".join(f"  {text}" for text in problems),
            )
        else:
            result["msg"] = "The variables are in order."
        return result

    def ignored(self, values, task_vars, problems):
        if apps.IGNORED not in task_vars:
            return []
        filled, found = spec.check_option({"type": "list", "elements": "str"}, values.get(apps.IGNORED), apps.IGNORED)
        problems.extend(found)
        return [] if found else filled

    def check_playbook(self, playbook, task_vars, ignored, problems):
        """Names of the apps of this host that the playbook is about: those of `-e app=`, or all."""
        extra = load_extra_vars(self._loader)
        found = playbook_variables.check(playbook, extra, ignored=ignored)
        if found:
            # Asked only now: it takes a while for a large inventory.
            found = playbook_variables.check(playbook, extra, self.used(task_vars), ignored)
        problems.extend(found)
        if found or "app" not in playbook_variables.PLAYBOOKS[playbook]:
            return []
        wanted = spec.convert("list", extra.get("app") or [])
        own = self.names(task_vars)
        if not wanted and playbook in playbook_variables.APP_REQUIRED:
            there = f"This host has: {', '.join(own)}" if own else "The playbook releases lists those of the host"
            text = f"is required by the playbook {playbook}"
            problems.append(spec.Problem("app", text, mend=f"{there}. Give -e app=NAME"))
            return []
        of_host = playbook in playbook_variables.OF_HOSTS
        fleet = () if set(wanted) <= set(own) else self.fleet(task_vars)
        chosen, found = playbook_variables.chosen(wanted, own, fleet, of_host)
        problems.extend(found)
        return chosen

    def used(self, task_vars):
        """Names that the inventory, and files beside the playbook, define or use."""
        hostvars = task_vars["hostvars"]
        variables = OfInventory(self._loader, hostvars._inventory)
        found = set()
        for name in task_vars["ansible_play_hosts_all"]:
            host = hostvars._inventory.get_host(name)
            given = variables.get_vars(host=host, task=self._task, include_hostvars=False)
            found.update(given, playbook_variables.words(given))
        return found

    def names(self, variables):
        """Names of the apps in fastapi_apps; what is not in order is told elsewhere."""
        templar = self._templar.copy_with_new_env(available_variables=variables)
        try:
            given = variables.get(apps.APPS)
            given = templar.template(given) if isinstance(given, str) else given
            items = given if isinstance(given, (list, tuple)) else []
            names = [templar.template(item.get("name")) for item in items if isinstance(item, dict)]
        except AnsibleError:
            return []
        return [name for name in names if isinstance(name, str)]

    def fleet(self, task_vars):
        """Names of the apps of all hosts of the play."""
        hosts = task_vars.get("ansible_play_hosts_all") or []
        return {name for host in hosts for name in self.names(task_vars["hostvars"].raw_get(host))}

    def check_apps(self, values, task_vars, ignored, problems, warnings):
        options = apps.options()
        errors, others = misspelt(task_vars, "fastapi_", options, ignored)
        problems.extend(errors)
        warnings.extend(others)
        for name in options:
            if name in task_vars and name not in (apps.APPS, apps.IGNORED):
                value, unresolved = self.value(values, name)
                problems.extend(unresolved)
                if value is not OMIT and value is not BROKEN:
                    problems.extend(spec.check_option(options[name], value, name, values.is_secret)[1])
        if apps.APPS not in task_vars:
            # the misspelt name, reported above, is the likelier reason
            if not errors:
                problems.append(f"{apps.APPS}: is required and missing. {NEEDED}")
            return
        value, unresolved = self.value(values, apps.APPS)
        problems.extend(unresolved)
        if value is BROKEN:
            return
        if value is None or value is OMIT or value == []:
            problems.append(spec.problem(apps.APPS, "is empty", [], mend=NEEDED))
            return
        filled, found = spec.check_option(options[apps.APPS], value, apps.APPS, values.is_secret)
        self.apps = filled
        found = unresolved + _without(found, unresolved)
        problems.extend(found[len(unresolved) :])
        problems.extend(rules.check_apps(filled, found, values.is_secret))

    def check_role(self, role, with_apps, values, task_vars, ignored, problems, warnings):
        points = spec.entry_points(role)
        options = points["main"].get("options") or {}
        prefix = f"{role}_"
        known = set()
        for point in points.values():
            known.update(point.get("options") or {})
        errors, others = misspelt(task_vars, prefix, known, ignored)
        problems.extend(errors)
        warnings.extend(others)
        derived = apps.DERIVED.get(role) if with_apps else None
        given, unresolved = {}, []
        for name in options:
            if name not in task_vars:
                continue
            if name == derived:
                problems.append(
                    f"{name}: is set, but the site playbook makes it from fastapi_apps. "
                    "Remove it, or use the role in a playbook of your own"
                )
                continue
            value, broken = self.value(values, name)
            unresolved.extend(broken)
            if value is not OMIT and value is not BROKEN:
                given[name] = value
        problems.extend(unresolved)
        options = {name: option for name, option in options.items() if name != derived}
        filled, found = spec.check(options, given, "", values.is_secret)
        found = _without(found, unresolved)
        problems.extend(found)
        problems.extend(rules.check(role, filled, found + unresolved, values.is_secret))
        if derived and role == "certbot_tls":
            problems.extend(certificate_rules.of_apps(self.apps, filled))

    def value(self, values, name):
        before = len(values.problems)
        value = values.get(name)
        return value, values.problems[before:]


def _without(problems, unresolved):
    """What could not be resolved is absent, and would be reported again as missing."""
    paths = {problem.path for problem in unresolved}
    return [problem for problem in problems if problem.path not in paths]
