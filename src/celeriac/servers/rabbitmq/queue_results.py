"""Results in a queue each, where gocelery keeps them (and Celery kept them before version 5: ``amqp://``).

Rules: the queue of a task holds its latest record. A reader takes the record out for a moment and puts it back. So it
can be read again until it is forgotten, or until RabbitMQ drops the queue because no reader looked for ``expires``.
There is no consumer, since such a queue is deleted with its last consumer: a waiting reader looks again and again. A
client of gocelery consumes, so a record that it has read is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from uuid import uuid4

from celeriac.clock import set_within
from celeriac.contracts.backend import ChordStore, EncodedResult, Replies, check_text
from celeriac.contracts.board import Board
from celeriac.errors import BackendError, BackendUnavailable, EncodeError, Finding, WireError
from celeriac.retry import Backoff
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.following import Following
from celeriac.servers.offload import in_thread
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import frames, methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.content import read_properties
from celeriac.servers.rabbitmq.protocol.errors import (
    PRECONDITION_FAILED,
    Refused,
    Unavailable,
    is_too_large,
)
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.results import ResultMessages
from celeriac.servers.rabbitmq.rights import examine_results
from celeriac.wire.content import Codecs
from celeriac.wire.result import SUCCESS, ResultRecord

_log = logging.getLogger("celeriac.backend.amqp")

_BATCH = 100
"""How many queues are looked into at once."""

_LOOKS = 3
_BETWEEN_LOOKS = 0.01
"""Seconds after which a queue without a record is looked at again: another reader may have it out."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks for waiting readers."""

_LONGEST_NAME = 255


class AmqpBackend:
    """Keeps results in RabbitMQ, a queue each; see ``celeriac.contracts.backend.Backend``.

    :param link: the connection, which may be the broker's too.
    :param serializer: what records are written with; any that ``codecs`` accepts are read. gocelery reads JSON.
    :param expires: seconds until a result is dropped that no reader asks for; ``None`` keeps it. All that share the
        results must agree on it, and gocelery's is 86400, which cannot be changed there.
    :param extended: keep name, arguments, worker, retries and queue too (Celery: ``result_extended``).
    :param owned: close the connection with the backend.
    """

    chords: ChordStore | None = None
    board: Board | None = None
    replies: Replies | None = None

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
        self._store: Coalescer[EncodedResult, None] = Coalescer(self._flush, _BATCH)
        self._following = Following()
        self._watcher: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()

    def encode(self, record: ResultRecord) -> EncodedResult:
        payload = self._messages.body(record)
        queue_of(record.task_id)
        return EncodedResult(record, payload)

    def check_id(self, task_id: str) -> None:
        """See ``celeriac.contracts.backend.SelectiveBackend``."""
        check_text(task_id)
        queue_of(task_id)

    async def store(self, encoded: EncodedResult) -> None:
        await self._store(encoded)

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        found: dict[str, ResultRecord | Exception] = {}
        missing = list(dict.fromkeys(task_ids))
        for look in range(_LOOKS):
            if look and missing:
                await asyncio.sleep(_BETWEEN_LOOKS)
            with self._link.translated(BackendUnavailable, BackendError):
                for start in range(0, len(missing), _BATCH):
                    found |= await self._read(missing[start : start + _BATCH])
            missing = [task_id for task_id in missing if task_id not in found]
        return [_value(found.get(task_id)) for task_id in task_ids]

    @asynccontextmanager
    async def follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        for task_id in task_ids:
            queue_of(task_id)
        with self._following.register(task_ids) as follower:
            self._asked.set()
            if self._watcher is None and self._following.pending:
                self._watcher = asyncio.create_task(self._watch(), name="celeriac results")
            yield follower.records()

    async def forget(self, task_ids: Sequence[str]) -> None:
        with self._link.translated(BackendUnavailable, BackendError):
            async with self._link.passing_channel() as channel:
                deleted = [channel.start(methods.delete_queue(queue_of(task_id))) for task_id in task_ids]
                await asyncio.gather(*deleted)

    async def ping(self) -> str:
        with self._link.translated(BackendUnavailable, BackendError):
            return f"{await self._link.ping()}, results in a queue each"

    async def examine(self) -> Sequence[Finding]:
        with self._link.translated(BackendUnavailable, BackendError):
            return [
                *await self._link.examine(),
                *await examine_results(self._link, queue_of(str(uuid4())), stored_there=True),
            ]

    async def close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        await self._store.drain()
        if self._owned:
            await self._link.close()

    # --- storing

    async def _flush(self, batch: Sequence[EncodedResult]) -> list[BaseException | None]:
        latest: dict[str, EncodedResult] = {}
        for encoded in batch:
            task_id = encoded.record.task_id
            if task_id not in latest or latest[task_id].record.status != SUCCESS:
                latest[task_id] = encoded
        with self._link.translated(BackendUnavailable, BackendError):
            errors = await self._replace(latest)
        return [errors.get(encoded.record.task_id) for encoded in batch]

    async def _replace(self, latest: Mapping[str, EncodedResult]) -> dict[str, BaseException]:
        """Put each record in its queue, in place of those that are there. Return the errors of refused ones."""
        try:
            async with self._look(latest) as look:
                before = await self._latest_of_each(look.found)
                new = [task_id for task_id in latest if not _is_done(before.get(task_id))]
                await asyncio.gather(*[self._publish(latest[task_id]) for task_id in new])
                look.remove(new)
        except Refused as error:
            if len(latest) == 1:
                [(task_id, encoded)] = latest.items()
                if is_too_large(error):
                    name = f"the result of {encoded.record.name}[{task_id}]"
                    return {task_id: self._link.too_large(error, name)}
                return {task_id: self._explained(error)}
        else:
            return {}
        errors: dict[str, BaseException] = {}
        for task_id, encoded in latest.items():
            errors |= await self._replace({task_id: encoded})
        return errors

    async def _publish(self, encoded: EncodedResult) -> None:
        task_id = encoded.record.task_id
        header = self._messages.header(task_id, len(encoded.payload))
        await self._link.publish("", queue_of(task_id), header, encoded.payload)

    # --- reading

    async def _read(self, task_ids: Sequence[str]) -> dict[str, ResultRecord | Exception]:
        """Return the records that there are, or why one cannot be read."""
        try:
            async with self._look(task_ids) as look:
                found = await self._latest_of_each(look.found)
        except Refused as error:
            if len(task_ids) == 1:
                return dict.fromkeys(task_ids, self._explained(error))
        else:
            return {task_id: record for task_id, record in found.items() if record is not None}
        each: dict[str, ResultRecord | Exception] = {}
        for task_id in task_ids:
            each |= await self._read([task_id])
        return each

    async def _latest_of_each(
        self, found: Mapping[str, Sequence[Inbound]]
    ) -> dict[str, ResultRecord | WireError | None]:
        def read() -> dict[str, ResultRecord | WireError | None]:
            return {task_id: self._latest(task_id, messages) for task_id, messages in found.items()}

        slow = any(
            self._messages.takes_long(message.body) for messages in found.values() for message in messages
        )
        return await in_thread(read) if slow else read()

    def _latest(self, task_id: str, messages: Sequence[Inbound]) -> ResultRecord | WireError | None:
        """Return the record that counts: two writers at the same time may have left one each."""
        latest: ResultRecord | WireError | None = None
        for message in messages:
            latest = self._decode(task_id, message)
            if isinstance(latest, ResultRecord) and latest.status == SUCCESS:
                break
        return latest

    def _decode(self, task_id: str, message: Inbound) -> ResultRecord | WireError:
        try:
            return self._messages.read(task_id, read_properties(message.header), message.body)
        except WireError as error:
            return error

    @asynccontextmanager
    async def _look(self, task_ids: Collection[str]) -> AsyncIterator[_Look]:
        """Get the messages in the queues of these tasks; those that are not removed are put back after the block."""
        queues = {task_id: queue_of(task_id) for task_id in task_ids}
        async with self._link.passing_channel() as channel:
            declared = [
                channel.start(methods.declare_reply_queue(queue, self._messages.arguments))
                for queue in queues.values()
            ]
            counts = [answer.message_count for answer in await asyncio.gather(*declared)]
            got = {
                task_id: [channel.start(methods.get(queue)) for _ in range(count)]
                for (task_id, queue), count in zip(queues.items(), counts, strict=True)
            }
            found = {task_id: await _messages(answers) for task_id, answers in got.items()}
            look = _Look(channel, {task_id: messages for task_id, messages in found.items() if messages})
            yield look
            await look.put_back()

    def _explained(self, error: Refused) -> BackendError:
        text = f"{self._link.target} refused: {error}"
        if error.code == PRECONDITION_FAILED:
            text += "; all that share these results need the same result_expires (gocelery's is 86400)"
        return BackendError(text)

    # --- waiting

    async def _watch(self) -> None:
        """Look into the queues of the waiting readers, as long as there are any."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        try:
            while pending := self._following.pending:
                self._asked.clear()
                try:
                    for start in range(0, len(pending), _BATCH):
                        self._offer(await self._read(pending[start : start + _BATCH]))
                except Unavailable as error:
                    _log.debug("results cannot be read, which is tried again soon: %s", error)
                if await set_within(self._asked, backoff.pause()):
                    backoff.reset()
        finally:
            self._watcher = None

    def _offer(self, found: Mapping[str, ResultRecord | Exception]) -> None:
        for task_id, record in found.items():
            self._following.offer(task_id, record, partial(_known, record))


class _Look:
    """Messages that were got from some queues and are not acknowledged.

    :ivar found: task to messages, the oldest first, of those queues that have any.
    """

    def __init__(self, channel: Channel, found: dict[str, list[Inbound]]) -> None:
        self.found = found
        self._channel = channel

    def remove(self, task_ids: Collection[str]) -> None:
        """Remove the messages of these tasks."""
        for task_id in task_ids:
            for message in self.found.pop(task_id, ()):
                self._channel.send(frames.ack(self._channel.number, message.tag))

    async def put_back(self) -> None:
        """Return when the queues have the other messages again."""
        if self.found:
            self._channel.send(frames.requeue_all(self._channel.number))
            looks = [self._channel.start(methods.look_for_queue(queue_of(task_id))) for task_id in self.found]
            await asyncio.gather(*looks)


def queue_of(task_id: str) -> str:
    """Return the queue of a task's result: its id without dashes. Raises ``EncodeError`` for one too long."""
    queue = task_id.replace("-", "")
    if not 1 <= len(queue.encode()) <= _LONGEST_NAME:
        raise EncodeError(
            f"task id {task_id!r} cannot name a queue of RabbitMQ: give 1 to {_LONGEST_NAME} bytes"
        )
    return queue


def _is_done(record: ResultRecord | WireError | None) -> bool:
    return isinstance(record, ResultRecord) and record.status == SUCCESS


async def _messages(answers: Sequence[asyncio.Future[object]]) -> list[Inbound]:
    return [message for message in await asyncio.gather(*answers) if isinstance(message, Inbound)]


def _value(record: ResultRecord | Exception | None) -> ResultRecord | None:
    return None if record is None else _known(record)


def _known(record: ResultRecord | Exception) -> ResultRecord:
    if isinstance(record, Exception):
        raise record
    return record
