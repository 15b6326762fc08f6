"""Wakes subscriptions that wait for a queue: each has a row while it sleeps, and only then is a notification sent.

Rules: a transaction that notifies holds up the commits of all others, so none is sent while no subscription sleeps. A
sleeper that just said so looks a few times soon after, since a sender may have begun before. The channel of a queue
has a name that any queue's name may have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

from celeriac.servers.postgres.board import NOW

SLEEP = 4.5
"""Seconds for which a process counts as asleep after it said so."""

LOOKS = (0.02, 0.1, 0.5)
"""Seconds after which a new sleeper looks again."""

POLLS = tuple(accumulate(min(1.0, 0.1 * 1.5**number) for number in range(7)))
"""The same for one that gets no notifications: pauses from 0.1 seconds to 1, after which it goes on with ``PULSE``."""

PULSE = 1.7
"""Seconds between looks of one that sleeps on: with what else it does, less than a statement a second."""

IS_CHANNEL = r"channel LIKE 'celeriac\_%' AND octet_length(channel) < 64"
"""Another name is none of ours, and one that PostgreSQL refuses would fail the whole statement."""

WAKE = f"""
    SELECT pg_notify(channel, '') FROM (
        SELECT DISTINCT channel FROM celeriac_sleeper
        WHERE queue IN {{queues}} AND until > {NOW} AND {IS_CHANNEL}) AS sleeping"""
"""Wakes the subscriptions that sleep on some queues; ``queues`` is a subselect of their names."""

FALL_ASLEEP = f"""
    INSERT INTO celeriac_sleeper (queue, process, channel, until)
    SELECT queue, ${{process}}, channel, {NOW} + {SLEEP}
    FROM unnest(${{queues}}::text[], ${{channels}}::text[]) AS given (queue, channel)
    ON CONFLICT (queue, process) DO UPDATE SET until = excluded.until"""
"""Notes that a process sleeps on some queues; what is in braces are the numbers of the statement's values."""


def channel_of(schema: str, queue: str) -> str:
    """Return the channel of the notifications about a queue of one schema."""
    return f"celeriac_{blake2b(f'{schema}.{queue}'.encode(), digest_size=12).hexdigest()}"


def channels_of(schema: str, queues: Sequence[str]) -> list[str]:
    """Return the channel of each queue."""
    return [channel_of(schema, queue) for queue in queues]
