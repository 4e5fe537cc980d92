# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One deploy of one app on one host, from its source to the release that serves."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil

from . import kit as release_kit
from .build import Build, python_name
from .cutover import SERVE, Cutover, serve_settings
from .lock import is_stale, now
from .release import (
    Layout,
    ReleaseError,
    digest,
    env_values,
    file_mode,
    inputs,
    read_text,
    redact_url,
    release_files,
    release_id,
)
from .shell import Shell, clean_environment, let_read, make_directory, own, share, write_file
from .source import Source
from .switch import Instance, strangers
from .systemd import env_file, exposure, verify

# What a deploy goes through. A run may stop after any of them, and go on in another call of the module.
STAGES = ("fetch", "build", "seal", "migrate", "ready", "switch", "done")


class Deploy:
    """One app on one host: what is wanted, what is live, and the way from one to the other."""

    def __init__(self, params, run, check=False, diff=False):
        """`params` is what the action plugin prepared, `run` AnsibleModule.run_command or one like it."""
        self.prepared = json.dumps(params)
        self.params = params
        self.check = check
        self.diff = diff
        self.run_command = run
        self.env = params["env"]
        params["env_file"] = env_file(self.env)
        clean_environment(params["build_env"])
        self.layout = Layout(params["name"])
        self.shell = Shell(run, params["build_timeout"])
        self.source = Source(params, self.layout, self.shell)
        self.cutover = Cutover(self.layout, self.shell, params["who"], params["reason"])
        self.lock = self.cutover.lock
        self.result = {"changed": False, "release": "", "previous": "", "revision": "", "built": False}
        # The release in the making, the one that it follows, and what it is made of.
        self.id = self.previous = self.data = None

    def run(self):
        live = self.layout.live_id()
        self.result.update(release=live or "", previous=live or "")
        pending = self.lock.pending(self.params["run"])
        if self.params["until"] == "abort":
            self._abort(live, pending)
        elif pending:
            self._go_on(pending)
        else:
            self._begin(live)
        if self.params["until"] == "done" and release_kit.save(self.prepared, self.check):
            self.result["changed"] = True

    def _begin(self, live):
        revision = self._revision()
        self.data = inputs(self.params, revision, python_name(self.params["python"]))
        wanted = digest(self.data)
        manifest = self.layout.manifest(live) if live else None
        same = manifest is not None and manifest["digest"] == wanted
        if same and self._is_settled(live):
            return
        releases = self.layout.releases_by_age()
        reusable = [item["id"] for item in releases if item["digest"] == wanted and item["state"] != "failed"]
        self.result.update(changed=True, built=not reusable)
        if self.diff:
            self.result["diff"] = self._diff(live, manifest)
        if self.check:
            return
        if not reusable and self.source.is_local and not self.params["upload"]:
            self.result["need_upload"] = True
            return
        self._directories()
        with self._locked():
            self.cutover.repair(live)
            self.previous = live
            if reusable:
                self.id = live if live in reusable else reusable[-1]
                self._through("ready")
            else:
                self.id = release_id(wanted)
                self._through("fetch")

    def _is_settled(self, live):
        """Whether the live release runs as it should, and nothing is left over of a run that did not end."""
        return (
            self.layout.state(live)["state"] == "good"
            and Instance(self.layout, live, self.shell).serves()
            and not strangers(self.layout, live)
            and not is_stale(self.lock.read())
        )

    def _go_on(self, pending):
        self.id, self.previous, self.data = pending["release"], pending["previous"] or None, pending["data"]
        self.cutover.facts.update(pending["facts"])
        self.result.update(changed=True, revision=self.data["source"]["revision"])
        with self._locked():
            after = STAGES.index(pending["stage"]) + 1
            self._through(STAGES[after])

    def _locked(self):
        params = self.params
        return self.lock.taken(params["run"], params["who"], params["reason"], params["break_lock"])

    def _through(self, first):
        """Go through the stages from the first to the one at which this call is to end."""
        last = self.params["until"]
        try:
            for stage in STAGES[STAGES.index(first) : STAGES.index(last) + 1]:
                getattr(self, "_" + stage)()
        except OSError as exc:  # a full disk, for example
            self._fail(ReleaseError(self.lock.content.get("phase", first), str(exc)), exc)
        except ReleaseError as exc:
            self._fail(exc)
        if last != "done":
            self.lock.note(
                away=now(),
                stage=STAGES[max(STAGES.index(last), STAGES.index(first) - 1)],
                release=self.id,
                previous=self.previous or "",
                data=self.data,
                facts=self.cutover.facts,
            )
        self.result.update(release=self.id, **self.cutover.outcome())

    def _fail(self, failure, cause=None):
        self.cutover.fail(failure, self.id, self.previous, self.params, "deploy")
        raise failure from cause

    def _abort(self, live, pending):
        """Give up what this run has done on this host, because something failed elsewhere."""
        failure = ReleaseError("abort", self.params["reason"])
        if pending:
            self.result["changed"] = True
            with self._locked():
                self.cutover.fail(failure, pending["release"], pending["previous"] or None, self.params, "deploy")
        elif self.params["previous"] and live == self.params["release"] != self.params["previous"]:
            self.result["changed"] = True
            previous = self.params["previous"]
            with self._locked():
                self.cutover.repair(live)
                self.cutover.go_to(previous, live, serve_settings(self.layout, previous))
                self.cutover.mark(live, "failed", phase=failure.phase, reason=failure.message, since=now())
                self.cutover.record("return", previous, live, "good")
        self.result["release"] = self.layout.live_id() or ""

    # what is wanted

    def _revision(self):
        if self.source.type == "git" and self.check and not shutil.which("git"):
            self.cutover.warnings.append(
                f"git is not installed yet: the revision of {redact_url(self.source.location)} is not known."
            )
            return "unknown"
        self.result["revision"] = self.source.revision()
        return self.result["revision"]

    def _diff(self, live, manifest):
        def names(text):
            return "".join(f"{name}\n" for name in env_values(text))

        def facts(items):
            shown = [key for key in sorted(items) if key != "files"]
            return "".join(f"{key}: {json.dumps(items[key], sort_keys=True)}\n" for key in shown)

        pairs = [("manifest", facts(manifest["inputs"]) if manifest else "", facts(self.data))]
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

    def _directories(self):
        layout = self.layout
        account = pwd.getpwnam(layout.name)
        for path in (layout.base, layout.releases, layout.venvs):
            make_directory(path)
        make_directory(layout.cache, account.pw_uid, account.pw_gid, 0o700)
        if not os.path.isdir(layout.shared):
            make_directory(layout.shared, account.pw_uid, account.pw_gid, 0o750)

    @property
    def _source(self):
        return self.layout.release(self.id, "src")

    @property
    def _project(self):
        return os.path.join(self._source, self.params["subdirectory"])

    def _hook(self, point):
        self.cutover.hook(point, self.id, self.previous, self.params)

    def _fetch(self):
        with self.cutover.phase("fetch"):
            make_directory(self._source)
            self.source.fetch(self._source, self.data["source"]["revision"])
            if not os.path.isdir(self._project):
                raise ReleaseError("fetch", f"subdirectory '{self.params['subdirectory']}' is not in the source.")
            account = pwd.getpwnam(self.layout.name)
            own(self._source, account.pw_uid, account.pw_gid)
            share(self.layout, self.shell, self._project, self.params["shared_paths"])
        self._hook("before_build")

    def _build(self):
        with self.cutover.phase("build"):
            build = Build(self.params, self.layout, self.shell, self.data, self._project)
            venv = self.layout.release(self.id, "venv")
            os.symlink(os.path.relpath(build.ensure(), os.path.dirname(venv)), venv)
        self._hook("after_build")

    def _seal(self):
        """Close the release to change, and look whether it can run at all. With its manifest it is complete."""
        top = self.layout.release(self.id)
        python = os.path.join(os.path.realpath(os.path.join(top, "venv")), "bin", "python")
        with self.cutover.phase("build"):
            # The app may not write beside its code, so what is not compiled now is compiled at every start.
            compile_all = [python, "-m", "compileall", "-q", self._project]
            self.shell.run(compile_all, "build", "cannot compile", check=False)
            self._close(self._source, self._project)
            for path, text in release_files(self.params).items():
                write_file(os.path.join(top, path), text, file_mode(path))
        with self.cutover.phase("check"):
            found = self._check_units(self.id, self.previous)
            self._check_app(self.id, self._project, python)
        manifest = {
            "id": self.id,
            "digest": digest(self.data),
            "created": now(),
            "by": self.params["who"],
            "source": redact_url(self.params["source"]),
            "version": self.params["version"],
            "exposure": found,
            "inputs": self.data,
            "serve": {key: self.params[key] for key in SERVE},
        }
        write_file(os.path.join(top, "manifest.json"), json.dumps(manifest, indent=2, sort_keys=True) + "\n", 0o600)

    def _migrate(self):
        if self.params["migrate"]:
            self._hook("migrate")

    def _ready(self):
        self.cutover.ready(self.id, self.previous, self.params)

    def _switch(self):
        self.cutover.switch(self.id, self.previous)
        self._hook("after_switch")

    def _done(self):
        follows = self.previous and self.previous != self.id
        guard = self.params["guard"]
        if follows and guard["seconds"]:
            self.cutover.guard(self.id, guard["access_log"] or self.layout.log("access"), guard)
        self.cutover.mark(self.id, "good", deployed=now(), by=self.params["who"])
        if follows:
            self.cutover.finish(self.previous)
        self.cutover.record("deploy", self.id, self.previous, "good", phases=self.cutover.phases)
        self.cutover.prune(self.id, self.params["keep"])

    def _close(self, source, project):
        """Code is root's, and readable by the app alone; nginx reads the static directories and finds no others."""
        group = grp.getgrnam(self.layout.name).gr_gid
        own(source, 0, group, (0o750, 0o640))
        for path in map(os.path.normpath, self.params["static_paths"]):
            shared = [kept for kept in self.params["shared_paths"] if f"{path}/".startswith(f"{kept}/")]
            top = os.path.join(project, shared[0] if shared else path)
            if shared:
                let_read(self.layout.shared, path, grp.getgrnam(self.params["socket_group"]).gr_gid)
            elif os.path.isdir(top):
                own(top, 0, group, (0o755, 0o644))
            else:
                raise ReleaseError("build", f"the static directory '{path}' is not in the source.")
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
        problems = verify(units, self.run_command)
        if problems:
            raise ReleaseError(
                "check", "systemd does not accept the units: see service.overrides.", "\n".join(problems)
            )
        return exposure(self.layout.service_unit(id_), units, self.run_command)

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
