"""Positions of the sun are those that Celery computes, and the same second whatever moment the search begins at."""

from datetime import UTC, datetime
from itertools import pairwise

import celery.schedules
import pytest
from celery import Celery

from celeriac.errors import ConfigError
from celeriac.schedule.slots import slots_between
from celeriac.schedule.solar import solar

EVENTS = sorted(celery.schedules.solar._all_events)


@pytest.fixture(scope="module")
def app():
    return Celery(set_as_current=False)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(("lat", "lon"), [(52.5, 13.4), (-37.8, 145.0), (64.1, -21.9)])
def test_the_next_event_is_celerys(app, event, lat, lon):
    now = datetime(2026, 9, 20, 10, tzinfo=UTC)
    theirs = celery.schedules.solar(event, lat, lon, app=app, nowfun=lambda: now)
    expected = (now + theirs.remaining_estimate(now)).timestamp()
    assert solar(event, lat, lon).next(now.timestamp()) == pytest.approx(expected, abs=2)


def test_each_day_has_one_sunrise_wherever_the_search_begins():
    sunrise, start = (
        solar("sunrise", 71, 25.8),
        datetime(2026, 1, 1, tzinfo=UTC).timestamp(),
    )  # the North Cape
    year = start + 365 * 86400
    slots = list(slots_between(sunrise, start, year, 0.0))
    assert 200 < len(slots) < 260  # none in the polar night, none in the midnight sun
    assert all(later - slot > 20 * 3600 for slot, later in pairwise(slots))
    assert all(sunrise.next(slot - 1) == slot for slot in slots[::5])
    assert all(sunrise.next(slot) > slot + 3600 for slot in slots[::5])


@pytest.mark.parametrize(
    "given", [("moonrise", 0, 0), ("sunset", 91, 0), ("sunset", 0, -181), ("sunset", "x", 0)]
)
def test_another_event_or_place_is_refused(given):
    with pytest.raises(ConfigError, match="solar"):
        solar(*given)
