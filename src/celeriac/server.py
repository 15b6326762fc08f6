"""The contract of a server: what one place offers to those who send, work and wait.

Rules: a server owns its connections; its broker and its result store share them. An optional ability is an optional
object. Bound to the event loop that first used it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from celeriac.backend import Backend, EncodedPart, EncodedResult, Standing
from celeriac.broker import Broker, Receipt
from celeriac.wire.envelope import Envelope, Route


class Landing(msgspec.Struct, frozen=True):
    """What one ending changes on the server.

    :param receipt: of the message that ended; settled with the rest.
    :param buried: why the message goes to the dead-letter list; ``None`` acknowledges it.
    :param held: store and count only: the caller publishes and settles with a second landing.
    """

    receipt: Receipt
    results: Sequence[EncodedResult] = ()
    parts: Sequence[EncodedPart] = ()
    messages: Sequence[tuple[Envelope, Route]] = ()
    buried: str | None = None
    held: bool = False


class Settlements(Protocol):
    """Makes the endings of messages durable where their queue and their results are on one server."""

    async def land(self, landing: Landing) -> Sequence[Standing]:
        """Store the results, count the parts, publish the messages and settle the receipt, in one step.

        Return how the chord of each part stands, or nothing where all was done. Where a part gives a claim, or finds
        one held, nothing is published or settled yet: the caller sends the chord's body first, then lands the rest.
        Concurrent calls share round trips; what is refused for one harms no other.

        Raises ``DeliveryLost`` when the receipt is void, in which case nothing was changed; ``BrokerUnavailable``
        when the server is away, after which the same call may be made again; ``BackendError`` or ``BrokerError``
        when it refuses.
        """
        ...


class Server(Protocol):
    """One place that keeps messages, results, or both.

    :ivar broker: its queues, ``None`` where it has none.
    :ivar results: its result store, ``None`` where it has none.
    :ivar settlements: lands an ending in one step; ``None`` where broker and results are not one.
    """

    @property
    def broker(self) -> Broker | None: ...

    @property
    def results(self) -> Backend | None: ...

    @property
    def settlements(self) -> Settlements | None: ...

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        ...
