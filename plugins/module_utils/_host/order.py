# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which releases of an app came to serve, and what is held: `/srv/<app>/order.json`.

Order is a number that grows with each release and each switch, under the app's lock. The clock has no part in it.

`served` is the way back: the release that serves comes last, and before it the one to which a rollback goes. A deploy
adds to its end. A rollback takes away what lies behind its target, so that nothing it passed over is offered again.
A release that lies nowhere on the way, such as one that was rolled back before, is added like a new one when somebody
names it.

The switch itself is the rename of a link. What the order becomes with it is written down before, as `next`, and counts
from the moment on at which the link names that release. So a run may die on either side. `next` stays until the release
was judged: a later run finds there what a dead one has left unjudged, with the facts to judge by.
"""

from __future__ import annotations

import json

from . import records
from .redact import redact_url
from .release import ReleaseError, is_named, short
from .shell import write_file
from .text import one_line

FORMAT = 1
HOLD = {"revision": str, "digest": str, "release": str, "version": str, "by": str, "since": str, "reason": str}
SHAPE = {
    "format": int,
    "sequence": int,
    "served": [str],
    "replaced": str,
    "holds": [HOLD],
    # Nothing, or all of this.
    "next": {
        "id?": str,
        "sequence?": int,
        "served?": [str],
        "previous?": str,
        "holds?": [HOLD],
        "left?": dict,
        "guard?": dict,
    },
}
# What ends a hold, in messages.
AGAIN = "-e release_again=true"
# What a rollback may go to by itself, and what it may go to when it is named.
OFFERED = {"good", "built"}
NAMEABLE = {"good", "built", "rolled back", "does not start"}


class Order:
    """The order of an app's releases, as it is now. Changes are for who holds the lock."""

    def __init__(self, layout):
        self.layout = layout
        self.path = layout.order
        content, self.damage = records.read(self.path, SHAPE, FORMAT)
        self.is_new = content is None
        self.content = content or self._taken_over()

    def _taken_over(self):
        """The order of a host without this file: releases before 0.3 told it by their times alone."""
        layout = self.layout
        live, before = layout.live_id(), layout.previous_id()
        releases = layout.releases_by_age()
        served = [
            item["id"]
            for item in releases
            # 0.1 noted no states: of its releases, the links tell which served.
            if item["state"] == "good" or item["id"] == live or (item["state"] == "built" and item["id"] == before)
        ]
        return {
            "format": FORMAT,
            "sequence": max((item["sequence"] for item in releases), default=0),
            "served": served,
            "replaced": before if before != live and before in served else "",
            "next": {},
            "holds": [],
        }

    def _write(self):
        write_file(self.path, json.dumps(self.content, indent=1, sort_keys=True) + "\n", 0o600)
        self.is_new = False

    # -- what counts

    @property
    def pending(self):
        """What the last switch makes of the order, where that is not settled yet; or nothing."""
        found = self.content["next"]
        return found if found and found.get("id") == self.layout.live_id() else {}

    @property
    def unjudged(self):
        """The same where a guard was to judge the release, and has not."""
        found = self.pending
        if not found or not found["guard"]:
            return {}
        state = self.layout.state(found["id"])
        return {} if state["state"] == "good" and state.get("sequence") == found["sequence"] else found

    def served(self):
        """Ids of the way back, the one that serves last."""
        live, served = self.layout.live_id(), (self.pending or self.content)["served"]
        if live is None:
            return list(served)
        # Whatever else sent users there: what serves is where the way back begins.
        return [*(served[: served.index(live)] if live in served else served), live]

    def replaced(self):
        """Id of the release that served directly before the one that serves, or nothing."""
        pending = self.pending
        if pending and pending["previous"] != pending["id"]:
            return pending["previous"]
        return self.content["replaced"]

    def holds(self):
        return (self.pending or self.content)["holds"]

    def way_back(self, releases):
        """Ids to which rollbacks lead from here, the first one first."""
        live = self.layout.live_id()
        states = {item["id"]: item["state"] for item in releases}
        return [id_ for id_ in reversed(self.served()) if id_ != live and states.get(id_) in OFFERED]

    def target(self, releases, wanted=""):
        """The release to go back to: without `wanted` the one before what serves. ReleaseError without any."""
        live = self.layout.live_id()
        if wanted:
            named = [item for item in releases if is_named(item, wanted)]
            fit = [item for item in named if item["id"] == live or item["state"] in NAMEABLE]
            if fit:
                return fit[-1]["id"]
            reason = f"it is {named[-1]['state']}" if named else "there is none of that name"
            raise ReleaseError("choose", f"cannot go to release '{wanted}': {reason}. {offered(releases, live)}")
        back = self.way_back(releases)
        if not back:
            raise ReleaseError(
                "choose",
                f"there is no earlier release that was good. To go to another, name it. {offered(releases, live)}",
            )
        return back[0]

    def kept(self, releases):
        """Ids that are never pruned: what serves, what it replaced, and what a rollback would choose."""
        return {self.layout.live_id(), self.replaced(), *self.way_back(releases)[:1]} - {None, ""}

    # -- what changes it

    def take(self):
        """The next number."""
        self.content["sequence"] += 1
        self._write()
        return self.content["sequence"]

    def note(self, id_, previous, served, holds, left=None, guard=None):
        """Write down what the order becomes when users are sent to a release; the number of this switch.

        :arg left: facts for the state of the release that users are sent back from
        :arg guard: by what the release is to be judged
        """
        self.content.update(served=self.served(), replaced=self.replaced(), holds=self.holds())
        self.content["sequence"] += 1
        self.content["next"] = {
            "id": id_,
            "sequence": self.content["sequence"],
            "served": served,
            "previous": previous or "",
            "holds": holds,
            "left": left or {},
            "guard": guard or {},
        }
        self._write()
        return self.content["sequence"]

    def forward(self, id_):
        """The way back once a release serves that comes after the one that serves now."""
        return [each for each in self.served() if each != id_] + [id_]

    def is_back(self, id_):
        """Whether a release lies on the way back, or serves."""
        return id_ in self.served()

    def back(self, id_, instead_of=""):
        """The way back once users are sent back to a release, or to what takes the place of one."""
        served = self.served()
        return [each for each in served[: served.index(instead_of or id_)] if each != id_] + [id_]

    def settle(self):
        """What serves is what is to serve."""
        content = {"served": self.served(), "replaced": self.replaced(), "holds": self.holds(), "next": {}}
        if self.is_new or any(self.content[key] != value for key, value in content.items()):
            self.content.update(content)
            self._write()

    def forget(self, ids):
        """Releases are gone that were on the way back."""
        if not ids:
            return
        self.content.update(
            served=[id_ for id_ in self.served() if id_ not in ids],
            replaced="" if self.replaced() in ids else self.replaced(),
        )
        self._write()

    # -- what is held

    def hold_on(self, revision, digest, live_revision):
        """The hold that keeps a deploy of this revision, or of this release, from going on; or nothing."""
        for hold in reversed(self.holds()):
            if hold["digest"] == digest if revision == live_revision else hold["revision"] == revision:
                return hold
        return {}

    def holds_after_deploy(self, revision, live_revision):
        """What is held once a revision is deployed: another than the one that serves ends all holds."""
        return [hold for hold in self.holds() if revision == live_revision and hold["revision"] != revision]

    def holds_after_rollback(self, target, left, by, since, reason):
        """What is held once users are sent from the release `left` to `target`, both given as manifests."""
        holds = [hold for hold in self.holds() if hold["digest"] != target["digest"]]
        if not left or left["id"] == target["id"]:
            return holds
        holds = [hold for hold in holds if hold["digest"] != left["digest"]]
        return [
            *holds,
            {
                "revision": left["inputs"]["source"]["revision"],
                "digest": left["digest"],
                "release": left["id"],
                "version": left["version"],
                "by": by,
                "since": since,
                "reason": reason,
            },
        ]


def offered(releases, live):
    """The releases that can be named, in words."""
    found = [
        f"{one_line(str(item['version']))} ({item['id']}{', it serves' if item['id'] == live else ''})"
        for item in releases
        if item["id"] == live or item["state"] in NAMEABLE
    ]
    return f"There are: {', '.join(found) or 'none'}."


def named(hold):
    """What is held, in words."""
    return f"{one_line(hold['version'])} ({short(redact_url(hold['revision']))})"


def held_by(hold):
    """A hold in words: who, when, and why."""
    reason = f": {one_line(hold['reason'])}" if hold["reason"] else ""
    return f"since {hold['since']} by {one_line(hold['by'])}{reason}"
