"""Counts all messages of a Redis broker in one round trip."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.contracts.broker import QueueState, Survey
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link
from celeriac.wire.frame import unpack


async def survey(link: Link, keys: Keys, queues: Sequence[str]) -> Survey:
    """Return how many messages there are, and the next of each list. Raises ``BrokerError`` as every call."""
    lists = {queue: keys.lists_of(queue).keys for queue in queues}
    parked, held, dead, failed, *rest = await link.answers(
        [
            ("ZCARD", keys.due),
            ("HLEN", keys.unacked),
            ("ZCARD", keys.dead_index),
            ("ZCARD", keys.failed_index),
            *(command for names in lists.values() for name in names for command in _look(name)),
        ]
    )
    states, at = [], 0
    for queue, names in lists.items():
        found = rest[at : at + 2 * len(names)]
        at += 2 * len(names)
        heads = [unpack(raw) for raw in found[1::2] if raw is not None]
        states.append(QueueState(queue, sum(found[::2]), heads))
    return Survey(states, parked, max(0, held - parked), dead, failed)


def _look(name: str) -> tuple[tuple[str, ...], ...]:
    return ("LLEN", name), ("LINDEX", name, "-1")
