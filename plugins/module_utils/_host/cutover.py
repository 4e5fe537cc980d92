# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way from the release that serves to another one that is complete: for a deploy, a rollback, and back again."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager

from . import environment
from .cage import PATH, Cage
from .guard import FLUSH, AccessLog, Traffic, compared, judge
from .history import append
from .lock import Lock, describe, locked, now
from .order import Order
from .records import set_aside
from .redact import redact
from .release import (
    STATE_FORMAT,
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
    answer,
    remove_release,
    remove_unused_venvs,
    strangers,
)
from .text import safe
from .upkeep import mounted_noexec

# Seconds: the least that graceful_timeout can be, less those that the worker keeps of it.
SOONEST_CUT = 2
# Where a release that was good before fails by itself when users are to be sent back to it.
OWN_FAULTS = {"start", "readiness", "before_switch", "after_switch"}
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
        self._order = None
        self.phases = {}
        self.warnings = []
        # What must not be shown, by name.
        self.secrets = {}
        self.facts = {}
        # Whether the release before was told to stop: from then on there is no way back to it.
        self.drained = False

    @property
    def order(self):
        """The order of the releases, for who holds the lock."""
        if self._order is None:
            self._order = Order(self.layout)
        return self._order

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
        self.set_aside()
        self.settle_order()
        for id_ in strangers(self.layout, live):
            if id_ not in keep:
                Instance(self.layout, id_, self.shell).stop()
        for id_ in self.layout.ids():
            if id_ != live and self.layout.is_incomplete(id_):
                remove_release(self.layout, id_)

    def set_aside(self):
        """Name the state files that do not fit, and put others in their place."""
        self.warnings += self.lock.notes
        if self.order.damage:
            self.warnings.append(set_aside(self.layout.order, self.order.damage))
        self.warnings += [set_aside(path, why) for path, why in list(self.layout.damaged())]

    def settle_order(self, **facts):
        """What the last switch has made of the order counts from now on, also where the run died that switched."""
        pending = self.order.pending
        if pending:
            facts = {"deployed": self.layout.state(pending["id"]).get("deployed") or now(), **facts}
            self.mark(pending["id"], "good", sequence=pending["sequence"], **facts)
            if pending["left"] and self.layout.manifest(pending["previous"]):
                self.mark(pending["previous"], "rolled back", **pending["left"])
        self.order.settle()
        return bool(pending)

    def mark(self, id_, state, **facts):
        """Note what became of a release."""
        found = {**self.layout.state(id_), "format": STATE_FORMAT, "state": state, **facts}
        text = json.dumps(found, sort_keys=True)
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
        if previous and outcome == "good":
            changed = environment.names(*(environment.of(self.layout, each) for each in (previous, id_)))
            line.update({"env_changed": changed} if changed else {})
        try:
            said = append(self.layout, line)
            self.warnings += [said] if said else []
        except OSError as exc:
            said = f"{self.layout.history} has no line of this {action}: {exc.strerror}."
            self.warnings.append(f"{self.layout.name}: {said}")

    def prune(self, live, keep):
        releases = self.layout.releases_by_age()
        kept = self.order.kept(releases) | {live}
        for id_ in prunable(releases, kept, self.order.way_back(releases), keep):
            remove_release(self.layout, id_)
        self.order.forget(set(self.order.served()) - {*self.layout.ids(), live})
        remove_unused_venvs(self.layout)

    def forget(self, live):
        """Remove the releases with another environment than the one that serves, and so their secrets."""
        gone = environment.outdated(self.layout, live)
        for id_ in gone:
            remove_release(self.layout, id_)
        remove_unused_venvs(self.layout)
        self.order.forget(gone)
        if gone and not self.order.way_back(self.layout.releases_by_age()):
            self.warnings.append(f"{self.layout.name}: no release is left to which a rollback could go.")

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
        deadline = guard_deadline(begun, guard)
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
                final = time.monotonic() > deadline
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

    def judge_left(self, live):
        """Judge the release that a run switched to and died before it had judged it. What is wrong with it, or nothing.

        Where it is found wanting, users are sent back to the release before, as that run would have done.
        """
        left = self.order.unjudged if self.layout.live_id() == live else {}
        if not left:
            self._say_unknown(live)
            return ""
        wrong, unknown = self.evidence(left["guard"])
        previous = left["previous"]
        if unknown:
            self.warnings.append(
                f"{self.layout.name}: the run that switched to release {live} ended before its guard did, and it "
                f"cannot be judged any more: {unknown}. It goes on serving."
            )
        if not wrong:
            return ""
        found = ReleaseError("guard", f"{wrong}. The run that switched to release {live} had ended before it saw that.")
        try:
            settings = serve_settings(self.layout, previous)
            self.ready(previous, live, settings)
        except ReleaseError as exc:
            self.warnings.append(
                f"{self.layout.name}: {found.message} Release {previous} cannot take its place, so it goes on serving: "
                f"{redact(exc.message, self.secrets)}"
            )
            Instance(self.layout, previous, self.shell).discard()
            self.order.settle()
            self.mark(live, "failed", phase="guard", reason=found.message, since=now())
            return ""
        self.fail(found, live, previous, settings, "deploy")
        return found.message

    def _say_unknown(self, live):
        """Say so where a run of before 0.3 died in its guard: it has noted nothing to judge by."""
        died = self.lock.found.get("phase") in {"switch", "after_switch", "guard"}
        if died and live and not self.order.pending and self.layout.state(live)["state"] == "built":
            self.warnings.append(
                f"{self.layout.name}: the run that switched to release {live} ended before its guard did and has noted "
                "nothing to judge it by. It goes on serving."
            )

    def evidence(self, guard):
        """What nginx's log says about a release that was not judged: what is wrong, and why that cannot be known."""
        path = guard["access_log"] or self.layout.log("access")
        # Made by the switch.
        begun = os.lstat(self.layout.live).st_mtime
        deadline = guard_deadline(begun, guard)
        with self.phase("guard"):
            while time.monotonic() < deadline:
                time.sleep(0.5)
        seen = AccessLog(path, self.layout.name).recent(begun - guard["baseline"])
        before, after = (
            Traffic([item for item in seen if first <= item.begun < last], guard["seconds"])
            for first, last in ((0, begun), (begun, begun + guard["seconds"]))
        )
        if not before.count:
            return "", f"{path} has no request from the {guard['baseline']} s before its switch at {now(begun)}"
        return judge(before, after, guard, True), ""

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
        exc.message += noexec(self.layout)
        message = redact(exc.message, self.secrets)
        with self._noting():
            if self.layout.live_id() != id_:
                self.order.settle()
        with self._noting():
            if self.layout.is_incomplete(id_):
                remove_release(self.layout, id_)
            elif action == "deploy" and self.layout.live_id() != id_:
                self.mark(id_, "failed", phase=exc.phase, reason=message, since=now())
            elif self.layout.live_id() != id_ and exc.phase in OWN_FAULTS:
                self.mark(id_, "does not start", phase=exc.phase, reason=message, since=now())
            self.record(action, id_, previous, "failed", phase=exc.phase, message=message)
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

    def go_to(self, id_, previous, settings, hold=False, instead_of=""):
        """The whole way to a release that was good before: for a rollback, and for a fleet that gives up a release.

        :arg hold: whether the release that users leave is held
        :arg instead_of: release in whose place on the way back this one comes
        """
        self.ready(id_, previous, settings)
        order = self.order
        is_back = order.is_back(instead_of or id_)
        left, target = self.layout.manifest(previous) if previous else None, self.layout.manifest(id_)
        holds = order.holds()
        if hold:
            holds = order.holds_after_rollback(target, left, self.who, now(), self.reason)
        order.note(
            id_,
            previous,
            order.back(id_, instead_of) if is_back else order.forward(id_),
            holds,
            left={"since": now(), "reason": self.reason} if hold and is_back and previous not in {None, id_} else None,
        )
        self.switch(id_, previous)
        self.hook("after_switch", id_, previous, settings)
        self.settle_order()
        if previous and previous != id_:
            self.finish(previous)


def guard_deadline(begun, guard):
    """When all that the guard looks at is in the log, by time.monotonic(); at most its length from now on."""
    longest = guard["seconds"] + FLUSH
    return time.monotonic() + min(max(begun + longest - time.time(), 0), longest)


def noexec(layout):
    """The sentence about a file system from which no compiled module of a package can be loaded, or nothing."""
    point = mounted_noexec(layout.base)
    if not point:
        return ""
    return (
        f" {point} is mounted noexec, so Python cannot load compiled modules from there: run mount -o remount,exec "
        f"{point}, and remove noexec from /etc/fstab."
    )


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
    still = still_serves(layout)
    output = redact(journal_text(exc.output.strip().splitlines()), secrets)
    # Who is refused by a lock, or names no release, has not failed at anything.
    what = "" if exc.phase in {"lock", "choose"} else f"{exc.phase} failed: "
    text = f"{layout.name}: {what}{redact(exc.message, secrets)}\n{still}"
    return safe(text + ("\n" + output if output else ""))


def still_serves(layout):
    """What users have now, by asking for it."""
    live = layout.live_id()
    if not live:
        return "No release of it is live."
    status, outcome = answer(layout, live)
    if 200 <= status < 300:
        return f"Release {live} goes on serving."
    return f"Release {live} is live and does not serve: {outcome}."


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
