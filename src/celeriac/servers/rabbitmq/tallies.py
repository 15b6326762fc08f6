"""Counts how often a message of a classic queue was handed out, where RabbitMQ only marks it as redelivered.

Rules: RabbitMQ's mark stands for one delivery, the first. Each later one by a celeriac worker is in the ledger before
the worker has the message, and a message that comes back on purpose is taken off there before it comes back. So a
message is never handed out more often than is counted. The first delivery may be counted too much: the message may have
been pushed to a worker that died before it took it, or to a worker of another library. Where the ledger cannot be
written the message is handed out uncounted. A quorum queue's own count is taken from RabbitMQ; in other queues the same
header is the sender's, and is ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from celeriac.servers.rabbitmq.ledger import Entry, Ledger, drop_oldest
from celeriac.servers.rabbitmq.protocol.errors import AmqpError
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.wire.preview import counted

_log = logging.getLogger("celeriac.broker.amqp")


class Tallies:
    """The counts of one broker's messages."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._steps: dict[str, dict[int, int]] = {}  # by message: the step of each entry, by its number
        ledger.readers.append(self._read)

    async def begin(self, messages: Sequence[Inbound]) -> None:
        """Count that these are handed out. Never raises."""
        await self._write([_key_of(message) for message in messages if _is_ours_to_count(message)], 1)

    async def give_back(self, message: Inbound) -> None:
        """Count that this one, which was handed out, comes back unharmed. Never raises."""
        if not message.redelivered or _is_ours_to_count(message):
            await self._write([_key_of(message)], -1)

    async def excuse(self, messages: Iterable[Inbound]) -> None:
        """Count that these come back though no worker was given them: RabbitMQ will mark them. Never raises."""
        await self._write([_key_of(message) for message in messages if not message.redelivered], -1)

    async def forget(self, message: Inbound) -> None:
        """Have its count begin at zero if it ever comes again. Never raises."""
        if tally := self._tally(message):
            await self._write([_key_of(message)], -tally)

    def was_given_back(self, message: Inbound) -> bool:
        """Whether it is marked as redelivered since a worker gave it back, and no worker of ours was given it since."""
        steps = self._steps.get(_key_of(message), {})
        return next(reversed(steps.values()), 0) < 0

    def earlier(self, message: Inbound) -> int:
        """Return how often the message was handed out before this time, which is counted already."""
        return max(message.counted, self._tally(message))

    def _tally(self, message: Inbound) -> int:
        return sum(self._steps.get(_key_of(message), {}).values()) if _is_ours_to_count(message) else 0

    def _read(self, entry: Entry) -> None:
        if entry.counted:
            for key in entry.counted:
                self._steps.setdefault(key, {})[entry.number] = entry.step
            drop_oldest(self._steps)

    async def _write(self, keys: list[str], step: int) -> None:
        if not keys:
            return
        try:
            await self._ledger.append(Entry(counted=keys, step=step))
        except AmqpError as error:
            _log.warning("%s could not be counted: %s", counted(len(keys), "delivery", "deliveries"), error)


def _is_ours_to_count(message: Inbound) -> bool:
    """Whether RabbitMQ marked the message, and did not count it as quorum queues do."""
    return message.redelivered and not message.is_counted


def _key_of(message: Inbound) -> str:
    place = f"{message.queue}\0{message.exchange}\0{message.routing_key}\0".encode()
    return blake2b(place + message.header + message.body, digest_size=12).hexdigest()
