"""The right to settle one message that was taken from a SQLite file."""

from __future__ import annotations

from celeriac.errors import BrokerError, DeliveryLost
from celeriac.servers.sqlite.messages import Settlement, TakenMessage, Verb
from celeriac.servers.sqlite.queue_file import QueueFile


class SqliteReceipt:
    """See ``celeriac.broker.Receipt``."""

    __slots__ = ("_file", "_message", "_spent")

    def __init__(self, file: QueueFile, message: TakenMessage) -> None:
        self._file = file
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

    def spend(self, verb: Verb, detail: float | str | None = None) -> Settlement:
        """Return the settlement of the message, and make this receipt void. Raises ``DeliveryLost`` if it is void.

        A process may take a message again that it gave back. The file cannot tell its old receipt from the new one.
        """
        message = self._message
        if self._spent:
            raise DeliveryLost(f"message {message.id} of queue {message.queue!r} was settled before")
        self._spent = True
        return self.settlement(verb, detail)

    def settlement(self, verb: Verb, detail: float | str | None = None) -> Settlement:
        """Return the settlement of the message; the receipt stays as it is, so the caller must own it alone."""
        message = self._message
        return Settlement(verb, message.id, message.owner, message.queue, detail)

    def restore(self) -> None:
        """Make the receipt valid again, because the settlement failed."""
        self._spent = False

    async def _settle(self, verb: Verb, detail: float | str | None = None) -> None:
        settlement = self.spend(verb, detail)
        try:
            await self._file.settle(settlement)
        except BrokerError:
            self.restore()
            raise
