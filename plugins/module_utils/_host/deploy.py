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
import stat
import time

from . import accounts, environment, history, host_state, intact, preload, upkeep
from . import kit as release_kit
from .build import Build, Tools, python_name
from .cutover import SERVE, Cutover, serve_settings
from .lock import is_stale, now, patiently
from .order import AGAIN, Order, held_by, named
from .redact import redact_url
from .release import (
    MANIFEST_FORMAT,
    Layout,
    ReleaseError,
    digest,
    env_values,
    file_mode,
    fresh_id,
    inputs,
    read_text,
    release_files,
    sha256,
)
from .shell import Shell, clean_environment, let_read, make_directory, write_file
from .source import Source
from .switch import Instance, strangers
from .systemd import env_file, exposure, verify
from .tree import Modes, open_below, remove, replace_by_link, take_over

# What a deploy goes through. A run may stop after any of them, and go on in another call of the module.
STAGES = ("lock", "fetch", "build", "seal", "migrate", "ready", "switch", "done")
# Modes of parts of a release that hold its configuration.
CLOSED = {"gunicorn.conf.py": 0o640, "start.sh": 0o750, "lib": 0o750, "systemd": 0o700}
# Seconds that a check has to say where it was when its time was over.
GONE = 10
# Run by the app's user: what the source brings at a shared path is what the first release begins with.
SEED = """
set -eu
shared=$1; shift
for path; do
    kept="$shared/$path"
    [ ! -e "$kept" ] || continue
    mkdir -p "$(dirname "$kept")"
    if [ -e "$path" ]; then cp -R "$path" "$kept"; chmod -R u+rwX,go+rX "$kept"; else mkdir "$kept"; fi
done
"""


class Deploy:
    """One app on one host: what is wanted, what is live, and the way from one to the other."""

    def __init__(self, params, run, check=False, diff=False):
        """`params` is what the action plugin prepared, `run` AnsibleModule.run_command or one like it."""
        if "uv_hashes" not in params:
            raise ReleaseError(
                "choose",
                "its settings on this host are from an older version of the collection. Run the playbook site once.",
            )
        self.prepared = json.dumps(params)
        self.params = params
        self.check = check
        self.diff = diff
        self.run_command = run
        params["env_file"] = env_file(params["env"])
        clean_environment()
        self.layout = Layout(params["name"])
        self.shell = Shell(run, params["build_timeout"])
        self.cutover = Cutover(self.layout, self.shell, params["who"], params["reason"])
        self.cage = self.cutover.cage
        self.cage.limits = params["build_limits"]
        self.source = Source(params, self.layout, self.cage, self.shell, check)
        user, _colon, password = self.source.login.partition(":")
        login = {"source": password or user}
        self.cutover.secrets = {**login, **params["build_env"], **params["build_secrets"], **params["env"]}
        self.lock = self.cutover.lock
        self.result = {"changed": False, "release": "", "previous": "", "revision": "", "built": False}
        # What is wrong with the live release, and cannot be put right in its place.
        self.damage = []
        # Told who is waited for, on a host itself.
        self.on_wait = None
        # The release in the making, the one that it follows, and what it is made of.
        self.id = self.previous = self.data = None
        # That of a hold is the one that serves.
        self.version = params["version"]

    def run(self):
        begun, holders = time.monotonic(), []

        def say(holder):
            holders.append(holder)
            if self.on_wait:
                self.on_wait(f"{self.layout.name}: waits for {holder}, for at most {self.params['lock_wait']} s.")

        try:
            patiently(self.lock, self.params.get("lock_wait", 0), self._run, say)
        finally:
            if holders:
                seconds = time.monotonic() - begun
                self.cutover.warnings.append(
                    f"{self.layout.name}: was done after {seconds:.0f} s. It waited for {holders[0]}."
                )

    def _run(self):
        live = self._live()
        self.result.update(release=live or "", previous=live or "")
        pending = self.lock.pending(self.params["run"])
        if self.params["until"] == "abort":
            self._abort(live, pending)
        elif self.params["until"] == "resolve":
            self._resolve()
        elif pending:
            self._go_on(pending)
        else:
            self._begin(live)
        last = self.params["until"] == "done" or not (self.result["changed"] or self.params["until"] == "abort")
        if self.params.get("forget_secrets") and last:
            self._forget()
        serves = self.layout.live_id()
        self.result["version"] = ((self.layout.manifest(serves) if serves else None) or {}).get("version", "")
        if self.params["until"] == "done" and release_kit.save(self.prepared, self.check):
            self.result["changed"] = True

    def _forget(self):
        """Remove the releases with another environment than the one that serves."""
        live = self.layout.live_id()
        if environment.outdated(self.layout, live):
            self.result["changed"] = True
            if not self.check:
                with self._locked():
                    self.cutover.repair(live)
                    self.cutover.forget(live)

    def _prepare(self):
        accounts.refuse_foreign(self.layout)
        host_state.refuse_downgrade(self.params.get("collection", ""), self.params.get("allow_downgrade", True))
        if not self.params.get("set_up", True) and not accounts.is_app(self.layout):
            raise ReleaseError(
                "choose",
                "it was never set up on this host. The playbook deploy only releases: run daoman.fastapi.site once, "
                "which also makes its site and certificate.",
            )
        if not self.check:
            self._directories()

    def _resolve(self):
        """Ask the source for the revision on behalf of other hosts."""
        if self.source.type == "git":
            self._prepare()
            revision = self._revision()
            if revision != "unknown":
                self.result["resolved"] = {"asked": self._asked(), "revision": revision}

    def _asked(self):
        """The same for two hosts that ask the same source for the same version. It has a token in it perhaps."""
        return sha256(json.dumps([self.params["source"], self.params["version"]]))

    def _begin(self, live):
        self._prepare()
        revision = self._revision()
        self.data = inputs(self.params, revision, python_name(self.params["python"]))
        manifest = self.layout.manifest(live) if live else None
        if live and not self.params.get("release_again") and self._is_held(revision, manifest) and not manifest:
            return
        wanted = digest(self.data)
        same = manifest is not None and manifest["digest"] == wanted
        self._keep(live, manifest)
        if same and not self.params.get("rebuild") and not self.damage and self._is_settled(live):
            return
        reusable = self._reusable(wanted, live)
        self.result.update(changed=True, built=not reusable)
        if self.diff:
            self.result["diff"] = self._diff(live, manifest)
        if self.check:
            return
        if not reusable and self._needs_upload():
            return
        with self._locked():
            live = self._judge_left(live, wanted)
            self.cutover.repair(live)
            self.previous = live
            # What was judged just now may be no choice any more.
            reusable = self._reusable(wanted, live)
            if reusable:
                self.id = live if live in reusable else reusable[-1]
                self._through("ready")
            else:
                self.id = fresh_id(self.layout, wanted)
                self._through("fetch")

    def _reusable(self, wanted, live):
        """Ids of the releases that are what is wanted, and as they were made; that which served last comes last."""
        if self.params.get("rebuild"):
            return []
        releases = self.layout.releases_by_age()
        fit = [item["id"] for item in releases if item["digest"] == wanted and item["state"] != "failed"]
        return [id_ for id_ in fit if not (self.damage if id_ == live else intact.check(self.layout, id_))]

    def _judge_left(self, live, wanted):
        """See what a run left that died in its guard; the id of what serves then."""
        manifest = self.layout.manifest(live) if live else None
        wrong = self.cutover.judge_left(live)
        if wrong:
            if manifest and manifest["digest"] == wanted:
                raise ReleaseError("guard", wrong)
            self.cutover.warnings.append(f"{self.layout.name}: {wrong}")
        return self.layout.live_id() if wrong else live

    def _is_held(self, revision, manifest):
        """Whether what is wanted is held. Then what serves stays, and takes over the settings where it can."""
        serving = manifest["inputs"]["source"]["revision"] if manifest else ""
        hold = Order(self.layout).hold_on(revision, digest(self.data), serving)
        if not hold:
            return False
        if not manifest or revision == serving:
            settings = ""
            self.data = manifest["inputs"] if manifest else self.data
        elif self.source.type == "git":
            self.data = inputs(self.params, serving, python_name(self.params["python"]))
            settings = " with the settings of the inventory"
        else:
            settings = " with the settings that it has: its source is not at hand to release it with others"
            self.data = manifest["inputs"]
        self.version = manifest["version"] if manifest else self.version
        self.result["revision"] = serving
        self.result["held"] = hold
        same = revision == serving
        what = f"{named(hold)}{' with these settings' if same else ''}"
        ends = "Other settings or another revision end" if same else "A revision that is neither of both ends"
        self.cutover.warnings.append(
            f"{self.layout.name}: {what} was not released: it is held {held_by(hold)}. {self.version} goes on "
            f"serving{settings}. {ends} the hold, and so does {AGAIN}."
        )
        return True

    def _live(self):
        """Id of the release that serves. Where live.sock leads to none, it is led back to what went on."""
        live = self.layout.live_id()
        if live or not os.path.isdir(self.layout.releases) or self.params["until"] == "abort":
            return live
        live = upkeep.running(self.layout, self.shell)
        if live and not self.lock.pending(self.params["run"]):
            self.result["changed"] = True
            if not self.check:
                with self._locked():
                    self._say(upkeep.lead_back(self.layout, live))
        return live

    def _keep(self, live, manifest):
        """Put right what is around the live release, and of it what is known; what else is damaged remains."""
        layout = self.layout
        if not live or manifest is None:
            return
        wrong = upkeep.problems(layout, live, self.shell)
        damage = intact.check(layout, live)
        if damage and not self.check:
            intact.restore(layout, live, release_files(self.params))
            for id_ in layout.ids() if any(item.give for item in damage) else ():
                intact.restore(layout, id_, {})
            self.damage = intact.check(layout, live)
            given = [item for item in damage if item.path not in {left.path for left in self.damage}]
            if given:
                self._say(f"release {live} was not as it was made: {intact.summary(given)}")
        elif damage:
            self._say(f"release {live} is damaged: {intact.summary(damage)}")
        if self.damage:
            self.cutover.facts["damage"] = text = intact.summary(self.damage)
            self._say(f"release {live} is damaged: {text}. It goes on until another one takes its place")
        if wrong and self.check:
            self._say("it would be put right that " + ", and that ".join(words for words, _do in wrong))
        elif wrong:
            with self._locked():
                for words, do in wrong:
                    do()
                    self._say(words)
        self.result["changed"] = self.result["changed"] or bool(wrong or damage)
        if not self.check:
            intact.adopt(layout)

    def _say(self, words):
        self.cutover.warnings.append(f"{self.layout.name}: {words}.")

    def _is_settled(self, live):
        """Whether the live release runs as it should, and nothing is left over of a run that did not end."""
        return (
            self.layout.state(live)["state"] == "good"
            and not Order(self.layout).pending
            and Instance(self.layout, live, self.shell).serves()
            and not strangers(self.layout, live)
            and not is_stale(self.lock.read())
        )

    def _needs_upload(self):
        needed = self.source.is_local and not self.params["upload"] and self.params["until"] != "lock"
        if needed:
            self.result["need_upload"] = True
        return needed

    def _go_on(self, pending):
        if pending["stage"] == "lock" and self._needs_upload():
            return
        self.id, self.previous, self.data = pending["release"], pending["previous"] or None, pending["data"]
        self.version = pending.get("version", self.version)
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
                version=self.version,
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
        resolved = self.params.get("resolved") or {}
        if resolved.get("asked") == self._asked():
            self.result["revision"] = resolved["revision"]
            return resolved["revision"]
        if self.source.type == "git" and self.check and not self._can_resolve():
            self.cutover.warnings.append(
                f"The revision of {redact_url(self.source.location)} is not known: git or the app's build account "
                f"{self.layout.build_account} is not there yet."
            )
            return "unknown"
        try:
            self.result["revision"] = self.source.revision()
        except ReleaseError as exc:
            if exc.phase != "lock" or self.check or not self.params["break_lock"]:
                raise
            # The run that is to be ended builds just now.
            self.lock.end_holder()
            self.result["revision"] = self.source.revision()
        return self.result["revision"]

    def _can_resolve(self):
        return shutil.which("git") and os.path.isdir(self.layout.fetched)

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
        """What every release needs: the accounts, and directories. Also closes what earlier versions left open."""
        layout = self.layout
        accounts.ensure(layout, self.run_command)
        user = pwd.getpwnam(layout.name)
        for words in upkeep.keep_directories(layout, bool(self._published(shared=True))):
            self.result["changed"] = True
            self._say(words)
        if self.lock.is_free():
            history.tidy(layout)
        # Of 0.2.0: a mirror that everybody could read, and a cache that every build could write.
        for path in (layout.old_repository, os.path.join(layout.cache, "uv")):
            remove(path)
        for name in os.listdir(layout.venvs):
            close(os.path.join(layout.venvs, name), 0o750, user.pw_gid)
        for id_ in layout.ids():
            self._close_configuration(id_, user.pw_gid)

    def _close_configuration(self, id_, gid):
        for name, mode in CLOSED.items():
            close(self.layout.release(id_, name), mode, gid)

    @property
    def _source(self):
        return self.layout.release(self.id, "src")

    @property
    def _project(self):
        return os.path.join(self._source, self.params["subdirectory"])

    def _hook(self, point):
        self.cutover.hook(point, self.id, self.previous, self.params)

    def _fetch(self):
        group = grp.getgrnam(self.layout.name).gr_gid
        builder = pwd.getpwnam(self.layout.build_account)
        with self.cutover.phase("fetch"):
            self._nobody_builds()
            self._empty_scratch()
            make_directory(self.layout.release(self.id), 0, group, 0o751)
            make_directory(self._source, builder.pw_uid, builder.pw_gid, 0o700)
            self.source.fetch(self._source, self.data["source"]["revision"])
            try:
                os.close(open_below(self._source, self.params["subdirectory"]))
            except OSError as exc:
                raise ReleaseError(
                    "fetch", f"subdirectory '{self.params['subdirectory']}' is not a directory of the source."
                ) from exc
        self.cutover.build_hook("before_build", self.id, self.previous, self.params)

    def _empty_scratch(self):
        """It is there between runs, too: a prediction asks the source for its revision, and makes nothing."""
        builder = pwd.getpwnam(self.layout.build_account)
        remove(self.layout.scratch)
        make_directory(self.layout.scratch, builder.pw_uid, builder.pw_gid, 0o700)

    def _build(self):
        with self.cutover.phase("build"):
            self._nobody_builds()
            tools = Tools(self.params, self.shell)
            build = Build(self.params, self.layout, self.cage, tools, self.data, self._source)
            venv = self.layout.release(self.id, "venv")
            made = build.ensure(bool(self.params.get("rebuild")))
            os.symlink(os.path.relpath(made, os.path.dirname(venv)), venv)
        if build.damage:
            self._say(f"a virtual environment is damaged and is not used again: {intact.summary(build.damage)}")
        self.cutover.build_hook("after_build", self.id, self.previous, self.params)

    def _seal(self):
        """Close the release to change, and look whether it can run at all. With its manifest it is complete."""
        top = self.layout.release(self.id)
        python = os.path.join(os.path.realpath(os.path.join(top, "venv")), "bin", "python")
        with self.cutover.phase("build"):
            # The app may not write beside its code, so what is not compiled now is compiled at every start.
            # By the interpreter itself: the environment is closed to the build account.
            compile_all = [os.path.realpath(python), "-I", "-m", "compileall", "-q", self._project]
            self.cage.build(compile_all, "build", "cannot compile", check=False, writable=[self._source])
            self._nobody_builds()
            self._close(self._source)
            self._empty_scratch()
            group = grp.getgrnam(self.layout.name).gr_gid
            for path, text in release_files(self.params).items():
                mode = file_mode(path)
                write_file(os.path.join(top, path), text, mode, group=group if mode & 0o040 else -1)
            self._share()
        with self.cutover.phase("check"):
            found = self._check_units(self.id, self.previous)
            self._check_app(self.id, self._project, python)
        self._close_configuration(self.id, grp.getgrnam(self.layout.name).gr_gid)
        intact.seal(self.layout, self.id)
        manifest = {
            "id": self.id,
            "digest": digest(self.data),
            "created": now(),
            "by": self.params["who"],
            "source": redact_url(self.params["source"]),
            "version": self.version,
            "exposure": found,
            "format": MANIFEST_FORMAT,
            "sequence": self.cutover.order.take(),
            "inputs": self.data,
            "serve": {key: self.params[key] for key in SERVE},
        }
        write_file(os.path.join(top, "manifest.json"), json.dumps(manifest, indent=2, sort_keys=True) + "\n", 0o600)

    def _nobody_builds(self):
        """Make sure that no process of the build account is left. A unit ends with all that it started; this looks.

        What another run started to ask the source for its revision may go on: it runs nothing of the app's.
        """
        accounts.end_builds(self.layout, [f"/fastapi-build-{self.layout.name}@resolve-"])

    def _share(self):
        """Put links into the app's shared directory in the place of the shared paths. Links in the tree are root's."""
        shared, paths = self.layout.shared, self.params["shared_paths"]
        if any(not os.path.lexists(os.path.join(shared, path)) for path in paths):
            command = ["/bin/sh", "-c", SEED, "seed", shared, *paths]
            message = "cannot fill the shared paths"
            self.cage.app(self.id, command, "build", message, cwd=self._project, writable=[shared])
        for path in paths:
            replace_by_link(self._source, os.path.join(self.params["subdirectory"], path), os.path.join(shared, path))
        group = grp.getgrnam(self.params["socket_group"]).gr_gid
        for path in self._published(shared=True):
            let_read(shared, path, group)

    def _published(self, shared):
        """The static directories that lie in shared paths, or the others."""
        paths = map(os.path.normpath, self.params["static_paths"])
        return [
            path
            for path in paths
            if any(f"{path}/".startswith(f"{kept}/") for kept in self.params["shared_paths"]) is shared
        ]

    def _migrate(self):
        before = self.layout.manifest(self.previous) if self.previous else None
        # A rebuilt release has been migrated to already.
        if self.params["migrate"] and (before is None or before["digest"] != digest(self.data)):
            self._hook("migrate")

    def _ready(self):
        self.cutover.ready(self.id, self.previous, self.params)

    def _switch(self):
        order = self.cutover.order
        guard = self.params["guard"] if self._is_guarded() else {}
        manifest = self.layout.manifest(self.previous) if self.previous else None
        serving = manifest["inputs"]["source"]["revision"] if manifest else ""
        holds = order.holds()
        if self.id != self.previous:
            holds = order.holds_after_deploy(self.data["source"]["revision"], serving)
        order.note(self.id, self.previous, order.forward(self.id), holds, guard=guard)
        self.cutover.switch(self.id, self.previous)
        self._hook("after_switch")

    def _is_guarded(self):
        return bool(self.previous and self.previous != self.id and self.params["guard"]["seconds"])

    def _done(self):
        guard = self.params["guard"]
        if self._is_guarded():
            self.cutover.guard(self.id, guard["access_log"] or self.layout.log("access"), guard)
        facts = {"deployed": now(), "by": self.params["who"]}
        if not self.cutover.settle_order(**facts):
            self.cutover.mark(self.id, "good", **facts)
        if self.previous and self.previous != self.id:
            self.cutover.finish(self.previous)
        found = {"damage": self.cutover.facts["damage"]} if "damage" in self.cutover.facts else {}
        self.cutover.record("deploy", self.id, self.previous, "good", phases=self.cutover.phases, **found)
        self.cutover.prune(self.id, self.params["keep"])
        if self.previous and self.previous != self.id and (damage := self.cutover.facts.get("damage")):
            # Kept until the next good deploy, and never gone back to.
            self.cutover.mark(self.previous, "failed", phase="damage", reason=damage, since=now())

    def _close(self, source):
        """Code is root's, and readable by the app alone; nginx reads the static directories and finds no others."""
        group = grp.getgrnam(self.layout.name).gr_gid
        published = [os.path.join(self.params["subdirectory"], path) for path in self._published(shared=False)]
        # nginx passes through the parents of a link into the shared directory, too.
        passed = [os.path.join(self.params["subdirectory"], path) for path in self.params["shared_paths"]]
        links = take_over(source, pwd.getpwnam(self.layout.build_account).pw_uid, Modes(0, group), published, passed)
        if links:
            more = f" and {len(links) - 1} more" if len(links) > 1 else ""
            self.cutover.warnings.append(
                f"{self.layout.name}: {links[0]!r}{more} in a static directory is a link, which nginx refuses. Copy "
                "its target, or set nginx.static[].links to same_owner."
            )

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
        timeout = self.params["timeout_start"]
        program = self.layout.release(id_, "lib", "fastapi_check.py")
        output, code = self.cage.app(
            id_,
            [python, program, "--config", config, "--result", "{out}/check.json", "--timeout", str(timeout)],
            "check",
            "gunicorn cannot load the app",
            cwd=project,
            timeout=timeout + GONE,
            env={"FASTAPI_RELEASE": id_, "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
            collect="check.json",
        )
        result = self.cage.collected.encode()
        error = preload.parse_error(result)
        if code or error:
            raise ReleaseError("check", error or f"gunicorn cannot load the app (ended with {code})", output)
        setting, findings = self.params["preload_app"], preload.parse_findings(result)
        document = preload.preload_document(setting, self.params["preload_unsafe"], findings)
        group = grp.getgrnam(self.layout.name).gr_gid
        write_file(self.layout.release(id_, preload.FILE), document, file_mode(preload.FILE), group=group)
        if warning := preload.warning(setting, findings):
            self.cutover.warnings.append(f"{self.layout.name}: {warning}")


def close(path, mode, group):
    """Close what 0.2.0 left readable for everybody. It is root's, and lies in a directory of root's."""
    found = os.lstat(path) if os.path.lexists(path) else None
    if found and found.st_uid == 0 and found.st_mode & 0o007 and not stat.S_ISLNK(found.st_mode):
        os.chown(path, 0, group)
        os.chmod(path, mode)
