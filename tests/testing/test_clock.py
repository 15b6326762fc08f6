"""The clock of tests."""

import pytest

from celeriac.testing.clock import ManualClock


def test_it_stands_still_until_it_is_told_to_go_on():
    clock = ManualClock(1000.0)
    assert (clock.now(), clock.now(), clock.monotonic()) == (1000.0, 1000.0, 0.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (1002.5, 2.5)


def test_the_time_of_day_may_go_back_the_monotonic_time_may_not():
    clock = ManualClock(1000.0)
    clock.advance(5)
    clock.set(10.0)
    assert (clock.now(), clock.monotonic()) == (10.0, 5.0)
    for seconds in (-1, float("nan")):
        with pytest.raises(ValueError, match="cannot go on"):
            clock.advance(seconds)
