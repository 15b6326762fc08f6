"""The right to settle one message that was taken from a table."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from celeriac.contracts.board import Mark
from celeriac.contracts.server import Landing
from celeriac.contracts.set_aside import Failed
from celeriac.errors import BrokerError, DeliveryLost
from celeriac.servers.queue_rows import Settlement, TakenMessage, Verb


class Keeper(Protocol):
    """What keeps the message."""

    @property
    def settle(self) -> Settle:
        """Settles messages."""
        ...


class Settle(Protocol):
    """Settles one message; calls at the same time share round trips."""

    def __call__(self, settlement: Settlement, /) -> Awaitable[None]: ...


class RowReceipt:
    """See ``celeriac.contracts.broker.Receipt``."""

    __slots__ = ("_keeper", "_message", "_spent")

    def __init__(self, keeper: Keeper, message: TakenMessage) -> None:
        self._keeper = keeper
        self._message = message
        self._spent = False

    async def ack(self, *, surely: bool = False) -> None:
        await self._settle("ack")

    async def requeue(self) -> None:
        await self._settle("requeue")

    async def park(self, due: float) -> None:
        await self._settle("park", due)

    async def bury(self, reason: str) -> None:
        await self._settle("bury", reason)

    async def fail(self, failed: Failed) -> None:
        await self._settle("fail", failed)

    async def settle_and_unmark(self, mark: Mark, kept: str | Failed | None = None) -> None:
        """See ``celeriac.contracts.broker.UnmarkingReceipt``."""
        verb: Verb = "ack" if kept is None else "fail" if isinstance(kept, Failed) else "bury"
        await self._settle(verb, kept, mark)

    def spend_for(self, landing: Landing) -> Settlement:
        """Return the settlement of a landing, and make this receipt void. Raises as ``spend``."""
        if landing.failed is not None:
            return self.spend("fail", landing.failed, landing.mark)
        return self.spend("ack" if landing.buried is None else "bury", landing.buried, landing.mark)

    def spend(
        self, verb: Verb, detail: float | str | Failed | None = None, mark: Mark | None = None
    ) -> Settlement:
        """Return the settlement of the message, and make this receipt void. Raises ``DeliveryLost`` if it is void.

        A process may take a message again that it gave back. The database cannot tell its old receipt from the new one,
        so each knows its take.
        """
        message = self._message
        if self._spent:
            raise DeliveryLost(f"message {message.id} of queue {message.queue!r} was settled before")
        self._spent = True
        return self.settlement(verb, detail, mark)

    def settlement(
        self, verb: Verb, detail: float | str | Failed | None = None, mark: Mark | None = None
    ) -> Settlement:
        """Return the settlement of the message; the receipt stays as it is, so the caller must own it alone."""
        message = self._message
        return Settlement(verb, message.id, message.owner, message.queue, detail, mark, message.take)

    def restore(self) -> None:
        """Make the receipt valid again, because the settlement failed."""
        self._spent = False

    async def _settle(
        self, verb: Verb, detail: float | str | Failed | None = None, mark: Mark | None = None
    ) -> None:
        settlement = self.spend(verb, detail, mark)
        try:
            await self._keeper.settle(settlement)
        except BrokerError:
            self.restore()
            raise
