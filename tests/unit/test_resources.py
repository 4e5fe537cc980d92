# Copyright (c) 2026 daoman.fastapi contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the resource monitor alerts, and what becomes of its messages: time and readings are the test's."""

from __future__ import annotations

import json
import os

import pytest
from fastapi_resources import channels, store
from fastapi_resources.outbox import FIRST_DELAY, LONGEST_DELAY, Outbox
from fastapi_resources.watch import FIRING, RECOVERED, REPEATED, Rule, Watches

RULE = Rule(threshold=90, recovery=80, duration=30, repeat=100)
START = 1_700_000_000.0


def run(values, rule=RULE, watches=None, start=START, step=10, name="cpu"):
    """Feeds values, ten seconds apart. None is no reading. Returns [(seconds since the start, kind)]."""
    watches = watches or Watches({"cpu": rule, "disk": rule}, gap=50)
    events = []
    for index, value in enumerate(values):
        now = start + index * step
        events += [
            (event["time"] - start, event["kind"])
            for event in watches.observe(now, {} if value is None else {name: value})
        ]
    return events


# -- when -------------------------------------------------------------------------------------------------------------


def test_a_value_below_the_threshold_is_no_alert():
    assert run([89.9] * 20) == []


def test_the_threshold_itself_counts():
    assert run([90] * 4) == [(30, FIRING)]


def test_a_breach_alerts_only_after_its_duration():
    assert run([95, 95, 95]) == []
    assert run([95, 95, 95, 95]) == [(30, FIRING)]


def test_a_break_begins_the_duration_anew():
    assert run([95, 95, 95, 89, 95, 95, 95]) == []
    assert run([95, 95, 95, 89, 95, 95, 95, 95]) == [(70, FIRING)]


def test_without_a_duration_the_first_reading_alerts():
    assert run([95], Rule(90, 80, 0, 0)) == [(0, FIRING)]


def test_between_recovery_and_threshold_nothing_changes():
    assert run([95] * 4 + [85] * 5) == [(30, FIRING)]


def test_recovery_also_takes_its_duration():
    assert run([95] * 4 + [79] * 3) == [(30, FIRING)]
    assert run([95] * 4 + [79] * 4) == [(30, FIRING), (70, RECOVERED)]


def test_a_value_at_recovery_has_not_recovered():
    assert run([95] * 4 + [80] * 5) == [(30, FIRING)]


def test_a_relapse_begins_the_recovery_anew():
    assert run([95] * 4 + [79, 79, 79, 85, 79, 79, 79]) == [(30, FIRING)]


def test_a_value_that_wavers_is_one_alert():
    assert [kind for _time, kind in run([95] * 4 + [95, 75] * 4)] == [FIRING]


def test_reminders_come_at_their_interval():
    assert run([95] * 25) == [(30, FIRING), (130, REPEATED), (230, REPEATED)]


def test_no_reminder_while_it_recovers():
    assert run([95] * 13 + [79] * 2) == [(30, FIRING)]


def test_without_an_interval_there_is_no_reminder():
    assert run([95] * 100, Rule(90, 80, 30, 0)) == [(30, FIRING)]


def test_after_a_recovery_all_begins_anew():
    assert run([95] * 4 + [10] * 4 + [95] * 4) == [(30, FIRING), (70, RECOVERED), (110, FIRING)]


def test_an_event_tells_since_when_and_how_bad():
    watches = Watches({"cpu": RULE}, gap=50)
    events = []
    for index, value in enumerate([91, 99.123, 95, 92, 10, 10, 10, 10]):
        events += watches.observe(START + 10 * index, {"cpu": value})
    fired, recovered = events
    assert (fired["since"], fired["value"], fired["peak"], fired["threshold"]) == (START, 92, 99.12, 90)
    assert (recovered["since"], recovered["value"], recovered["peak"]) == (START, 10, 99.12)


# -- several, and those that come and go ------------------------------------------------------------------------------


def test_each_file_system_is_a_matter_of_its_own():
    watches = Watches({"disk": RULE}, gap=50)
    events = []
    for index in range(4):
        events += watches.observe(START + 10 * index, {"disk:/": 95, "disk:/srv": 10})
    assert [event["metric"] for event in events] == ["disk:/"]
    assert watches.firing() == ["disk:/"]


def test_a_metric_without_a_rule_is_not_watched():
    assert run([99] * 9, name="load") == []


def test_a_file_system_that_is_gone_ends_its_alert():
    watches = Watches({"disk": RULE}, gap=50)
    run([95] * 4, watches=watches, name="disk:/mnt")
    assert watches.observe(START + 40, {}) == []
    (event,) = watches.observe(START + 100, {})
    assert (event["kind"], event["gone"]) == (RECOVERED, True)
    assert watches.observe(START + 110, {}) == []


def test_a_rule_that_is_taken_away_ends_its_alert():
    watches = Watches({"cpu": RULE}, gap=50)
    run([95] * 4, watches=watches)
    later = Watches({}, gap=50, saved=watches.saved())
    (event,) = later.observe(START + 40, {"cpu": 95})
    assert (event["kind"], event["threshold"]) == (RECOVERED, None)


# -- over restarts, sleep, and clocks that are set --------------------------------------------------------------------


def again(watches):
    return Watches(watches.rules, watches.gap, json.loads(json.dumps(watches.saved())))


def test_a_restart_does_not_alert_twice():
    watches = Watches({"cpu": RULE}, gap=50)
    assert run([95] * 4, watches=watches) == [(30, FIRING)]
    assert run([95] * 5, watches=again(watches), start=START + 40) == []


def test_a_restart_does_not_forget_when_it_began():
    watches = Watches({"cpu": RULE}, gap=50)
    run([95] * 2, watches=watches)
    assert run([95] * 2, watches=again(watches), start=START + 20) == [(10, FIRING)]


def test_a_breach_that_ended_while_it_was_down_recovers():
    watches = Watches({"cpu": RULE}, gap=50)
    run([95] * 4, watches=watches)
    assert run([10] * 4, watches=again(watches), start=START + 5000) == [(30, RECOVERED)]


def test_a_gap_does_not_count_as_time_above_the_threshold():
    watches = Watches({"cpu": RULE}, gap=50)
    assert run([95, 95], watches=watches) == []
    assert run([95, 95, 95], watches=watches, start=START + 500) == []
    assert run([95], watches=watches, start=START + 530) == [(0, FIRING)]


def test_a_clock_that_is_set_back_neither_alerts_nor_silences():
    watches = Watches({"cpu": RULE}, gap=50)
    run([95] * 4, watches=watches)
    assert run([95] * 10, watches=watches, start=START - 100_000) == []
    assert run([95] * 2, watches=watches, start=START - 100_000 + 100) == [(0, REPEATED)]


def test_a_state_of_another_version_is_read_as_far_as_it_goes():
    assert Watches({"cpu": RULE}, 50, {"cpu": {"fired": 1.0, "unheard": 2}}).firing() == ["cpu"]


# -- the outbox -------------------------------------------------------------------------------------------------------


def kept(outbox, channel="mail"):
    return [message["id"] for message in outbox.queues[channel]["messages"]]


def test_a_message_goes_to_every_channel_with_one_id():
    outbox = Outbox(["mail", "slack"])
    outbox.put({"metric": "cpu"})
    assert [(name, message["id"]) for name, message in outbox.due(0)] == [("mail", 1), ("slack", 1)]


def test_messages_are_told_in_their_order():
    outbox = Outbox(["mail"])
    outbox.put({"metric": "a"})
    outbox.put({"metric": "b"})
    told = []
    while outbox.due(0):
        ((name, message),) = outbox.due(0)
        told.append(message["metric"])
        outbox.sent(name, message)
    assert told == ["a", "b"]


def test_what_failed_is_tried_again_later_and_later():
    outbox = Outbox(["mail"])
    outbox.put({})
    now, delays = 0.0, []
    for _ in range(9):
        assert outbox.due(now)
        delays.append(outbox.failed("mail", now, "refused"))
        assert not outbox.due(now + delays[-1] - 0.1)
        now += delays[-1]
    assert delays == [FIRST_DELAY * 2**number for number in range(6)] + [LONGEST_DELAY] * 3


def test_a_channel_that_fails_holds_up_no_other():
    outbox = Outbox(["mail", "slack"])
    outbox.put({})
    outbox.failed("mail", 0, "refused")
    assert [name for name, _message in outbox.due(0)] == ["slack"]


def test_a_success_ends_the_waiting():
    outbox = Outbox(["mail"])
    outbox.put({})
    outbox.put({})
    outbox.failed("mail", 0, "refused")
    ((_name, message),) = outbox.due(FIRST_DELAY)
    outbox.sent("mail", message)
    assert outbox.due(FIRST_DELAY) and kept(outbox) == [2]
    assert outbox.failed("mail", 0, "refused") == FIRST_DELAY


def test_a_full_queue_drops_the_oldest_and_says_so():
    outbox = Outbox(["mail"], limit=3)
    for _ in range(5):
        outbox.put({})
    assert kept(outbox) == [3, 4, 5]
    ((name, message),) = outbox.due(0)
    assert message["dropped"] == 2 and "2 earlier messages" in channels.lost(message)
    outbox.sent(name, message)
    assert outbox.due(0)[0][1]["dropped"] == 0


def test_what_is_dropped_while_it_is_sent_stays_counted():
    outbox = Outbox(["mail"], limit=1)
    outbox.put({})
    ((name, message),) = outbox.due(0)
    outbox.put({})
    outbox.sent(name, message)
    assert kept(outbox) == [2] and outbox.due(0)[0][1]["dropped"] == 1


def test_the_outbox_outlives_a_restart():
    outbox = Outbox(["mail"])
    outbox.put({"metric": "a"})
    outbox.failed("mail", 0, "refused")
    later = Outbox(["mail", "slack"], saved=json.loads(json.dumps(outbox.saved())))
    later.put({"metric": "b"})
    assert kept(later) == [1, 2] and kept(later, "slack") == [2]
    assert [name for name, _message in later.due(0)] == ["slack"]


def test_a_clock_that_is_set_back_does_not_stop_the_outbox():
    outbox = Outbox(["mail"])
    outbox.put({})
    outbox.failed("mail", 1_000_000, "refused")
    assert outbox.due(1000)


# -- words ------------------------------------------------------------------------------------------------------------

MESSAGE = {
    "id": 7, "host": "app1", "kind": FIRING, "metric": "disk:/srv", "value": 96.5, "peak": 97, "threshold": 90,
    "since": START, "time": START + 60, "gone": False, "dropped": 0,
}  # fmt: skip


def test_a_title_says_where_what_and_since_when():
    assert channels.title(MESSAGE) == ("app1: disk /srv 96.5 % (threshold 90 %), firing since 2023-11-14 22:13:20 UTC")


def test_the_load_has_no_percent():
    assert "%" not in channels.title({**MESSAGE, "metric": "load", "value": 4, "threshold": 3})


def test_a_recovery_tells_how_bad_it_was():
    assert "recovered" in channels.title({**MESSAGE, "kind": RECOVERED}) and "97 %" in channels.title(
        {**MESSAGE, "kind": RECOVERED}
    )


@pytest.mark.parametrize(
    "error, wanted",
    [
        (ConnectionRefusedError(111, "Connection refused"), "ConnectionRefusedError: Connection refused"),
        (ValueError("unknown url type: 's3cret'"), "ValueError: ValueError"),
    ],
)
def test_why_it_failed_is_said_without_the_url(error, wanted):
    assert channels.reason(error) == wanted


@pytest.mark.parametrize(
    "settings, wanted",
    [
        ({}, []),
        ({"syslog": True, "slack_url": "x"}, ["slack", "syslog"]),
        ({"webhook_url": "x", "mail_to": ["a@b"]}, ["webhook", "mail"]),
    ],
)
def test_only_channels_with_settings_are_used(settings, wanted):
    assert channels.chosen(settings) == wanted


# -- on disk ----------------------------------------------------------------------------------------------------------


def test_the_state_is_read_as_it_was_saved(tmp_path):
    path = str(tmp_path / "state.json")
    assert store.load(path) == {}
    store.save(path, {"watches": {"cpu": {"fired": 1.0}}})
    assert store.load(path) == {"watches": {"cpu": {"fired": 1.0}}}


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_state_is_put_aside(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    assert store.load(str(path)) == {}
    assert (tmp_path / "state.json.damaged").read_text() == text


def test_the_state_is_published_for_prometheus(tmp_path):
    watches = Watches({"disk": RULE}, gap=50)
    run([95] * 4, watches=watches, name='disk:/a"b')
    before = os.umask(0o077)  # as the unit has it
    store.textfile(str(tmp_path / "x.prom"), watches.saved(), {"mail": 2})
    os.umask(before)
    text = (tmp_path / "x.prom").read_text()
    assert 'fastapi_resource_firing{resource="disk",subject="/a\\"b"} 1\n' in text
    assert 'fastapi_resource_undelivered{channel="mail"} 2\n' in text
    assert (tmp_path / "x.prom").stat().st_mode & 0o777 == 0o644
