"""The clock of slots: the server's, never ahead of it."""

from celeriac.beat.slot_clock import SlotClock
from celeriac.testing.clock import ManualClock

T = 1_790_000_000.0


def told(clock, slots, *, server, there=0.0, back=0.0):
    """Ask a server whose clock shows ``server`` when the question arrives."""
    asked = slots.monotonic()
    clock.advance(there + back)
    slots.heard(server, asked)


def test_the_process_clock_counts_until_a_server_tells_the_time():
    clock = ManualClock(T)
    slots = SlotClock(clock)
    slots.heard(None, 0.0)
    clock.advance(5)
    assert slots.now() == T + 5


def test_the_servers_time_is_carried_on_and_is_never_ahead():
    clock = ManualClock(T)
    slots = SlotClock(clock)
    told(clock, slots, server=T + 100, there=0.5, back=1.0)
    assert slots.now() == T + 100  # it is 101 there
    told(clock, slots, server=T + 101.5, there=0.5, back=0.25)
    assert slots.now() == T + 101.5  # now 101.75: known better
    told(clock, slots, server=T + 101.75 + 2, there=2.0, back=3.0)
    assert slots.now() == T + 106.5  # 106.75 there, and the slow answer does not spoil what was known


def test_a_change_of_the_process_clock_does_not_matter_and_one_of_the_servers_does():
    clock = ManualClock(T)
    slots = SlotClock(clock)
    told(clock, slots, server=T)
    clock.set(T - 5000)
    clock.advance(10)
    assert slots.now() == T + 10
    assert slots.at(slots.monotonic() - 4) == T + 6
    told(clock, slots, server=T - 50)
    assert slots.now() == T - 50
