"""Publishes task messages: sets their times, encodes them, routes them, and hands them to the broker.

Rules: all messages of a call are encoded before any is sent, so that an error of the last one leaves none half sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from celeriac.canvas.budget import Budget
from celeriac.canvas.launch import FollowUp
from celeriac.client.send_listeners import Outgoing, SendListeners
from celeriac.clock import Clock, SystemClock
from celeriac.contracts.broker import Broker
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
        self,
        broker: Broker,
        codecs: Codecs,
        settings: Settings,
        clock: Clock | None = None,
        listeners: SendListeners | None = None,
    ) -> None:
        self.broker = broker
        self._listeners = SendListeners() if listeners is None else listeners
        self._codecs = codecs
        self._settings = settings
        self._now = (clock or SystemClock()).now

    async def publish(self, message: TaskMessage, options: SendOptions = NO_OPTIONS) -> None:
        """Return when the broker has the message.

        Raises ``EncodeError`` before anything is sent, ``BrokerUnavailable`` when the broker did not take it in time,
        ``BrokerError`` when it refused.
        """
        if self._listeners:
            await self._publish_told([(message, options)])
        else:
            await self._publish(*self._prepare(message, options), options)

    async def _publish(self, envelope: Envelope, to: Route, options: SendOptions) -> None:
        attempt = 1
        while True:
            try:
                return await self.broker.publish(envelope, to)
            except BrokerUnavailable as error:
                if options.retry is None or not options.retry.wants(error, attempt):
                    raise
                await asyncio.sleep(options.retry.delay(attempt, random.random))
                attempt += 1

    def prepare_many(
        self, messages: Iterable[tuple[TaskMessage, SendOptions]]
    ) -> list[tuple[Envelope, Route]]:
        """Encode and route messages that others publish; the listeners are called for them. Raises ``EncodeError``."""
        if not self._listeners:
            return [self._prepare(message, options) for message, options in messages]
        given = list(messages)
        batch = [self._outgoing(message, options) for message, options in given]
        done = self._listeners.sending(batch)
        try:
            prepared = [
                self._prepare(message, options, outgoing.headers)
                for (message, options), outgoing in zip(given, batch, strict=True)
            ]
        except BaseException as error:
            done(error)
            raise
        done(None)
        return prepared

    def prepare_workflow(
        self, follow_ups: Sequence[FollowUp], defaults: Callable[[str], SendOptions]
    ) -> list[tuple[Envelope, Route]]:
        """As ``prepare_many`` for the first messages of a workflow."""
        return self.prepare_many([_as_sent(follow_up, defaults) for follow_up in follow_ups])

    async def publish_many(self, messages: Iterable[tuple[TaskMessage, SendOptions]]) -> None:
        """Publish all in a few round trips, in order. Raises as ``publish`` does; some may then have been published."""
        if self._listeners:
            await self._publish_told(list(messages))
        else:
            await self.broker.publish_many([self._prepare(message, options) for message, options in messages])

    async def _publish_told(
        self, messages: Sequence[tuple[TaskMessage, SendOptions]], once: str | None = None
    ) -> bool:
        """Publish, and tell the listeners before and after."""
        batch = [self._outgoing(message, options) for message, options in messages]
        done = self._listeners.sending(batch)
        published = True
        try:
            prepared = [
                self._prepare(message, options, outgoing.headers)
                for (message, options), outgoing in zip(messages, batch, strict=True)
            ]
            if once is not None:
                published = await self.broker.publish_once(once, prepared)
            elif len(prepared) == 1:
                await self._publish(*prepared[0], messages[0][1])
            else:
                await self.broker.publish_many(prepared)
        except BaseException as error:
            done(error)
            raise
        done(None)
        return published

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
        messages = [_as_sent(follow_up, defaults) for follow_up in follow_ups]
        if self._listeners and messages:
            return await self._publish_told(messages, once)
        if once is not None and follow_ups:
            return await self.broker.publish_once(once, [self._prepare(*message) for message in messages])
        if len(messages) == 1:
            await self.publish(*messages[0])
        elif messages:
            await self.publish_many(messages)
        return True

    async def prepare(
        self, follow_ups: Sequence[FollowUp], defaults: Callable[[str], SendOptions], budget: Budget
    ) -> list[tuple[Envelope, Route]]:
        """Encode and route the messages of a workflow, with pauses that give the event loop a turn.

        Raises ``EncodeError`` if one cannot be encoded, or they exceed the budget.
        """
        if not self._listeners:
            return await self._prepare_all(follow_ups, defaults, budget)
        batch = [self._outgoing(*_as_sent(follow_up, defaults), follows=True) for follow_up in follow_ups]
        done = self._listeners.sending(batch)
        try:
            prepared = await self._prepare_all(
                follow_ups, defaults, budget, [outgoing.headers for outgoing in batch]
            )
        except BaseException as error:
            done(error)
            raise
        done(None)
        return prepared

    async def _prepare_all(
        self,
        follow_ups: Sequence[FollowUp],
        defaults: Callable[[str], SendOptions],
        budget: Budget,
        headers: Sequence[Mapping[str, Any]] = (),
    ) -> list[tuple[Envelope, Route]]:
        prepared: list[tuple[Envelope, Route]] = []
        size = paused_at = 0
        for number, follow_up in enumerate(follow_ups, 1):
            added = headers[number - 1] if headers else None
            envelope, to = self._prepare(*_as_sent(follow_up, defaults), added)
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

    def _outgoing(self, message: TaskMessage, options: SendOptions, *, follows: bool = False) -> Outgoing:
        return Outgoing(message, route(options, self._settings.default_queue), follows=follows)

    def _prepare(
        self, message: TaskMessage, options: SendOptions, headers: Mapping[str, Any] | None = None
    ) -> tuple[Envelope, Route]:
        if headers:
            message = msgspec.structs.replace(message, headers={**message.headers, **headers})
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
            sent=self._now(),
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
