"""What is declared on the broker: queues, their exchanges and bindings, the queues of delays.

Rules: names and arguments are kombu's (Celery: "Using RabbitMQ", "Delayed Delivery"). A queue or exchange that is there
is taken as it is, unless options were given for it: then RabbitMQ compares, and a difference is an error that names it.
Each name is asked for once on a connection. Nothing is deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from pamqp.base import Frame

from celeriac.quantities import Check, or_none, require
from celeriac.servers.rabbitmq.envelopes import DELAYED_EXCHANGE
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import methods
from celeriac.servers.rabbitmq.protocol.connection import Connection
from celeriac.servers.rabbitmq.protocol.errors import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, Refused

DELAY_LEVELS = 28
"""kombu's: a delay is 28 bits of seconds, a queue for each."""

LONGEST_DELAY = 2**DELAY_LEVELS - 1
_LONGEST_DELAYED = 255 - 2 * DELAY_LEVELS
"""Bytes of a routing key that the bits of a delay leave free."""

FIRST_DELAY_EXCHANGE = f"celery_delayed_{DELAY_LEVELS - 1}"


_DELAYING: Mapping[str, Any] = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-dead-letter-strategy": "at-least-once",
}


PRIORITIES: Check = (
    "a whole number from 1 to 255",
    lambda value: type(value) is int and 1 <= value <= 255,
)


class QueueOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a queue is declared; a queue that is there must have the options that are given here.

    :param type: ``classic`` or ``quorum`` (``x-queue-type``); ``None`` leaves it to the broker.
    :param max_priority: ``x-max-priority``; without it a classic queue knows no priorities.
    :param exchange: the exchange it is bound to; one of its own name when not given, none when empty.
    :param exchange_type: ``direct``, ``topic`` or ``fanout``.
    :param routing_keys: what it is bound with; its own name when not given.
    :param arguments: further ``x-`` arguments.
    :param or_other: a queue that is there may have other options, and is taken as it is.
    """

    type: str | None = None
    max_priority: int | None = None
    exchange: str | None = None
    exchange_type: str = "direct"
    routing_keys: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = {}
    or_other: bool = False

    def __post_init__(self) -> None:
        require("max_priority", self.max_priority, or_none(PRIORITIES))

    def table(self) -> dict[str, Any]:
        """Return the arguments of the declaration."""
        table = dict(self.arguments)
        if self.type is not None:
            table["x-queue-type"] = self.type
        if self.max_priority is not None:
            table["x-max-priority"] = self.max_priority
        return table


PLAIN = QueueOptions()


def delay_key(seconds: int, routing_key: str) -> str:
    """Return the routing key that keeps a message for so many seconds (kombu: ``calculate_routing_key``)."""
    bits = format(min(max(seconds, 0), LONGEST_DELAY), f"0{DELAY_LEVELS}b")
    return ".".join((*bits, routing_key))


class Topology:
    """What this process has declared, or found declared.

    :param options: of single queues, by name; the others are declared as the URL says.
    :param on_new: called for each queue that was made here.
    :ivar soon: exchange and queue of delays under a second, which kombu does not know.
    :ivar delaying: the queues of delays, the shortest first.
    """

    def __init__(
        self,
        link: Link,
        options: Mapping[str, QueueOptions],
        soon: str,
        on_new: Callable[[str], Awaitable[None]],
    ) -> None:
        self.soon = soon
        self.delaying = (soon, *(f"celery_delayed_{level}" for level in range(DELAY_LEVELS)))
        self._link = link
        self._options = options
        target = link.target
        self._default = QueueOptions(type=target.queue_type, max_priority=target.max_priority)
        self._never = target.declare == "never"
        self._on_new = on_new
        self._connection: Connection | None = None
        self._queues: set[str] = set()
        self._exchanges: set[str] = set()
        self._delayed: set[str] = set()
        self._quorum: dict[str, bool | None] = {}
        self._plain: dict[str, bool] = {}
        self._delays = False
        self._turn = asyncio.Lock()
        self.seen: set[str] = set()

    async def have_queue(self, queue: str) -> None:
        """Make sure that the queue is there. Raises ``Refused`` or ``Unavailable``."""
        if await self._knows(self._queues, queue):
            return
        async with self._turn:
            if queue in self._queues:
                return
            made = False if self._never else await self._declare_queue(queue)
            if made:
                await self._on_new(queue)
            self._queues.add(queue)
            self.seen.add(queue)

    async def have_exchange(self, exchange: str) -> None:
        """Make sure that an exchange is there. Raises ``Refused``, which names it, if it is not."""
        if self._never or await self._knows(self._exchanges, exchange):
            return
        if not await self._has_exchange(exchange):
            raise Refused(
                f"there is no exchange {exchange!r}; declare it, or name a queue instead", NOT_FOUND
            )
        self._exchanges.add(exchange)

    async def have_delays(self, queue: str) -> None:
        """Make sure that messages can be kept for this queue. Raises ``Refused`` where they cannot."""
        if len(queue.encode()) > _LONGEST_DELAYED:
            raise Refused(
                f"the name of queue {queue!r:.50} is too long for the queues of delays, which take "
                f"{_LONGEST_DELAYED} bytes"
            )
        await self.have_queue(queue)
        if await self._knows(self._delayed, queue):
            return
        async with self._turn:
            if not self._delays:
                await self._have_levels()
                self._delays = True
            await self._delay_for(queue)

    async def _have_levels(self) -> None:
        there = await self._has_delays()
        if self._never:
            if not there or await self.count(self.soon) is None:
                raise Refused(
                    "the queues of delays are not all there, and declare=never forbids to make them"
                )
            return
        if not there:
            await self._ask_all(_levels())
        await self._ask_all(_soon(self.soon))

    async def use_delays(self, queue: str) -> None:
        """Let messages be kept for this queue, if there are queues of delays already."""
        if self._never or len(queue.encode()) > _LONGEST_DELAYED or await self._knows(self._delayed, queue):
            return
        async with self._turn:
            self._delays = self._delays or (
                await self._has_delays() and await self.count(self.soon) is not None
            )
            if self._delays:
                await self._delay_for(queue)

    async def _delay_for(self, queue: str) -> None:
        if self._never:
            self._delayed.add(queue)
            return
        # A key stands directly behind the bits: a queue "b" must get no message that is for a queue "a.b".
        keys = dict.fromkeys((queue, *self._options.get(queue, self._default).routing_keys))
        await self._ask_all(
            [methods.bind_queue(queue, DELAYED_EXCHANGE, "*." * DELAY_LEVELS + key) for key in keys]
        )
        self._delayed.add(queue)

    async def _has_delays(self) -> bool:
        looks = [methods.look_for_exchange(DELAYED_EXCHANGE)]
        looks += [methods.look_for_queue(f"celery_delayed_{level}") for level in range(DELAY_LEVELS)]
        try:
            await self._ask_all(looks)
        except Refused as error:
            if error.code != NOT_FOUND:
                raise
            return False
        return True

    async def _ask_all(self, asked: Sequence[Frame]) -> list[Any]:
        async with self._link.passing_channel() as channel:
            return await asyncio.gather(*[channel.start(method) for method in asked])

    def forget_queue(self, queue: str) -> None:
        """Forget that this queue was there: a message for it came back."""
        self._queues.discard(queue)
        self._delayed.discard(queue)
        self._quorum.pop(queue, None)
        self._plain.pop(queue, None)

    async def count(self, queue: str) -> int | None:
        """Return how many messages are ready in a queue, ``None`` where there is no such queue."""
        answer = await self._look_for(queue)
        return None if answer is None else int(answer.message_count)

    async def count_both(self, queue: str) -> tuple[int, int]:
        """Return how many messages are ready in a queue, and its consumers; none where there is no such queue."""
        answer = await self._look_for(queue)
        return (0, 0) if answer is None else (int(answer.message_count), int(answer.consumer_count))

    async def _look_for(self, queue: str) -> Any:
        try:
            return await self._ask(methods.look_for_queue(queue))
        except Refused as error:
            if error.code == NOT_FOUND:
                return None
            raise

    async def counts_deliveries(self, queue: str) -> bool | None:
        """Whether it is a quorum queue, which counts how often each message was handed out; ``None``: not to be known.

        Asked by declaring it as one, which RabbitMQ refuses for another.
        """
        if queue not in self._quorum:
            try:
                await self._ask(methods.declare_queue(queue, {"x-queue-type": "quorum"}))
            except Refused as error:
                known = "'x-queue-type'" in str(error) or "'durable'" in str(error)
                self._quorum[queue] = False if known else None
            else:
                self._quorum[queue] = True
        return self._quorum[queue]

    async def is_plain(self, queue: str) -> bool:
        """Whether it is a durable classic queue without further arguments, of which no priority goes first.

        Asked by declaring it as one, which RabbitMQ refuses for another. ``False`` where that is not to be known.
        """
        if queue not in self._plain:
            try:
                await self._ask(methods.declare_queue(queue, {"x-queue-type": "classic"}))
            except Refused:
                self._plain[queue] = False
            else:
                self._plain[queue] = True
        return self._plain[queue]

    async def count_delayed(self) -> list[int]:
        """Return how many messages are in each of the queues of ``delaying``."""
        try:
            answers = await self._ask_all([methods.look_for_queue(queue) for queue in self.delaying])
        except Refused as error:
            if error.code == NOT_FOUND:
                return [0] * len(self.delaying)
            raise
        return [answer.message_count for answer in answers]

    async def _knows(self, names: set[str], name: str) -> bool:
        """Whether it was seen on the connection that is open now."""
        connection = await self._link.connection()
        if connection is not self._connection:
            self._connection = connection
            self._delays = False
            for known in (self._queues, self._exchanges, self._delayed):
                known.clear()
        return name in names

    async def _declare_queue(self, queue: str) -> bool:
        """Return whether it is new."""
        options = self._options.get(queue, self._default)
        exchange = queue if options.exchange is None else options.exchange
        count, has_exchange = await asyncio.gather(self.count(queue), self._has_exchange(exchange))
        there = count is not None
        if there and (options == PLAIN or options.or_other):
            return False
        asked = [methods.declare_queue(queue, options.table())]
        if exchange and (not has_exchange or queue in self._options):
            asked.append(methods.declare_exchange(exchange, options.exchange_type))
        if exchange:
            keys = options.routing_keys or (queue,)
            asked += [methods.bind_queue(queue, exchange, key) for key in keys]
        try:
            await self._ask_all(asked)
        except Refused as error:
            if there and error.code == ACCESS_REFUSED:
                return False
            raise _explained(error, queue) from error
        return not there

    async def _has_exchange(self, exchange: str) -> bool:
        if not exchange:
            return True
        try:
            await self._ask(methods.look_for_exchange(exchange))
        except Refused as error:
            if error.code == NOT_FOUND:
                return False
            raise
        return True

    async def _ask(self, method: Frame) -> Any:
        """Ask on a channel of its own: a refusal closes it."""
        async with self._link.passing_channel() as channel:
            return await channel.call(method)


def _explained(error: Refused, queue: str) -> Refused:
    if error.code == PRECONDITION_FAILED:
        return Refused(
            f"queue {queue!r} cannot be had as it was asked for: {error}; ask for what is there, or delete it and "
            "let it be made anew",
            error.code,
        )
    if error.code == ACCESS_REFUSED:
        return Refused(
            f"queue {queue!r} is not there and may not be made: {error}; give this user the right to configure it, or "
            "have another user declare it and add ?declare=never to the URL",
            error.code,
        )
    return error


def _levels() -> list[Frame]:
    """Return the declarations of the queues of delays (kombu: ``declare_native_delayed_delivery_...``)."""
    asked = [methods.declare_exchange(DELAYED_EXCHANGE, "topic")]
    for level in reversed(range(DELAY_LEVELS)):
        name, stars = f"celery_delayed_{level}", "*." * (DELAY_LEVELS - 1 - level)
        asked += [
            methods.declare_exchange(name, "topic"),
            methods.declare_queue(name, {**_DELAYING, "x-message-ttl": 2**level * 1000, **_then(level)}),
            methods.bind_queue(name, name, f"{stars}1.#"),
        ]
    for level in reversed(range(DELAY_LEVELS)):
        stars = "*." * (DELAY_LEVELS - 1 - level)
        following = _then(level)["x-dead-letter-exchange"]
        asked.append(methods.bind_exchange(f"celery_delayed_{level}", following, f"{stars}0.#"))
    return asked


def _soon(name: str) -> list[Frame]:
    return [
        methods.declare_exchange(name, "fanout"),
        methods.declare_queue(name, {**_DELAYING, "x-dead-letter-exchange": DELAYED_EXCHANGE}),
        methods.bind_queue(name, name, ""),
    ]


def _then(level: int) -> dict[str, str]:
    return {"x-dead-letter-exchange": f"celery_delayed_{level - 1}" if level else DELAYED_EXCHANGE}
