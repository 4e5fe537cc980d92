#!/usr/bin/python
# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_apply
short_description: The host's part of daoman.fastapi.release
description:
  - Called by the action plugin of M(daoman.fastapi.release), which prepares what it needs. Use that one.
author: The daoman.fastapi contributors (@daoman)
version_added: 0.1.0
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: debian
    support: full
options:
  prepared:
    description:
      - What the action plugin prepared, as JSON. It holds the app's environment, so all of it is kept out of logs.
      - It is one string because Ansible masks each secret value wherever it occurs, and of a dict with V(1) in it every
        number of the output would be.
    type: str
    required: true
"""

EXAMPLES = r"""
# Not called by itself: see daoman.fastapi.release.
"""

RETURN = r"""
release:
  description: Id of the release that serves after the run.
  returned: always
  type: str
"""

import fcntl
import grp
import json
import os
import shutil
import time
from contextlib import contextmanager

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.daoman.fastapi.plugins.module_utils.release import (
    Layout,
    ReleaseError,
    digest,
    env_names,
    file_mode,
    inputs,
    journal_text,
    prunable,
    read_text,
    redact,
    redact_url,
    release_files,
    release_id,
)
from ansible_collections.daoman.fastapi.plugins.module_utils.release_build import Build, python_name
from ansible_collections.daoman.fastapi.plugins.module_utils.release_host import (
    Shell,
    clean_environment,
    make_directory,
    own,
    write_file,
)
from ansible_collections.daoman.fastapi.plugins.module_utils.release_source import Source
from ansible_collections.daoman.fastapi.plugins.module_utils.release_switch import (
    SETTLE,
    Instance,
    remove_release,
    remove_unused_venvs,
    strangers,
)
from ansible_collections.daoman.fastapi.plugins.module_utils.systemd import env_file, exposure, verify


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Deploy:
    """One app on one host: what is wanted, what is live, and the way from one to the other."""

    def __init__(self, module):
        self.module = module
        self.params = params = json.loads(module.params["prepared"])
        self.env = params["env"]
        params["env_file"] = env_file(self.env)
        clean_environment(params["build_env"])
        self.layout = Layout(params["name"])
        self.shell = Shell(module.run_command, params["build_timeout"])
        self.source = Source(params, self.layout, self.shell)
        self.result = {"changed": False, "release": "", "previous": "", "revision": ""}
        self.phases = {}

    def run(self):
        live = self.layout.live_id()
        self.result.update(release=live or "", previous=live or "")
        revision = self._revision()
        data = inputs(self.params, revision, python_name(self.params["python"]))
        wanted = digest(data)
        manifest = self.layout.manifest(live) if live else None
        same = manifest is not None and manifest["digest"] == wanted
        if same and Instance(self.layout, live, self.shell).serves() and not strangers(self.layout, live):
            return
        self.result["changed"] = True
        if self.module._diff:
            self.result["diff"] = self._diff(live, manifest, data)
        if self.module.check_mode:
            return
        reusable = [id_ for id_ in self.layout.good() if self.layout.manifest(id_)["digest"] == wanted]
        if not reusable and self.source.is_local and not self.params["upload"]:
            self.result["need_upload"] = True
            return
        self._directories()
        with self._lock():
            self._repair(live)
            id_ = live if same else reusable[-1] if reusable else self._make(wanted, data, live)
            self._release(id_, live)
            self._prune(id_)
        self.result.update(release=id_, phases=self.phases)

    # what is wanted

    def _revision(self):
        if self.source.type == "git" and self.module.check_mode and not shutil.which("git"):
            self.module.warn(
                f"git is not installed yet: the revision of {redact_url(self.source.location)} is not known."
            )
            return "unknown"
        self.result["revision"] = self.source.revision()
        return self.result["revision"]

    def _diff(self, live, manifest, data):
        def names(text):
            return "".join(f"{name}\n" for name in env_names(text))

        def facts(items):
            return "".join(f"{key}: {json.dumps(items[key])}\n" for key in sorted(items) if key != "files")

        pairs = [("manifest", facts(manifest["inputs"]) if manifest else "", facts(data))]
        for path, text in sorted(release_files(self.params).items()):
            before = read_text(self.layout.release(live, path)) if live else ""
            if path == "env":
                note = "(values differ)\n" if before != text and names(before) == names(text) else ""
                before, text = names(before), names(text) + note
            pairs.append((path, before, text))
        return [
            {
                "before_header": self.layout.release(live, path) if live else "(no release)",
                "after_header": f"{self.layout.name}: {path} of the new release",
                "before": before,
                "after": after,
            }
            for path, before, after in pairs
            if before != after
        ]

    # the way there

    @contextmanager
    def _phase(self, name):
        begun = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = round(time.monotonic() - begun, 2)

    @contextmanager
    def _lock(self):
        with open(self.layout.lock, "a+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                stream.seek(0)
                raise ReleaseError(
                    "lock", f"another deploy of {self.layout.name} is under way: {stream.read().strip()}"
                ) from exc
            stream.truncate(0)
            stream.write(f"{self.params['who']}, process {os.getpid()}, since {now()}\n")
            stream.flush()
            yield
            stream.truncate(0)

    def _directories(self):
        layout = self.layout
        for path in (layout.base, layout.releases, layout.venvs):
            make_directory(path)
        if not os.path.isdir(layout.shared):
            make_directory(layout.shared, mode=0o750)
            shutil.chown(layout.shared, self.layout.name, self.layout.name)

    def _repair(self, live):
        """Take away what an interrupted deploy left: units that are not live, releases that are not complete."""
        for id_ in strangers(self.layout, live):
            Instance(self.layout, id_, self.shell).stop(self.params["timeout_stop"])
        for id_ in self.layout.ids():
            if id_ != live and self.layout.manifest(id_) is None:
                remove_release(self.layout, id_)

    def _make(self, wanted, data, live):
        """Fetch and build a release; its id. Nothing is left of it if that fails."""
        id_ = release_id(wanted)
        top = self.layout.release(id_)
        source = os.path.join(top, "src")
        make_directory(source)
        try:
            with self._phase("fetch"):
                self.source.fetch(source)
            project = os.path.join(source, self.params["subdirectory"])
            if not os.path.isdir(project):
                raise ReleaseError("fetch", f"subdirectory '{self.params['subdirectory']}' is not in the source.")
            with self._phase("build"):
                build = Build(self.params, self.layout, self.shell, data, project)
                os.symlink(os.path.relpath(build.ensure(), top), os.path.join(top, "venv"))
                build.compile_source()
                self._close(source, project)
            for path, text in release_files(self.params).items():
                write_file(os.path.join(top, path), text, file_mode(path))
            with self._phase("check"):
                found = self._check_units(id_, live)
                self._check_app(id_, project, build.python)
        except BaseException:
            remove_release(self.layout, id_)
            raise
        manifest = {
            "id": id_,
            "digest": wanted,
            "created": now(),
            "by": self.params["who"],
            "source": redact_url(self.params["source"]),
            "version": self.params["version"],
            "exposure": found,
            "inputs": data,
        }
        write_file(os.path.join(top, "manifest.json"), json.dumps(manifest, indent=2, sort_keys=True) + "\n", 0o600)
        return id_

    def _close(self, source, project):
        """Code is root's, and readable by the app alone; nginx reads the static directories and finds no others."""
        group = grp.getgrnam(self.layout.name).gr_gid
        own(source, 0, group, (0o750, 0o640))
        for path in self.params["static_paths"]:
            top = os.path.join(project, path)
            if not os.path.isdir(top):
                raise ReleaseError("build", f"the static directory '{path}' is not in the source.")
            own(top, 0, group, (0o755, 0o644))
            parent = os.path.dirname(os.path.normpath(top))
            while len(parent) >= len(source):
                os.chmod(parent, 0o751)
                parent = os.path.dirname(parent)

    def _check_units(self, id_, live):
        """The units are sound and closed enough; their exposure."""
        found = self._known_exposure(live)
        if found is None:
            found = self._exposure(id_)
        if found > self.params["exposure_limit"]:
            raise ReleaseError(
                "check",
                f"the unit's exposure is {found}, over service.exposure_limit {self.params['exposure_limit']}. "
                "Close what service.overrides opens, or raise the limit.",
            )
        return found

    def _known_exposure(self, live):
        """That of the live release where its units are the same: systemd takes a fifth of a second to say it again."""
        units = self.params["units"].items()
        if live and all(read_text(self.layout.release(live, "systemd", kind)) == text for kind, text in units):
            return (self.layout.manifest(live) or {}).get("exposure")
        return None

    def _exposure(self, id_):
        units = {
            self.layout.service_unit(id_): self.params["units"]["service"],
            self.layout.socket_unit(id_): self.params["units"]["socket"],
        }
        problems = verify(units, self.module.run_command)
        if problems:
            raise ReleaseError(
                "check", "systemd does not accept the units: see service.overrides.", "\n".join(problems)
            )
        return exposure(self.layout.service_unit(id_), units, self.module.run_command)

    def _check_app(self, id_, project, python):
        """gunicorn can import the app with this configuration."""
        config = self.layout.release(id_, "gunicorn.conf.py")
        self.shell.run(
            [python, "-m", "gunicorn", "--check-config", "--config", config],
            "check",
            "gunicorn cannot load the app",
            user=self.layout.name,
            cwd=project,
            timeout=self.params["timeout_start"],
            env={
                **{key: str(value) for key, value in self.env.items()},
                "FASTAPI_RELEASE": id_,
                "HOME": "/nonexistent",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )

    def _release(self, id_, live):
        instance = Instance(self.layout, id_, self.shell)
        try:
            with self._phase("start"):
                instance.start(self.params["timeout_start"])
            with self._phase("ready"):
                instance.wait_ready(self.params["domain"], self.params["health"])
        except ReleaseError as exc:
            exc.output = "\n".join(
                part
                for part in (exc.output.strip(), f"The last lines of {instance.service}:", instance.journal())
                if part
            )
            if id_ != live:
                instance.discard()
                reason = {
                    "phase": exc.phase,
                    "reason": exc.message,
                    "time": now(),
                }
                write_file(self.layout.release(id_, "failed.json"), json.dumps(reason) + "\n", 0o600)
            raise
        with self._phase("switch"):
            instance.switch()
        if live and live != id_:
            with self._phase("drain"):
                time.sleep(SETTLE)
                Instance(self.layout, live, self.shell).stop(self.params["timeout_stop"])

    def _prune(self, live):
        failed = [id_ for id_ in self.layout.ids() if self.layout.failed(id_)]
        for id_ in prunable(self.layout.good(), failed, live, self.params["keep"]):
            remove_release(self.layout, id_)
        remove_unused_venvs(self.layout)


def main():
    module = AnsibleModule(
        argument_spec={"prepared": {"type": "str", "required": True, "no_log": True}}, supports_check_mode=True
    )
    deploy = Deploy(module)
    try:
        deploy.run()
    except ReleaseError as exc:
        live = deploy.layout.live_id()
        still = f"Release {live} goes on serving." if live else "No release of it serves yet."
        output = redact(journal_text(exc.output.strip().splitlines()), deploy.env)
        message = f"{deploy.layout.name}: {exc.phase} failed: {redact(exc.message, deploy.env)}\n{still}"
        module.fail_json(
            msg=message + ("\n" + output if output else ""), **{**deploy.result, "changed": False, "phase": exc.phase}
        )
    module.exit_json(**deploy.result)


if __name__ == "__main__":
    main()
