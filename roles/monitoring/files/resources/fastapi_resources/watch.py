# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a metric is a matter for an alert.

It is once it has been at its threshold or above for `duration` seconds without a break, and stays one until it has been
below `recovery` for as long. In between, a reminder is due every `repeat` seconds; 0 means none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

FIRING, REPEATED, RECOVERED = "firing", "still firing", "recovered"


@dataclass(frozen=True)
class Rule:
    """Thresholds in the unit of the metric, times in seconds."""

    threshold: float
    recovery: float
    duration: float
    repeat: float


@dataclass
class State:
    """What is known of one metric. All times are seconds since the epoch, since they outlive the process."""

    # Since when it has been above the threshold, or, while it fires, below recovery.
    since: float | None = None
    fired: float | None = None
    told: float | None = None
    seen: float | None = None
    value: float = 0.0
    peak: float = 0.0


class Watches:
    """All metrics. `gap` is the time without a reading after which nothing is known about the time between."""

    def __init__(self, rules, gap, saved=None):
        self.rules = rules
        self.gap = gap
        names = {field.name for field in fields(State)}
        self.states = {
            name: State(**{key: value for key, value in state.items() if key in names})
            for name, state in (saved or {}).items()
        }

    def saved(self):
        """Plain data, from which the same comes to be again."""
        return {name: asdict(state) for name, state in self.states.items()}

    def firing(self):
        return sorted(name for name, state in self.states.items() if state.fired is not None)

    def observe(self, now, readings):
        """The events that come of these readings: [{metric, kind, value, threshold, since, time, peak}].

        :arg readings: values by name. A name is that of a rule, or one with a subject: `disk:/srv`
        """
        events = []
        for name, value in readings.items():
            rule = self.rules.get(name.partition(":")[0])
            if rule:
                events += self._one(name, rule, self.states.setdefault(name, State()), now, value)
        for name, state in list(self.states.items()):
            # Such as a file system that was unmounted; a reading that fails once is none of that.
            gone = name not in readings and now - (state.seen or 0) > self.gap
            if gone or name.partition(":")[0] not in self.rules:
                if state.fired is not None:
                    events.append(self._event(RECOVERED, name, state, now, gone=True))
                del self.states[name]
        return events

    def _one(self, name, rule, state, now, value):
        if state.seen is not None and not 0 <= now - state.seen <= self.gap:
            # Asleep, or a clock that was set: the time between was not watched. What fires goes on firing.
            state.since = None
            if state.told is not None and state.told > now:
                state.told = now
        state.seen, state.value = now, value
        if state.fired is None:
            return self._quiet(name, rule, state, now)
        return self._alarmed(name, rule, state, now)

    def _quiet(self, name, rule, state, now):
        if state.value < rule.threshold:
            state.since = None
            return []
        if state.since is None:
            state.since, state.peak = now, state.value
        state.peak = max(state.peak, state.value)
        if now - state.since < rule.duration:
            return []
        state.fired, state.told, state.since = state.since, now, None
        return [self._event(FIRING, name, state, now)]

    def _alarmed(self, name, rule, state, now):
        state.peak = max(state.peak, state.value)
        if state.value < rule.recovery:
            state.since = now if state.since is None else state.since
            if now - state.since >= rule.duration:
                event = self._event(RECOVERED, name, state, now)
                self.states[name] = State(seen=now, value=state.value)
                return [event]
            return []
        state.since = None
        if rule.repeat and now - state.told >= rule.repeat:
            state.told = now
            return [self._event(REPEATED, name, state, now)]
        return []

    def _event(self, kind, name, state, now, gone=False):
        rule = self.rules.get(name.partition(":")[0])
        return {
            "kind": kind,
            "metric": name,
            "value": round(state.value, 2),
            "peak": round(state.peak, 2),
            "threshold": rule.threshold if rule else None,
            "since": state.fired,
            "time": now,
            "gone": gone,
        }
