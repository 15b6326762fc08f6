"""Steps that the suites share."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from celeriac.contracts.broker import Broker, Delivery, Subscription
from celeriac.wire.envelope import Envelope, Route, Unreadable

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds after which a test gives up a wait."""


def fresh_queue() -> str:
    """Return a unique queue name."""
    return f"q-{uuid.uuid4().hex[:12]}"


def numbered(number: int, priority: int = 0) -> Envelope:
    """Make a message that carries a number."""
    return Envelope(body=str(number).encode(), content_type="application/json", priority=priority)


async def publish_numbers(broker: Broker, queue: str, numbers: Sequence[int]) -> None:
    """Publish a message for each number, one after the other."""
    for number in numbers:
        await broker.publish(numbered(number), Route(queue, queue=queue))


async def bury_numbers(broker: Broker, queue: str, numbers: Sequence[int]) -> None:
    """Publish, take and bury a message for each number."""
    await publish_numbers(broker, queue, numbers)
    async with broker.subscribe([queue]) as subscription:
        for _ in numbers:
            await (await take_some(subscription, 1))[0].receipt.bury("beyond help")


async def take_some(subscription: Subscription, limit: int) -> list[Delivery]:
    """Take at least one message, soon."""
    taken = await soon(subscription.take(limit))
    assert 1 <= len(taken) <= limit
    return taken


async def take_all(subscription: Subscription, count: int) -> list[Delivery]:
    """Take until there are ``count`` messages."""
    taken: list[Delivery] = []
    while len(taken) < count:
        taken += await take_some(subscription, count)
    return taken


async def drain(subscription: Subscription, count: int, limit: int = 100) -> list[int]:
    """Take and acknowledge ``count`` messages; return their numbers."""
    numbers: list[int] = []
    while len(numbers) < count:
        for delivery in await take_some(subscription, limit):
            numbers.append(number_of(delivery))
            await delivery.receipt.ack()
    return numbers


async def take_everything(subscriptions: Sequence[Subscription], count: int) -> list[int]:
    """Take and acknowledge ``count`` messages in all by takers side by side; return their numbers."""
    numbers: list[int] = []

    async def work(subscription: Subscription) -> None:
        while len(numbers) < count:
            taken = await subscription.take(20)
            numbers.extend(number_of(delivery) for delivery in taken)
            await asyncio.gather(*[delivery.receipt.ack() for delivery in taken])
        await asyncio.gather(*[other.stop() for other in subscriptions])

    await soon(asyncio.gather(*[work(subscription) for subscription in subscriptions]))
    return numbers


async def soon(awaitable: Awaitable[T]) -> T:
    """Wait for what should come at once."""
    async with asyncio.timeout(PATIENCE):
        return await awaitable


def envelope_of(delivery: Delivery) -> Envelope:
    """Return the envelope of a delivery that could be read."""
    assert isinstance(delivery.envelope, Envelope)
    return delivery.envelope


def number_of(delivery: Delivery) -> int:
    """Return the number that a delivery carries."""
    return number_in(delivery.envelope)


def number_in(envelope: Envelope | Unreadable) -> int:
    """Return the number that an envelope carries."""
    assert isinstance(envelope, Envelope)
    return int(envelope.body)
