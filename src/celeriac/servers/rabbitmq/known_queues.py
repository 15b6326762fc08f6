"""The queues that celeriac processes declared, as the ledger lists them: AMQP itself cannot list queues."""

from __future__ import annotations

import logging

from celeriac.servers.rabbitmq.ledger import MOST, Entry, Ledger
from celeriac.servers.rabbitmq.protocol.errors import AmqpError

_log = logging.getLogger("celeriac.broker.amqp")


class KnownQueues:
    """The names of one broker's queues.

    :ivar names: of the queues that some process declared.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ours = ledger.name.rpartition(".")[0]
        self.names: set[str] = set()
        ledger.readers.append(self._read)

    async def note(self, queue: str) -> None:
        """Tell the other processes of a queue. Never raises: nothing but a listing depends on it."""
        if queue in self.names or queue.startswith(self._ours):
            return
        self.names.add(queue)
        try:
            await self._ledger.append(Entry(queue=queue))
        except AmqpError as error:
            _log.debug("queue %s could not be noted: %s", queue, error)

    def _read(self, entry: Entry) -> None:
        if entry.queue is not None and len(self.names) < MOST:
            self.names.add(entry.queue)
