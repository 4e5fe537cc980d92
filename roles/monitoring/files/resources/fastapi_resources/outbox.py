# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is still to be told, by channel: in order, again and again until it is, and never without bound."""

from __future__ import annotations

FIRST_DELAY, LONGEST_DELAY = 5.0, 300.0


class Outbox:
    """`limit` is the number of messages kept for each channel; beyond it the oldest goes, and is counted."""

    def __init__(self, channels, limit=200, saved=None):
        saved = saved or {}
        self.limit = limit
        self.number = saved.get("number", 0)
        empty = {"messages": [], "tries": 0, "next": 0.0, "dropped": 0, "error": ""}
        # What was for a channel that is no more goes with it.
        self.queues = {name: {**empty, **saved.get("queues", {}).get(name, {})} for name in channels}

    def saved(self):
        return {"number": self.number, "queues": self.queues}

    def waiting(self):
        return {name: len(queue["messages"]) for name, queue in self.queues.items()}

    def put(self, message):
        """Take a message for all channels. Its id is the same wherever and however often it is sent."""
        self.number += 1
        for queue in self.queues.values():
            queue["messages"].append({**message, "id": self.number})
            if len(queue["messages"]) > self.limit:
                del queue["messages"][0]
                queue["dropped"] += 1

    def due(self, now):
        """The oldest message of each channel whose time has come: [(channel, message)]."""
        return [
            (name, {**queue["messages"][0], "dropped": queue["dropped"]})
            for name, queue in self.queues.items()
            # A clock that was set back does not make anybody wait for longer than he would.
            if queue["messages"] and (now >= queue["next"] or queue["next"] - now > LONGEST_DELAY)
        ]

    def sent(self, channel, message):
        queue = self.queues[channel]
        # Meanwhile it may have been dropped for a newer one.
        queue["messages"] = [item for item in queue["messages"] if item["id"] != message["id"]]
        queue.update(tries=0, next=0.0, error="", dropped=queue["dropped"] - message["dropped"])

    def failed(self, channel, now, error):
        queue = self.queues[channel]
        delay = min(FIRST_DELAY * 2 ** min(queue["tries"], 16), LONGEST_DELAY)
        queue.update(tries=queue["tries"] + 1, next=now + delay, error=error)
        return delay
