"""Intervals are slots on a fixed grid; a single moment is one slot."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from celeriac.errors import ConfigError
from celeriac.schedule.interval import Once, interval
from celeriac.schedule.slots import jitter_of, latest_slots, schedule_of, slots_between


def at(text, zone="UTC"):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def test_slots_are_whole_multiples_after_the_anchor():
    every = interval(30)
    assert every.next(100.0, 100.0) == 130.0
    assert every.next(129.9, 100.0) == 130.0
    assert every.next(130.0, 100.0) == 160.0
    assert every.next(50.0, 100.0) == 130.0  # nothing before the entry was first seen


def test_the_first_slot_is_a_whole_step_after_an_anchor_of_any_precision():
    for digits in range(8):
        anchor = round(1_795_938_360.44681273, digits)
        assert interval(60).next(0.0, anchor) == round(anchor + 60, 6)


def test_a_grid_does_not_drift_wherever_the_search_begins():
    every, anchor = interval(0.1), 1_790_000_000.123456
    slots = list(slots_between(every, anchor, anchor + 100, anchor))
    assert len(slots) == 1000
    assert all(every.next(slot - 1e-6, anchor) == slot for slot in slots)
    assert every.next(anchor + 1e9, anchor) == pytest.approx(anchor + 1e9 + 0.1, abs=1e-3)


def test_the_latest_slots_of_years_are_found_at_once():
    assert latest_slots(interval(0.1), 0.0, 1e9, 0.0, 2) == [999_999_999.9, 1e9]


@pytest.mark.parametrize(
    ("every", "first"),
    [
        (timedelta(hours=1), "2026-03-01 11:00"),
        (timedelta(hours=1, minutes=30), "2026-03-01 11:00"),  # rounded to hours, as Celery does
        (timedelta(minutes=20), "2026-03-01 10:47"),
        (timedelta(days=1), "2026-03-02 00:00"),
        (timedelta(days=2), "2026-03-03 00:00"),
    ],
)
def test_relative_begins_at_the_full_unit_of_the_zone(every, first):
    schedule = interval(every, relative=True, tz="Asia/Kolkata")
    anchor = at("2026-03-01 10:27:13", "Asia/Kolkata")
    assert schedule.next(anchor, anchor) == at(first, "Asia/Kolkata")


def test_relative_days_begin_at_midnight_on_both_sides_of_a_change_of_clocks():
    schedule = interval(timedelta(days=1), relative=True, tz="Europe/Berlin")
    slots = list(slots_between(schedule, at("2026-03-28"), at("2026-03-31"), at("2026-03-01")))
    berlin = ZoneInfo("Europe/Berlin")
    assert [f"{datetime.fromtimestamp(slot, berlin):%d %H:%M}" for slot in slots] == [
        "29 00:00",
        "30 00:00",
        "31 00:00",
    ]


def test_a_single_moment_comes_once():
    moment = at("2026-05-01 12:00")
    assert Once(moment).next(moment - 1) == moment
    assert Once(moment).next(moment) is None


@pytest.mark.parametrize(
    "given", [0, -1, 0.001, True, float("nan"), float("inf"), timedelta(0), 1e12, None, object()]
)
def test_what_is_no_time_is_refused(given):
    with pytest.raises(ConfigError):
        schedule_of(given)


def test_seconds_and_timedeltas_are_schedules_and_a_zone_is_given_to_what_has_none():
    assert schedule_of(30) == schedule_of(timedelta(seconds=30)) == interval(30.0)
    assert schedule_of("0 0 * * *", "Europe/Berlin").tz == "Europe/Berlin"
    assert schedule_of(schedule_of("0 0 * * *", "Asia/Tokyo"), UTC).tz == "Asia/Tokyo"


def test_jitter_is_the_same_everywhere_and_within_its_bounds():
    late = [jitter_of("report", float(slot), 20.0) for slot in range(1000)]
    assert late == [jitter_of("report", float(slot), 20.0) for slot in range(1000)]
    assert 0 <= min(late) < 1
    assert 19 < max(late) <= 20
    assert jitter_of("report", 1.0, 0.0) == 0
