"""Where the slots and the entries of an app are kept, for each kind of broker.

A broker that ticks in one step keeps both. RabbitMQ keeps no values: there the slots and entries are with the results
where these can be shared, and each message is a ``Copy``, of which workers run one. With ``rpc://`` alone nobody keeps
slots: then one process ticks, guarded by an exclusive queue, and knows only what it has ticked itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from celeriac.client.connections import Connections
from celeriac.client.periodic import RunMarks, beat_board, run_marks, shared_results
from celeriac.contracts.backend import Backend
from celeriac.contracts.board import Board, Leases, Slots
from celeriac.contracts.broker import Beat, Broker
from celeriac.errors import ConfigError
from celeriac.wire.envelope import Envelope, Route


class Places(msgspec.Struct, frozen=True):
    """What ticking needs of an app's servers.

    :param board: keeps the entries.
    :param runs: the marks of runs that must not overlap.
    :param alone: nobody keeps slots, so that only the holder of the lease may tick.
    """

    beat: Beat
    board: Board
    leases: Leases
    broker: Broker
    backend: Backend
    runs: RunMarks | None
    alone: bool = False


def places_of(connections: Connections) -> Places:
    """Return where an app's periodic tasks are kept. Raises ``ConfigError`` where they cannot be."""
    broker, results = connections.broker, shared_results(connections)
    leases = broker.board.leases or (results.leases if results else None)
    if leases is None:
        raise ConfigError(
            "periodic tasks need a lease, and this broker may keep none (declare=never): let it declare queues, or "
            "keep results in Redis or SQL"
        )
    board = beat_board(connections)
    beat: Beat
    if broker.beat is not None:
        beat = broker.beat
    else:
        beat = LoneBeat(broker) if board.slots is None else CopyingBeat(broker, board.slots)
    alone = isinstance(beat, LoneBeat)
    return Places(beat, board, leases, broker, connections.backend, run_marks(connections), alone)


class CopyingBeat:
    """Ticks where the slots are not with the queues: the message first, as a copy, then the slot.

    A process that dies between the two leaves a message whose slot another sends again; workers run one of the copies.
    """

    def __init__(self, broker: Broker, slots: Slots) -> None:
        self._broker = broker
        self._slots = slots

    async def tick(self, entry: str, slot: float, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        """See ``celeriac.contracts.broker.Beat``."""
        if (await self._slots.last([entry])).get(entry, slot - 1) >= slot:
            return False
        if messages:
            await self._broker.publish_once(f"beat {entry} {slot!r}", messages)
        return await self._slots.advance(entry, slot)

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        """See ``celeriac.contracts.broker.Beat``."""
        return await self._slots.last(entries)


class LoneBeat:
    """Ticks where nobody keeps slots: for one process, which remembers its own."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._last: dict[str, float] = {}

    async def tick(self, entry: str, slot: float, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        """See ``celeriac.contracts.broker.Beat``."""
        if self._last.get(entry, slot - 1) >= slot:
            return False
        if messages:
            await self._broker.publish_once(f"beat {entry} {slot!r}", messages)
        self._last[entry] = slot
        return True

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        """See ``celeriac.contracts.broker.Beat``."""
        return {entry: self._last[entry] for entry in entries if entry in self._last}
