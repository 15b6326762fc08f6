"""Publishes task messages: sets their times, encodes them, routes them, and hands them to the broker.

Rules: all messages of a call are encoded before any is sent, so that an error of the last one leaves none half sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from celeriac.broker import Broker
from celeriac.canvas.budget import Budget
from celeriac.canvas.launch import FollowUp
from celeriac.clock import Clock, SystemClock
from celeriac.errors import BrokerUnavailable, EncodeError
from celeriac.routing import NO_OPTIONS, SendOptions, route
from celeriac.settings import Settings
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.task import TaskMessage, encode

__all__ = ["Publisher", "SendOptions"]

_WITHOUT_PAUSE = 100
_BYTES_WITHOUT_PAUSE = 1024 * 1024
"""The most messages, and the most bytes, that are encoded before the event loop gets a turn."""


class Publisher:
    """Publishes task messages on one broker.

    Of ``SendOptions`` it uses the place (queue, exchange, routing key), the form (serializer, compression, publish
    retries), and the times (countdown, eta, expires) that the message does not have itself. It ignores the others.
    """

    def __init__(
        self, broker: Broker, codecs: Codecs, settings: Settings, clock: Clock | None = None
    ) -> None:
        self.broker = broker
        self._codecs = codecs
        self._settings = settings
        self._now = (clock or SystemClock()).now

    async def publish(self, message: TaskMessage, options: SendOptions = NO_OPTIONS) -> None:
        """Return when the broker has the message.

        Raises ``EncodeError`` before anything is sent, ``BrokerUnavailable`` when the broker did not take it in time,
        ``BrokerError`` when it refused.
        """
        envelope, to = self._prepare(message, options)
        attempt = 1
        while True:
            try:
                return await self.broker.publish(envelope, to)
            except BrokerUnavailable as error:
                if options.retry is None or not options.retry.wants(error, attempt):
                    raise
                await asyncio.sleep(options.retry.delay(attempt, random.random))
                attempt += 1

    def prepare_one(self, message: TaskMessage, options: SendOptions = NO_OPTIONS) -> tuple[Envelope, Route]:
        """Encode and route a message. Raises ``EncodeError``."""
        return self._prepare(message, options)

    async def publish_many(self, messages: Iterable[tuple[TaskMessage, SendOptions]]) -> None:
        """Publish all in a few round trips, in order. Raises as ``publish`` does; some may then have been published."""
        await self.broker.publish_many([self._prepare(message, options) for message, options in messages])

    async def publish_workflow(
        self,
        follow_ups: Sequence[FollowUp],
        defaults: Callable[[str], SendOptions],
        once: str | None = None,
    ) -> bool:
        """Publish the messages of a workflow in a few round trips, in order. Raises as ``publish_many``.

        Return ``False`` if they were published under the key before.

        :param defaults: returns the options of a task's calls; they place a message that has no place of its own.
        :param once: the key under which they are published only once, however many try; see ``Broker.publish_once``.
        """
        if once is not None and follow_ups:
            prepared = [self._prepare(*_as_sent(follow_up, defaults)) for follow_up in follow_ups]
            return await self.broker.publish_once(once, prepared)
        if len(follow_ups) == 1:
            await self.publish(*_as_sent(follow_ups[0], defaults))
        elif follow_ups:
            await self.publish_many([_as_sent(follow_up, defaults) for follow_up in follow_ups])
        return True

    async def prepare(
        self, follow_ups: Sequence[FollowUp], defaults: Callable[[str], SendOptions], budget: Budget
    ) -> list[tuple[Envelope, Route]]:
        """Encode and route the messages of a workflow, with pauses that give the event loop a turn.

        Raises ``EncodeError`` if one cannot be encoded, or they exceed the budget.
        """
        prepared: list[tuple[Envelope, Route]] = []
        size = paused_at = 0
        for number, follow_up in enumerate(follow_ups, 1):
            envelope, to = self._prepare(*_as_sent(follow_up, defaults))
            prepared.append((envelope, to))
            size += len(envelope.body)
            if (excess := budget.exceeded(max(number, len(follow_ups)), size)) is not None:
                raise EncodeError(f"too much is to be sent at once: {excess}")
            if number % _WITHOUT_PAUSE == 0 or size - paused_at > _BYTES_WITHOUT_PAUSE:
                paused_at = size
                await asyncio.sleep(0)
        return prepared

    async def publish_prepared(
        self, prepared: Sequence[tuple[Envelope, Route]], once: str | None = None
    ) -> bool:
        """Publish the messages that ``prepare`` returned; otherwise as ``publish_workflow``."""
        if once is not None:
            return await self.broker.publish_once(once, prepared)
        if len(prepared) == 1:
            await self.broker.publish(*prepared[0])
        else:
            await self.broker.publish_many(prepared)
        return True

    def _prepare(self, message: TaskMessage, options: SendOptions) -> tuple[Envelope, Route]:
        now = None
        timed = options.countdown is not None or options.eta is not None or options.expires is not None
        if timed or message.expires is not None:
            now = datetime.fromtimestamp(self._now(), UTC)
            message = _timed(message, options, now)
        envelope = encode(
            message,
            self._codecs,
            serializer=options.serializer or self._settings.serializer,
            compression=options.compression or self._settings.compression,
            now=now,
        )
        to = route(options, self._settings.default_queue)
        if message.eta is not None:
            eta = message.eta if message.eta.tzinfo is not None else message.eta.replace(tzinfo=UTC)
            to = msgspec.structs.replace(to, due=eta.timestamp())
        return envelope, to


def _as_sent(follow_up: FollowUp, defaults: Callable[[str], SendOptions]) -> tuple[TaskMessage, SendOptions]:
    usual = defaults(follow_up.message.task)
    elsewhere = not (follow_up.queue or follow_up.exchange or follow_up.routing_key)
    options = SendOptions(
        queue=usual.queue if elsewhere else follow_up.queue,
        exchange=usual.exchange if elsewhere else follow_up.exchange,
        routing_key=usual.routing_key if elsewhere else follow_up.routing_key,
        countdown=follow_up.countdown,
        eta=follow_up.eta,
        expires=follow_up.expires,
        serializer=follow_up.serializer or usual.serializer,
        compression=follow_up.compression or usual.compression,
        retry=follow_up.retry,
    )
    return follow_up.message, options


def _timed(message: TaskMessage, options: SendOptions, now: datetime) -> TaskMessage:
    eta, expires = message.eta, message.expires
    if eta is None:
        eta = options.eta if options.countdown is None else now + timedelta(seconds=options.countdown)
    if expires is None and options.expires is not None:
        expires = (
            options.expires
            if isinstance(options.expires, datetime)
            else now + timedelta(seconds=options.expires)
        )
    return msgspec.structs.replace(message, eta=eta, expires=expires)
