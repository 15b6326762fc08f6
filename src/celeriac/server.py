"""The contract of a server that keeps queues and results: it lands the ending of a message in one step.

Rules: nothing can fall between what one ending changes. An optional ability is an optional object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from celeriac.backend import Backend, EncodedPart, EncodedResult, Standing
from celeriac.broker import Receipt
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
    """Makes the endings of messages durable where their queue and their results are on one server.

    :ivar limit: bytes of results, parts and messages, above which an ending does not go in one step.
    """

    limit: int

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


@runtime_checkable
class Settling(Protocol):
    """A broker whose server may keep results too."""

    def settlements(self, results: Backend) -> Settlements | None:
        """Return what lands endings in one step; ``None`` where these results are not on the broker's server."""
        ...
