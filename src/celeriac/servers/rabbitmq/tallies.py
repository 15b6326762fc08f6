"""Counts how often a message of a classic queue was handed out, where RabbitMQ only marks it as redelivered.

Rules: the mark stands for one hand-out, the first; each later one by a celeriac worker is in the ledger before the
worker has the message, and what comes back on purpose is taken off there before it comes back. So a message is never
handed out more often than is counted, but the first may have been a mere push to a worker that then died, or that was
not one of ours. Where the ledger cannot be written the message is handed out uncounted. What a quorum queue counts is
taken from it, and from nobody else: elsewhere the same header is a sender's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from celeriac.servers.rabbitmq.ledger import Ledger
from celeriac.servers.rabbitmq.protocol.errors import AmqpError
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.wire.preview import counted

_log = logging.getLogger("celeriac.broker.amqp")


class Tallies:
    """The counts of one broker's messages."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def begin(self, messages: Sequence[Inbound]) -> None:
        """Count that these are handed out. Never raises."""
        await self._write([_key_of(message) for message in messages if _is_ours_to_count(message)], 1)

    async def give_back(self, message: Inbound) -> None:
        """Count that this one, which was handed out, comes back unharmed. Never raises."""
        if not message.redelivered or _is_ours_to_count(message):
            await self._write([_key_of(message)], -1)

    async def excuse(self, messages: Iterable[Inbound]) -> None:
        """Count that these come back that nobody was handed, though RabbitMQ will mark them. Never raises."""
        await self._write([_key_of(message) for message in messages if not message.redelivered], -1)

    async def forget(self, message: Inbound) -> None:
        """Have this one count from the beginning, should it ever come again. Never raises."""
        if _is_ours_to_count(message) and (tally := self._ledger.tally(_key_of(message))):
            await self._write([_key_of(message)], -tally)

    def earlier(self, message: Inbound) -> int:
        """Return how often the message was handed out before this time, which is counted already."""
        tally = self._ledger.tally(_key_of(message)) if _is_ours_to_count(message) else 0
        return max(message.counted, tally)

    async def _write(self, keys: list[str], step: int) -> None:
        if not keys:
            return
        try:
            await self._ledger.count(keys, step)
        except AmqpError as error:
            _log.warning("%s could not be counted: %s", counted(len(keys), "delivery", "deliveries"), error)


def _is_ours_to_count(message: Inbound) -> bool:
    """Whether the message was marked and not counted by RabbitMQ, as quorum queues do."""
    return message.redelivered and not message.is_counted


def _key_of(message: Inbound) -> str:
    place = f"{message.queue}\0{message.exchange}\0{message.routing_key}\0".encode()
    return blake2b(place + message.header + message.body, digest_size=12).hexdigest()
