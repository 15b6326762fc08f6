"""A worker inside a test, and a record of what the app sent.

Rules: the worker is the real one, and so is the way of every message through Celery's format; the app is put on a
broker and a result store of the test's own for the while; whatever is sent is run, on whichever queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from celeriac.client.app import App
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Broker, Subscription
from celeriac.errors import ConfigError
from celeriac.routing import SendOptions
from celeriac.servers.memory.broker import MemoryBroker
from celeriac.servers.memory.results import MemoryBackend
from celeriac.testing.faults import Faults, FaultyBackend, FaultyBroker
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.task import TaskMessage, decode
from celeriac.worker.pool import Pool
from celeriac.worker.worker import Worker

PATIENCE = 10.0


class Sent(msgspec.Struct, frozen=True):
    """A task message that the app published, by the test or by a task.

    :param queue: where it went.
    """

    message: TaskMessage
    queue: str

    @property
    def task(self) -> str:
        """The task's name."""
        return self.message.task

    @property
    def args(self) -> list[object]:
        """The positional arguments."""
        return list(self.message.args)

    @property
    def kwargs(self) -> dict[str, object]:
        """The keyword arguments."""
        return self.message.kwargs


class RunningWorker:
    """The worker of a test; see ``running``.

    :param faults: the script that the worker's broker and result store play.
    """

    def __init__(self, app: App, witness: Witness, faults: Faults) -> None:
        self._app = app
        self._witness = witness
        self.faults = faults

    @property
    def sent(self) -> Sequence[Sent]:
        """Everything that was published within the block, in order; a retry is published anew."""
        return tuple(self._witness.sent)

    async def drain(self, timeout: float = PATIENCE, *, running: int = 0) -> None:
        """Return when everything that was sent, and what that sent in turn, has ended or is parked until later.

        :param running: how many tasks wait for this themselves.

        Raises ``TimeoutError`` when that takes longer than ``timeout`` seconds.
        """
        async with asyncio.timeout(timeout):
            await self.faults.until(partial(self._has_ended, running))

    async def skip_waits(self) -> int:
        """Let everything that is parked (countdown, ETA, retry) be due now; return how many messages that were."""
        connections = self._app.connections()
        parked = await connections.broker.schedule.list(limit=1_000_000)
        await connections.broker.schedule.delete([entry.id for entry in parked])
        for entry in parked:
            assert isinstance(entry.envelope, Envelope)
            message = decode(entry.envelope, self._app.codecs)
            assert isinstance(message, TaskMessage)
            self._witness.taken_back += 1
            now = msgspec.structs.replace(message, eta=None)
            options = SendOptions(
                queue=entry.queue, serializer=message.content_type or None, compression=message.compression
            )
            await connections.publisher.publish(now, options)
        return len(parked)

    async def _has_ended(self, running: int) -> bool:
        parked = await self._app.connections().broker.schedule.count()
        return self._witness.unsettled() <= parked + running


class Witness(FaultyBroker):
    """A broker that keeps a record of what is published, and lets the worker take from every queue that it saw."""

    def __init__(self, broker: Broker, faults: Faults, codecs: Codecs) -> None:
        super().__init__(broker, faults)
        self._codecs = codecs
        self._loop = asyncio.get_running_loop()
        self._subscriptions: set[Subscription] = set()
        self._faults = faults
        self._settled_before = self._settled()
        self._published = 0
        self.taken_back = 0
        self.sent: list[Sent] = []

    def unsettled(self) -> int:
        """Return how many messages wait, are parked or run."""
        return self._published - self.taken_back - (self._settled() - self._settled_before)

    async def publish(self, envelope: Envelope, route: Route) -> None:
        await self.publish_many([(envelope, route)])

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        self._check_loop()
        await super().publish_many(messages)
        await self._note(messages)

    async def publish_once(self, key: str, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        self._check_loop()
        published = await super().publish_once(key, messages)
        if published:
            await self._note(messages)
        return published

    @asynccontextmanager
    async def subscribe(self, queues: Sequence[str]) -> AsyncIterator[Subscription]:
        async with super().subscribe(queues) as subscription:
            self._subscriptions.add(subscription)
            try:
                yield subscription
            finally:
                self._subscriptions.discard(subscription)

    def _settled(self) -> int:
        return self._faults.passed["ack", "after"] + self._faults.passed["bury", "after"]

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise ConfigError(
                "the app is in a test's event loop, and delay() and get() use another: use await send() and await "
                "result there, or test this task on sqlite:///file.db"
            )

    async def _note(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        self._published += len(messages)
        for envelope, route in messages:
            await self._note_one(envelope, route)

    async def _note_one(self, envelope: Envelope, route: Route) -> None:
        queue = route.queue or route.routing_key
        message = decode(envelope, self._codecs)
        if isinstance(message, TaskMessage):
            self.sent.append(Sent(message, queue))
        for subscription in self._subscriptions:
            await subscription.add_queue(queue)


@asynccontextmanager
async def running(
    app: App,
    *,
    faults: Faults | None = None,
    concurrency: int = 10,
    pool: str | Pool = "threads",
    broker: Broker | None = None,
    backend: Backend | None = None,
) -> AsyncIterator[RunningWorker]:
    """Run the app's tasks within the block, in this event loop; drain at the end of a block that did not fail.

    Nothing of the app's own broker and result store is touched.

    :param faults: a script of what is to go wrong.
    :param concurrency: how many tasks run at once.
    :param pool: where plain functions run.
    :param broker: in place of one in memory; closed at the end, as is the ``backend``.

    Raises ``TimeoutError`` at the end when what was sent does not end.
    """
    script = faults or Faults()
    witness = Witness(broker or MemoryBroker(app.clock), script, app.codecs)
    store = FaultyBackend(backend or MemoryBackend(app.codecs, app.clock), script)
    try:
        async with app.connected_to(witness, store):
            worker = Worker(app, concurrency=concurrency, pool=pool)
            async with worker:
                await worker.ready()
                running_worker = RunningWorker(app, witness, script)
                yield running_worker
                await running_worker.drain()
    finally:
        await witness.close()
        await store.close()
