"""Results as messages to the process that sent the task (Celery: the ``rpc`` result backend).

Rules: a process has one reply queue, which is declared before a message names it. A result goes to the queue that its
task's message names, so only the sender can read it, as in Celery. Unlike Celery's queue, ours is not deleted with its
consumer, and results are persistent: they wait there while the connection is made anew. Results that arrived are kept
in memory, those of the latest tasks only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

from celeriac.contracts.backend import ChordStore, EncodedResult
from celeriac.contracts.board import Board
from celeriac.errors import BackendError, BackendUnavailable, EncodeError, Finding, WireError
from celeriac.retry import Backoff
from celeriac.servers.following import Following
from celeriac.servers.offload import in_thread
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import frames, methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Unavailable, is_too_large
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.results import ResultMessages
from celeriac.servers.rabbitmq.rights import examine_results
from celeriac.wire.content import Codecs
from celeriac.wire.result import SUCCESS, ResultRecord

_log = logging.getLogger("celeriac.backend.rpc")

MOST_KEPT = 100_000
"""How many tasks' results are kept that arrived; the oldest are dropped."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0


class RpcBackend:
    """Sends results to their senders; see ``celeriac.contracts.backend.Backend``.

    :param link: the connection, which may be the broker's too.
    :param serializer: what records are written with; any that ``codecs`` accepts are read.
    :param expires: seconds until the reply queue goes when its process does not come back; ``None`` keeps it.
    :param extended: send name, arguments, worker, retries and queue too (Celery: ``result_extended``).
    :param owned: close the connection with the backend.
    """

    chords: ChordStore | None = None
    board: Board | None = None

    def __init__(
        self,
        link: Link,
        codecs: Codecs,
        *,
        serializer: str = "json",
        expires: float | None = 86400.0,
        extended: bool = False,
        owned: bool = True,
    ) -> None:
        self._link = link
        self._owned = owned
        self._messages = ResultMessages(codecs, serializer, expires, extended=extended)
        self._queue = str(uuid.uuid4())
        self._declared = False
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._unacked = 0
        self._kept: dict[str, ResultRecord | WireError] = {}
        self._versions = count()
        self._following = Following()
        self._tender: asyncio.Task[None] | None = None
        self._late: deque[Inbound] = deque()
        self._reader: asyncio.Task[None] | None = None

    @property
    def replies(self) -> RpcBackend:
        """The address to which results are sent."""
        return self

    async def address(self) -> str:
        """Return the queue to name in messages; it is there. Raises ``BackendError``."""
        if not self._declared:
            with self._link.translated(BackendUnavailable, BackendError):
                await self._open()
        return self._queue

    def encode(self, record: ResultRecord) -> EncodedResult:
        payload = self._messages.body(record)
        return EncodedResult(record, payload)

    async def store(self, encoded: EncodedResult) -> None:
        record = encoded.record
        if not record.reply_to:
            # No other process waits for it: it is about a task of this process, or of none.
            self._keep(record.task_id, record)
            return
        try:
            header = self._messages.header(record.task_id, len(encoded.payload), priority=0)
        except EncodeError as error:
            _log.warning("a result was dropped, since AMQP cannot carry the id of its task: %s", error)
            return
        try:
            await self._link.publish("", record.reply_to, header, encoded.payload, mandatory=False)
        except AmqpError as error:
            if is_too_large(error):
                raise self._link.too_large(error, f"the result of {record.name}[{record.task_id}]") from error
            raise self._link.translate(error, BackendUnavailable, BackendError) from error

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        """Return the records that have arrived here."""
        return [self._read(task_id) if task_id in self._kept else None for task_id in task_ids]

    @asynccontextmanager
    async def follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        with self._following.register(task_ids) as follower:
            if any(task_id not in self._kept for task_id in task_ids):
                # While the broker is away, what is sent to the queue waits there.
                with contextlib.suppress(Unavailable):
                    await self._open()
            for task_id in dict.fromkeys(task_ids):
                if task_id in self._kept:
                    self._offer(task_id)
            self._tend()
            yield follower.records()

    async def forget(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            self._kept.pop(task_id, None)

    async def ping(self) -> str:
        with self._link.translated(BackendUnavailable, BackendError):
            return f"{await self._link.ping()}, results as messages to their senders"

    async def examine(self) -> Sequence[Finding]:
        with self._link.translated(BackendUnavailable, BackendError):
            return [
                *await self._link.examine(),
                *await examine_results(self._link, str(uuid.uuid4()), stored_there=False),
            ]

    async def close(self) -> None:
        for task in (self._tender, self._reader):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open:
            with contextlib.suppress(AmqpError):
                async with self._link.deadline():
                    await channel.call(methods.delete_queue(self._queue))
                    await channel.close()
        if self._owned:
            await self._link.close()

    # --- the queue of replies

    async def _open(self) -> None:
        async with self._opening:
            if self._channel is not None and self._channel.is_open:
                return
            async with self._link.lasting_channel() as channel, self._link.deadline():
                channel.on_message = partial(self._arrived, channel)
                channel.on_cancelled = lambda consumer: channel.give_up("its queue was deleted")
                await channel.call(methods.declare_queue(self._queue, self._messages.arguments))
                await channel.call(methods.consume(self._queue, "celeriac-replies"))
            channel.on_closed = lambda error: self._tend()
            self._unacked = 0
            self._channel = channel
            self._declared = True

    def _tend(self) -> None:
        """Have the queue read again, as long as a caller waits for a result."""
        if self._channel is not None and self._channel.is_open:
            return
        if self._tender is None and self._following.pending:
            self._tender = asyncio.create_task(self._reopen(), name="celeriac replies")

    async def _reopen(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        try:
            while self._following.pending:
                try:
                    return await self._open()
                except Unavailable as error:
                    _log.debug("replies cannot be read, another try follows: %s", error)
                except AmqpError as error:
                    _log.error("results are waited for, but cannot be read: %s", error)
                    backoff = Backoff(_LONGEST_PAUSE, _LONGEST_PAUSE)
                await asyncio.sleep(backoff.pause())
        finally:
            self._tender = None

    def _arrived(self, channel: Channel, message: Inbound) -> None:
        if not self._unacked:
            asyncio.get_running_loop().call_soon(self._ack, channel)
        self._unacked = message.tag
        if self._late or self._messages.takes_long(message.body):
            self._late.append(message)
            if self._reader is None:
                self._reader = asyncio.create_task(self._read_late(), name="celeriac replies")
        else:
            self._keep(*self._messages.read_arrived(message))

    async def _read_late(self) -> None:
        """Read, in order, records that take long to read and those that arrived after them."""
        try:
            while self._late:
                self._keep(*await in_thread(partial(self._messages.read_arrived, self._late[0])))
                self._late.popleft()
        finally:
            self._reader = None

    def _ack(self, channel: Channel) -> None:
        tag, self._unacked = self._unacked, 0
        if channel.is_open:
            channel.send(frames.ack(channel.number, tag, multiple=True))

    # --- what has arrived

    def _keep(self, task_id: str, record: ResultRecord | WireError) -> None:
        before = self._kept.get(task_id)
        if isinstance(before, ResultRecord) and before.status == SUCCESS:
            return
        if before is None and len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[task_id] = record
        if task_id in self._following:
            self._offer(task_id)

    def _offer(self, task_id: str) -> None:
        self._following.offer(task_id, next(self._versions), lambda: self._read(task_id))

    def _read(self, task_id: str) -> ResultRecord:
        record = self._kept[task_id]
        if isinstance(record, WireError):
            raise record
        return record
