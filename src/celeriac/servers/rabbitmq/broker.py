"""The broker of RabbitMQ: makes its parts, and answers the questions that need no part of their own.

Rules: all parts share one connection. Queues and exchanges are declared as Celery declares them, so that its workers
and clients can use them too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from weakref import WeakSet

from celeriac.clock import Clock, SystemClock
from celeriac.contracts.broker import Beat, QueueState, Survey
from celeriac.contracts.removal import Removed, Unwanted
from celeriac.contracts.set_aside import Cap
from celeriac.contracts.transactions import Transactions
from celeriac.errors import BrokerError, BrokerUnavailable, Finding
from celeriac.quantities import require
from celeriac.servers.rabbitmq.board import AmqpBoard
from celeriac.servers.rabbitmq.browsing import look_into
from celeriac.servers.rabbitmq.copies import as_copies
from celeriac.servers.rabbitmq.dead import AmqpDeadLetters, AmqpFailed, Graveyard
from celeriac.servers.rabbitmq.dispatcher import Dispatcher
from celeriac.servers.rabbitmq.envelopes import SOON, read
from celeriac.servers.rabbitmq.fanout import AmqpFanout
from celeriac.servers.rabbitmq.known_queues import KnownQueues
from celeriac.servers.rabbitmq.ledger import Ledger
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.notices import Notices
from celeriac.servers.rabbitmq.orphans import NoticeTimes, Orphans
from celeriac.servers.rabbitmq.protocol import methods
from celeriac.servers.rabbitmq.protocol.errors import NOT_FOUND, Refused
from celeriac.servers.rabbitmq.rerouting import Rerouting
from celeriac.servers.rabbitmq.rights import RightsCheck
from celeriac.servers.rabbitmq.schedule import AmqpSchedule
from celeriac.servers.rabbitmq.subscription import AmqpSubscription
from celeriac.servers.rabbitmq.tallies import Tallies
from celeriac.servers.rabbitmq.topology import QueueOptions, Topology
from celeriac.settings import PRIORITIES, Priorities
from celeriac.wire.envelope import Envelope, Route, Unreadable

OUR_PREFIX = "celeriac."

_MOST_KEPT = 2**31 - 1
_LONGEST_TTL = 2**32 - 1
"""Milliseconds; RabbitMQ takes no more."""


class AmqpBroker:
    """Queues in one RabbitMQ; see ``celeriac.contracts.broker.Broker``.

    :param url: see ``celeriac.servers.rabbitmq.protocol.url.parse_amqp_url``.
    :param queues: how single queues are declared, by name; the others as the URL says.
    :param priorities: what the numbers mean: ``celery``, the highest is taken first; ``lowest_first``, 0 is.
    :param prefix: begins the names of celeriac's own queues, ``dead``, ``failed`` and ``ledger``.
    :param timeout: seconds for any one call.
    :param clock: tells when a parked message is due.
    :param failed: how much the failed list keeps, where its queue is made here.
    :param link: the connection, where there is one to this URL already.
    :param notices: for how long what workers say of lost connections counts.
    """

    may_repeat = True
    tells_taken = shows_heads = False
    removal_reach = 1000
    beat: Beat | None = None
    transactions: Transactions | None = None

    def __init__(
        self,
        url: str,
        *,
        queues: Mapping[str, QueueOptions] | None = None,
        priorities: Priorities = "celery",
        prefix: str = OUR_PREFIX,
        timeout: float = 5.0,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        link: Link | None = None,
        failed: Cap = Cap(),  # noqa: B008 - it has no state
        notices: NoticeTimes = NoticeTimes(),  # noqa: B008 - it has no state
    ) -> None:
        dead, kept = f"{prefix}dead", f"{prefix}failed"
        options = {
            dead: QueueOptions(type="classic", exchange=""),
            kept: _capped(failed),
            **(queues or {}),
        }
        self.link = link or Link(url, timeout=timeout)
        self._ledger = Ledger(self.link, f"{prefix}ledger")
        self._known_queues = KnownQueues(self._ledger)
        self._topology = Topology(self.link, options, SOON, self._known_queues.note)
        require("priorities", priorities, PRIORITIES)
        lowest_first = self._lowest_first = priorities == "lowest_first"
        self._dispatcher = Dispatcher(self.link, self._topology, clock, lowest_first=lowest_first)
        self._tallies = Tallies(self._ledger)
        self._orphans = Orphans(self.link, Notices(self._ledger, clock), self._tallies, clock, notices)
        graveyard = Graveyard(self._dispatcher, dead)
        failing = Graveyard(self._dispatcher, kept)
        self._rerouting = Rerouting(self.link, self._dispatcher, graveyard, failing, self._tallies, clock)
        self._dead = AmqpDeadLetters(
            self.link, self._topology, self._dispatcher, dead, lowest_first=lowest_first
        )
        self._failed = AmqpFailed(
            AmqpDeadLetters(self.link, self._topology, self._dispatcher, kept, lowest_first=lowest_first),
            failing,
            clock,
        )
        self._schedule = AmqpSchedule(self.link, self._topology, clock, lowest_first=lowest_first)
        self._board = AmqpBoard(self.link, self._ledger, clock, prefix)
        self._fanout = AmqpFanout(self.link)
        self._rights = RightsCheck(self.link, self._topology, f"{prefix}ledger", dead)
        self._subscriptions: WeakSet[AmqpSubscription] = WeakSet()

    async def publish(self, envelope: Envelope, route: Route) -> None:
        await self._dispatcher.publish(envelope, route)

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        await self._dispatcher.publish_many(messages)

    async def publish_once(self, key: str, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        await self._dispatcher.publish_many(as_copies(key, messages))
        return True

    async def forget_once(self, key: str) -> None:
        """Do nothing: no key is kept here."""

    @asynccontextmanager
    async def subscribe(self, queues: Sequence[str]) -> AsyncIterator[AmqpSubscription]:
        subscription = AmqpSubscription(
            self.link,
            self._topology,
            self._rerouting,
            self._ledger,
            self._known_queues,
            self._board.sets,
            self._tallies,
            self._orphans,
            lowest_first=self._lowest_first,
        )
        self._subscriptions.add(subscription)
        try:
            for queue in queues:
                await subscription.add_queue(queue)
            yield subscription
        finally:
            await subscription.close()

    async def queues(self) -> list[str]:
        """Return the queues that some celeriac process declared within a week; AMQP itself cannot list them."""
        with self.link.translated(BrokerUnavailable, BrokerError):
            await self._ledger.settle()
            known = sorted(self._known_queues.names | self._topology.seen)
            return [
                queue
                for queue in known
                if not queue.startswith(OUR_PREFIX) and await self._topology.count(queue) is not None
            ]

    async def depth(self, queue: str) -> int:
        with self.link.translated(BrokerUnavailable, BrokerError):
            return (await self._state(queue)).waiting

    async def survey(self, queues: Sequence[str]) -> Survey:
        with self.link.translated(BrokerUnavailable, BrokerError):
            return Survey(
                await asyncio.gather(*map(self._state, queues)),
                sum(await self._topology.count_delayed()),
                None,
                await self._topology.count(self._dead.queue) or 0,
                await self._failed.count(),
            )

    async def _state(self, queue: str) -> QueueState:
        while True:
            before = self._buffered(queue)
            count, consumers = await self._topology.count_both(queue)
            for subscription in tuple(self._subscriptions):
                await subscription.catch_up()
            if before == self._buffered(queue):
                return QueueState(queue, count + before, (), consumers)

    async def takers(self, queue: str) -> int:
        with self.link.translated(BrokerUnavailable, BrokerError):
            return (await self._topology.count_both(queue))[1]

    def _buffered(self, queue: str) -> int:
        return sum(subscription.buffered(queue) for subscription in self._subscriptions)

    async def peek(self, queue: str, limit: int = 10) -> list[Envelope | Unreadable]:
        with self.link.translated(BrokerUnavailable, BrokerError):
            async with look_into(self.link, queue, limit) as look:
                await self._tallies.excuse(look.messages)
                return [read(message, lowest_first=self._lowest_first)[0] for message in look.messages]

    async def purge(self, queue: str) -> int:
        with self.link.translated(BrokerUnavailable, BrokerError):
            try:
                async with self.link.passing_channel() as channel:
                    answer = await channel.call(methods.purge_queue(queue))
            except Refused as error:
                if error.code == NOT_FOUND:
                    return 0
                raise
        return int(answer.message_count)

    async def remove(self, queue: str, unwanted: Unwanted) -> AsyncIterator[Removed]:
        """Remove single messages; see ``celeriac.contracts.removal.Removing``.

        It has the first messages of the queue pushed to it and gives back what stays, so that no worker gets those
        meanwhile: hence no more than ``removal_reach``.
        """
        gone = []
        with self.link.translated(BrokerUnavailable, BrokerError):
            async with look_into(self.link, queue, self.removal_reach) as look:
                kept = []
                for message in look.messages:
                    content = read(message, lowest_first=self._lowest_first)[0]
                    if unwanted(content):
                        look.remove(message)
                        gone.append(content)
                    else:
                        kept.append(message)
                await self._tallies.excuse(kept)
        yield Removed(len(look.messages), gone)

    @property
    def dead(self) -> AmqpDeadLetters:
        """The dead-letter list."""
        return self._dead

    @property
    def failed(self) -> AmqpFailed:
        """The failed list."""
        return self._failed

    @property
    def schedule(self) -> AmqpSchedule:
        """The parked messages."""
        return self._schedule

    @property
    def board(self) -> AmqpBoard:
        """The link that all parts of the broker share."""
        return self._board

    @property
    def connections(self) -> Link:
        """The connection, for the result store of the same RabbitMQ."""
        return self.link

    @property
    def fanout(self) -> AmqpFanout:
        """Messages to all listeners at once."""
        return self._fanout

    async def ping(self) -> str:
        with self.link.translated(BrokerUnavailable, BrokerError):
            return await self.link.ping()

    async def examine(self, queues: Sequence[str]) -> Sequence[Finding]:
        with self.link.translated(BrokerUnavailable, BrokerError):
            return [*await self.link.examine(), *await self._rights.examine(queues)]

    async def close(self) -> None:
        await self._fanout.close()
        await self._orphans.close()
        await self.link.close()


def _capped(cap: Cap) -> QueueOptions:
    """Return how the queue of the failed list is declared: RabbitMQ itself drops what is too much or too old."""
    arguments = {
        "x-max-length": max(1, min(cap.most, _MOST_KEPT)),
        "x-message-ttl": int(min(cap.seconds * 1000, _LONGEST_TTL)),
    }
    return QueueOptions(type="classic", exchange="", arguments=arguments, or_other=True)
