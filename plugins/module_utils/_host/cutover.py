# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way from the release that serves to another one that is complete: for a deploy, a rollback, and back again."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager

from .cage import PATH, Cage
from .guard import FLUSH, AccessLog, Traffic, compared, judge
from .history import append
from .lock import Lock, describe, locked, now
from .redact import redact
from .release import (
    ReleaseError,
    env_values,
    journal_text,
    prunable,
    read_text,
)
from .shell import write_file
from .switch import (
    SETTLE,
    Instance,
    remove_release,
    remove_unused_venvs,
    strangers,
)
from .text import safe

# Seconds: the least that graceful_timeout can be, less those that the worker keeps of it.
SOONEST_CUT = 2
# Of the settings of a deploy, what a release needs to serve. Kept in its manifest, so that a rollback asks nobody.
SERVE = ("domain", "health", "hooks", "hook_timeout", "timeout_start", "timeout_stop")


class Cutover:
    """One run over one app: its lock, its phases, and the cutover. `settings` are those named in SERVE."""

    def __init__(self, layout, shell, who, reason):
        self.layout = layout
        self.shell = shell
        self.cage = Cage(layout, shell)
        self.who = who
        self.reason = reason
        self.lock = Lock(layout)
        self.phases = {}
        self.warnings = []
        # What must not be shown, by name.
        self.secrets = {}
        self.facts = {}
        # Whether the release before was told to stop: from then on there is no way back to it.
        self.drained = False

    # what every run does

    @contextmanager
    def phase(self, name):
        begun = time.monotonic()
        self.lock.note(phase=name)
        try:
            yield
        finally:
            self.phases[name] = round(self.phases.get(name, 0) + time.monotonic() - begun, 2)

    def repair(self, live, keep=()):
        """Take away what an interrupted run left: units that are not live, releases that are not complete."""
        if self.layout.live_id() != live:
            raise ReleaseError("lock", "another run has just changed it. Look what serves now, and run this one again.")
        found = self.lock.found
        if found.get("held"):
            self.warnings.append(f"{self.layout.name} was locked by {describe(found)}. That lock counts no more.")
        elif found:
            self.warnings.append(f"An earlier run did not end: {describe(found)}. What it left was taken away.")
        if found:
            self.cage.end_leftovers()
        for id_ in strangers(self.layout, live):
            if id_ not in keep:
                Instance(self.layout, id_, self.shell).stop()
        for id_ in self.layout.ids():
            if id_ != live and self.layout.manifest(id_) is None:
                remove_release(self.layout, id_)

    def mark(self, id_, state, **facts):
        """Note what became of a release."""
        text = json.dumps({**self.layout.state(id_), "state": state, **facts}, sort_keys=True)
        write_file(self.layout.release(id_, "state.json"), text + "\n", 0o600)

    def record(self, action, id_, previous, outcome, **facts):
        """Add a line to the app's history."""
        manifest = self.layout.manifest(id_) or {"version": "", "inputs": {"source": {"revision": ""}}}
        line = {
            "time": now(),
            "app": self.layout.name,
            "action": action,
            "release": id_,
            "previous": previous or "",
            "version": manifest["version"],
            "revision": manifest["inputs"]["source"]["revision"],
            "by": self.who,
            "reason": self.reason,
            "outcome": outcome,
            **facts,
        }
        append(self.layout, line)

    def prune(self, live, keep):
        for id_ in prunable(self.layout.releases_by_age(), live, keep):
            remove_release(self.layout, id_)
        remove_unused_venvs(self.layout)

    def hook(self, point, id_, previous, settings, **facts):
        """Run the commands of a hook of a release that is sealed: as the app's user, in the sandbox of its service."""
        release = self.layout.release(id_)
        project = os.path.join(release, "src", settings["subdirectory"])
        for command in settings["hooks"][point]:
            with self.phase(point):
                self.cage.app(
                    id_,
                    ["/bin/sh", "-c", command],
                    point,
                    "the hook failed",
                    shown=f"'{command}'",
                    cwd=project if os.path.isdir(project) else self.layout.base,
                    timeout=settings["hook_timeout"],
                    env=self.hook_env(point, id_, previous, HOME=self.layout.cache, **facts),
                    writable=[self.layout.cache],
                )

    def build_hook(self, point, id_, previous, settings):
        """Run the commands of a hook while a release is made: as the build account, which may write to the project."""
        source = os.path.join(self.layout.release(id_), "src")
        for command in settings["hooks"][point]:
            with self.phase(point):
                self.cage.build(
                    ["/bin/sh", "-c", command],
                    point,
                    "the hook failed",
                    shown=f"'{command}'",
                    cwd=os.path.join(source, settings["subdirectory"]),
                    timeout=settings["hook_timeout"],
                    env={
                        **settings["build_env"],
                        **settings["env"],
                        "TMPDIR": self.layout.scratch,
                        **self.hook_env(point, id_, previous, HOME=self.layout.scratch),
                        "PATH": f"{self.layout.release(id_)}/venv/bin:{PATH}",
                    },
                    writable=[source, self.layout.scratch],
                    packages=point == "after_build",
                )

    def hook_env(self, point, id_, previous, **facts):
        return {
            "FASTAPI_APP": self.layout.name,
            "FASTAPI_HOOK": point,
            "FASTAPI_RELEASE": id_,
            "FASTAPI_PREVIOUS": previous or "",
            **facts,
        }

    def outcome(self):
        """What a module returns of the run."""
        return {"phases": self.phases, **{key: value for key, value in self.facts.items() if key != "served"}}

    # the cutover

    def ready(self, id_, previous, settings):
        """Start the release beside the one that serves and wait until it answers; nobody is sent to it."""
        instance = Instance(self.layout, id_, self.shell)
        with self.phase("start"):
            instance.start(settings["timeout_start"])
        with self.phase("ready"):
            instance.wait_ready(settings["domain"], settings["health"])
        self.hook("before_switch", id_, previous, settings)

    def switch(self, there, away):
        """Send users to a release. Enabled before and the other disabled after it: a reboot starts what serves."""
        with self.phase("switch"):
            instance = Instance(self.layout, there, self.shell)
            instance.enable()
            instance.switch(away)
            self.facts["served"] = time.time()
            if away and away != there:
                Instance(self.layout, away, self.shell).disable()

    def guard(self, id_, access_log, guard):
        """Watch what nginx logs. ReleaseError when the release does worse than the one before."""
        begun = self.facts["served"]
        log = AccessLog(access_log, self.layout.name)
        seen = log.recent(begun - guard["baseline"])
        before = Traffic([item for item in seen if item.begun < begun], guard["seconds"])
        if not before.count:
            return  # nothing to compare with
        after = [item for item in seen if item.begun >= begun]
        instance = Instance(self.layout, id_, self.shell)
        with self.phase("guard"):
            final = False
            while not final:
                final = time.time() > begun + guard["seconds"] + FLUSH
                after += [item for item in log.more() if item.begun >= begun]
                traffic = Traffic(after, guard["seconds"])
                judged = [item.facts() for item in compared(before, traffic, guard)]
                self.facts["guard"] = dict(zip(("before", "after"), judged))
                wrong = judge(before, traffic, guard, final)
                if not wrong and instance.restarted():
                    wrong = f"{instance.service} ended and was started again"
                if wrong:
                    raise ReleaseError("guard", wrong + ".")
                time.sleep(0.5)

    def settle(self):
        """systemd reads which units there are now. Else it calls all units of the host outdated, at every call."""
        with self._noting():
            self.shell.run(["systemctl", "daemon-reload"], "switch", "systemd cannot be reloaded")

    def finish(self, previous):
        """Let the release before end what it is doing, and stop it."""
        self.drained = True
        with self.phase("drain"):
            time.sleep(SETTLE)
            instance = Instance(self.layout, previous, self.shell)
            since = time.time()
            instance.stop()
            # Nothing is cut in the worker's first seconds, and journalctl takes a tenth of one.
            cut = instance.cut(since) if time.time() > since + SOONEST_CUT else {}
        if any(cut.values()):
            self.facts["cut"] = cut
            self.warnings.append(
                f"{self.layout.name}: {cut['requests']} requests and {cut['websockets']} WebSockets were still open in "
                f"release {previous} when gunicorn.graceful_timeout ended, and were cut."
            )

    def fail(self, exc, id_, previous, settings, action):
        """After a failure: users are where they were before, the release is stopped and marked. Adds what it said."""
        instance = Instance(self.layout, id_, self.shell)
        installed = os.path.exists(self.layout.unit_paths(id_)[1])
        said = instance.journal() if installed else ""
        if said:
            exc.output = f"{exc.output.rstrip()}\nThe last lines of {instance.service}:\n{said}".lstrip()
        with self._noting():
            if self.layout.live_id() != id_:
                if installed:
                    instance.discard()
            elif previous and previous != id_ and not self.drained:
                self.switch(previous, id_)
                exc.message = f"{exc.message.rstrip('.')}. Users were sent back."
                instance.stop()
        message = redact(exc.message, self.secrets)
        with self._noting():
            if self.layout.manifest(id_) is None:
                remove_release(self.layout, id_)
            elif action == "deploy" and self.layout.live_id() != id_:
                self.mark(id_, "failed", phase=exc.phase, reason=message, since=now())
            self.record(action, id_, previous, "failed", phase=exc.phase, message=message)
        if installed:
            self.settle()
        with self._noting():
            facts = {"FASTAPI_PHASE": exc.phase, "FASTAPI_MESSAGE": message}
            self.hook("after_failure", id_, previous, settings, **facts)

    @contextmanager
    def _noting(self):
        """What goes wrong after a failure must not hide it."""
        try:
            yield
        except (ReleaseError, OSError) as exc:
            text = f"{exc.message}\n{exc.output.strip()}" if isinstance(exc, ReleaseError) else str(exc)
            self.warnings.append(redact(text, self.secrets))

    def go_to(self, id_, previous, settings):
        """The whole way to a release that was good before: for a rollback, and for a fleet that gives up a release."""
        self.ready(id_, previous, settings)
        self.switch(id_, previous)
        self.hook("after_switch", id_, previous, settings)
        self.mark(id_, "good")
        if previous and previous != id_:
            self.finish(previous)
        self.settle()


def serve_settings(layout, id_):
    """What a release needs to serve, from its own files."""
    manifest = layout.manifest(id_)
    if not manifest or "serve" not in manifest:
        raise ReleaseError("choose", f"release {id_} is not complete.")
    return {
        **manifest["serve"],
        "subdirectory": manifest["inputs"]["source"]["subdirectory"],
        "env": env_values(read_text(layout.release(id_, "env"))),
    }


def failure_text(layout, exc, secrets):
    """A failure for people: what failed, what serves now, and what the app or the tool said."""
    live = layout.live_id()
    still = f"Release {live} goes on serving." if live else "No release of it serves yet."
    output = redact(journal_text(exc.output.strip().splitlines()), secrets)
    # Who is refused by a lock, or names no release, has not failed at anything.
    what = "" if exc.phase in {"lock", "choose"} else f"{exc.phase} failed: "
    text = f"{layout.name}: {what}{redact(exc.message, secrets)}\n{still}"
    return safe(text + ("\n" + output if output else ""))


def run_to_end(module, make):
    """What a module does with the work that `make` makes: `run()` it, and return its `result`, or fail with why.

    `work` has a `cutover` and a `layout` too.
    """
    failure = None
    try:
        work = make()
    except ReleaseError as exc:
        module.fail_json(msg=safe(exc.message), phase=exc.phase)
    try:
        work.run()
    except ReleaseError as exc:
        failure = exc
    for warning in work.cutover.warnings:
        module.warn(safe(warning))
    if failure:
        text = failure_text(work.layout, failure, work.cutover.secrets)
        module.fail_json(msg=text, **{**work.result, "changed": False, "phase": failure.phase, **locked(failure)})
    module.exit_json(**work.result)
