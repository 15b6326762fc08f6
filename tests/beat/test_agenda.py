"""Which slots are ticked: what was missed, what is due, what waits. Pure: the time is handed in."""

from collections import deque

import msgspec
import pytest

from celeriac.beat.agenda import MOST, Agenda, Line, line_of
from celeriac.beat.entry import Entry, newest, read_entry, run_id, write_entry
from celeriac.schedule.crontab import crontab
from celeriac.schedule.interval import Interval, interval

T = 1_790_000_000.0  # the entries of these tests exist since then


def entry(**fields):
    return Entry(**{"name": "report", "task": "shop.report", "schedule": interval(10), "since": T} | fields)


def late(entry, *, last, alive, now):
    return list(line_of(entry, "k", last, alive, now).late)


def test_a_new_entry_has_no_late_slots_and_begins_with_the_first_of_its_grid():
    line = line_of(entry(), "k", None, T - 100, T + 1)
    assert (list(line.late), line.upcoming, line.at) == ([], T + 10, T + 10)


@pytest.mark.parametrize(
    ("catch_up", "window", "slots"),
    [
        ("one", None, [T + 90]),
        ("all", None, [T + 30 + 10 * n for n in range(7)]),
        ("none", None, []),
        ("all", 25.0, [T + 80, T + 90]),
        ("one", 3.0, []),
    ],
)
def test_what_was_missed_while_no_process_lived_is_caught_up_as_the_entry_says(catch_up, window, slots):
    policy = entry(catch_up=catch_up, window=window)
    assert late(policy, last=T + 20, alive=T + 95, now=T + 96) == slots


@pytest.mark.parametrize("catch_up", ["one", "all", "none"])
def test_what_was_missed_while_a_process_lived_is_ticked_whole(catch_up):
    assert late(entry(catch_up=catch_up), last=T + 20, alive=T, now=T + 65) == [
        T + 30,
        T + 40,
        T + 50,
        T + 60,
    ]


def test_downtime_and_a_change_of_leader_after_it():
    # Nobody lived until T + 45; the leader that died at T + 62 had ticked the one to catch up, and T + 50.
    assert late(entry(), last=T + 50, alive=T + 45, now=T + 75) == [T + 60, T + 70]
    # It had ticked none.
    assert late(entry(), last=T + 20, alive=T + 45, now=T + 75) == [T + 40, T + 50, T + 60, T + 70]


def test_at_most_a_thousand_slots_are_caught_up_the_latest():
    slots = late(entry(schedule=interval(1), catch_up="all"), last=T, alive=T + 5000, now=T + 5000)
    assert (len(slots), slots[-1]) == (MOST, T + 5000)


def test_a_changed_rule_holds_from_its_change_on():
    changed = entry(schedule=interval(10), since=T + 100)
    assert late(changed, last=T + 20, alive=T, now=T + 125) == [T + 110, T + 120]


def test_start_is_the_first_slot_of_an_interval_and_nothing_comes_after_end():
    bounded = entry(start=T + 55, end=T + 75)
    assert late(bounded, last=None, alive=T, now=T + 100) == [T + 55, T + 65, T + 75]
    assert line_of(bounded, "k", None, T, T + 1).upcoming == T + 55
    assert line_of(bounded, "k", None, T, T + 100).upcoming is None


def test_a_line_goes_past_a_slot_only_when_told():
    line = line_of(entry(), "k", None, T, T + 1)
    assert line.slot == line.slot == T + 10
    line.passed(T + 10.1)
    assert line.slot == T + 20


def test_a_leader_that_stood_still_ticks_what_passed_meanwhile():
    line = line_of(entry(), "k", None, T, T + 1)
    line.passed(T + 45)
    seen = []
    while line.slot <= T + 45:
        seen.append(line.slot)
        line.passed(T + 45)
    assert seen == [T + 20, T + 30, T + 40]
    assert line.slot == T + 50


def test_of_slots_that_wait_for_a_run_the_latest_is_kept():
    line = line_of(entry(), "k", None, T, T + 1)
    line.hold(T + 10, T + 11)
    assert (line.slot, line.at) == (T + 10, T + 11)
    line.hold(T + 35, T + 36)
    assert (list(line.late), line.upcoming) == ([T + 30], T + 40)
    line.passed(T + 36)
    assert (line.slot, line.at) == (T + 40, T + 40)


def test_jitter_makes_a_slot_late_and_keeps_the_order():
    line = line_of(entry(jitter=30.0), "k", None, T, T + 1)
    delays = []
    for number in range(1, 20):
        assert line.slot == T + 10 * number
        delays.append(line.at - line.slot)
        line.passed(line.at)
        while line.late and len(delays) < 19:
            break
    assert max(delays) <= 30
    assert len({round(delay, 3) for delay in delays}) > 10


def test_the_agenda_gives_what_is_due_in_order_each_once():
    agenda = Agenda()
    for number in range(5):
        line = Line(entry(name=f"e{number}"), f"k{number}", deque(), T + 5 - number)
        agenda.put(line)
        agenda.put(line)
    agenda.keep(["e4", "e3", "e0"])
    assert agenda.first() == T + 1
    assert [line.entry.name for line in agenda.take_due(T + 2, 10)] == ["e4", "e3"]
    assert agenda.first() == T + 5


def test_an_entry_is_the_same_when_it_is_read_again():
    for schedule in (crontab("*/5", tz="Europe/Berlin"), interval(2.5, relative=True)):
        made = entry(schedule=schedule, arguments='[[1],{"a":2}]', jitter=3.0, window=4.0)
        assert read_entry(write_entry(made)) == made


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '{"name":1}', "\ud800", "[" * 100_000])
def test_what_is_no_entry_is_none(text):
    assert read_entry(text) is None


def test_of_several_declarations_the_latest_process_counts():
    old, new = entry(declared=T, since=T), entry(declared=T + 50, since=T + 50, schedule=Interval(30.0))
    for order in ([old, new], [new, old]):
        assert newest(order) == {"report": new}


def test_a_rule_that_two_processes_declare_holds_since_the_first():
    first, second = entry(declared=T, since=T, seen=T), entry(declared=T + 50, since=T + 50, seen=T + 50)
    for order in ([first, second], [second, first]):
        assert newest(order) == {"report": msgspec.structs.replace(first, declared=T + 50, seen=T + 50)}


def test_the_id_of_a_run_is_that_of_its_slot():
    assert run_id("shop:report", T) == run_id("shop:report", T)
    assert len({run_id(key, slot) for key in ("a:b", "a:c") for slot in (T, T + 1)}) == 4
