"""The contract of a server: it owns connections, keeps queues, results or both, and may land an ending in one step.

Rules: what is on one server shares its connections. Nothing can fall between what one ending changes. An optional
ability is an optional object.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from celeriac.clock import Clock
from celeriac.contracts.backend import Backend, EncodedPart, EncodedResult, Standing
from celeriac.contracts.board import Board, Mark
from celeriac.contracts.broker import Broker, Receipt
from celeriac.contracts.set_aside import Cap, Failed
from celeriac.settings import Settings
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Route


class Terms(msgspec.Struct, frozen=True):
    """The app's settings that each of its servers goes by."""

    settings: Settings
    codecs: Codecs
    clock: Clock

    @property
    def failed(self) -> Cap:
        """How much the failed list keeps."""
        return Cap(self.settings.keep_failed, self.settings.keep_failed_days * 86400.0)


class Server(Protocol):
    """One server that keeps queues, results or both: the owner of the connections to it.

    It connects when its broker or one of its result stores is first used, and belongs to the event loop that uses it.
    """

    @property
    def broker(self) -> Broker:
        """The queues there; the same object each time. Raises ``ConfigError`` where this server keeps none."""
        ...

    @property
    def board(self) -> Board:
        """The small state that all users of this server share. Raises ``ConfigError`` where it keeps no queues."""
        ...

    def results(self, url: str) -> Backend | None:
        """Return the result store that a URL names, ``None`` where it is not on this server.

        Raises ``ConfigError`` for a URL that cannot be used.
        """
        ...

    async def close(self) -> None:
        """Close the broker, the result stores, and the connections. Idempotent."""
        ...


@runtime_checkable
class OnServer(Protocol):
    """A broker that lets the result store on its server use its connections."""

    @property
    def connections(self) -> object | None:
        """An object that only servers of the broker's own kind understand; ``None`` if nothing can be shared."""
        ...


class Landing(msgspec.Struct, frozen=True):
    """The changes that one decision makes on a server.

    :param receipt: the receipt of the message, which is settled in the same step; ``None`` where it was settled before.
    :param buried: why the message goes to the dead-letter list; ``None`` acknowledges it.
    :param failed: with it, the message goes to the failed list.
    :param held: whether to store and count only; the caller then publishes and settles with a second landing.
    :param mark: a mark of the broker's board, which goes with the message.
    :param weight: bytes of its results, parts and messages; see ``weigh``. By these a round trip is filled.
    """

    receipt: Receipt | None
    results: Sequence[EncodedResult] = ()
    parts: Sequence[EncodedPart] = ()
    messages: Sequence[tuple[Envelope, Route]] = ()
    buried: str | None = None
    held: bool = False
    failed: Failed | None = None
    mark: Mark | None = None
    weight: int = 0


def weigh(
    results: Sequence[EncodedResult],
    parts: Sequence[EncodedPart] = (),
    messages: Sequence[tuple[Envelope, Route]] = (),
) -> int:
    """Return the bytes of these, for ``Landing.weight``."""
    weight = len(results[0].payload) if results else 0
    if len(results) > 1 or parts or messages:
        weight += sum(len(result.payload) for result in results[1:])
        weight += sum(len(part.payload) for part in parts)
        weight += sum(len(envelope.body) for envelope, _ in messages)
    return weight


class Settlements(Protocol):
    """Makes the endings of messages durable where their queue and their results are on one server.

    :ivar limit: bytes of results, parts and messages, above which an ending does not go in one step.
    """

    limit: int

    def land(self, landing: Landing) -> Awaitable[Sequence[Standing]]:
        """Store the results, count the parts, publish the messages, settle the receipt, remove the mark, in one step.

        Return how the chord of each part stands, or nothing where all was done. Where a part gives a claim, or finds
        one held, nothing is published or settled yet: the caller sends the chord's body first, then lands the rest.
        Concurrent calls share round trips; what is refused for one harms no other.

        Raises ``DeliveryLost`` when the receipt is void, in which case nothing was changed; ``BrokerUnavailable``
        when the server is away, after which the same call may be made again; ``BackendError`` or ``BrokerError``
        when it refuses.
        """
        ...


@runtime_checkable
class EarlySettlements(Protocol):
    """Settlements whose round trips also carry what belongs to messages that are acknowledged before their run."""

    async def acknowledge(self, receipt: Receipt) -> None:
        """Do as the receipt's ``ack``, ``surely``; what waits to land goes along."""
        ...

    async def store(self, result: EncodedResult) -> None:
        """Do as the result store's ``store``, together with other endings, for which it may wait a few milliseconds.

        No result may be larger than the ``limit`` of the settlements.
        """
        ...


class NotStored(Exception):
    """A delegate could not store a result, and so did not acknowledge the message that goes along."""


class Delegate(Protocol):
    """Acknowledges messages for the worker that took them, from a process that has none of the worker's connections."""

    def acknowledge(self, tag: str, results: Sequence[EncodedResult] = ()) -> bool:
        """Store these results, and acknowledge the message, in one step; return whether the worker still held it.

        The results are stored also where it did not, and where the tag is empty. Raises ``NotStored`` where nothing was
        acknowledged; any other error where that is not known: the message may be gone then, or not.
        """
        ...


@runtime_checkable
class Delegating(Protocol):
    """Settlements that let the process which runs a task acknowledge its message just before; an optional ability."""

    def delegate(self, receipt: Receipt) -> tuple[bytes, str] | None:
        """Return a pickled ``Delegate``, the same for all messages, and the tag by which it acknowledges this one.

        ``None`` where only the worker can. The receipt stays the worker's; it is void once that was done.
        """
        ...


@runtime_checkable
class Settling(Protocol):
    """A broker whose server may keep results too."""

    def settlements(self, results: Backend) -> Settlements | None:
        """Return what lands decisions in one step; ``None`` if these results are not on the broker's server."""
        ...


@runtime_checkable
class Migrating(Protocol):
    """A broker or a result store whose tables may be made by another role than the one that uses them.

    :ivar tables: for each part of them the SQL that makes it in an empty schema.
    """

    tables: Mapping[str, str]

    async def migrate(self) -> Sequence[str]:
        """Bring the tables up to date; return the steps that were done. Raises where this role may not."""
        ...
