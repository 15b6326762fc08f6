"""Passes results to all waits of a process, over one connection.

Rules: a wait subscribes, and its keys are read after that, so that no record is missed. With protocol 3 the trip of the
subscription reads them too, over the same connection. Each record is passed on once. When
the last wait for a key ends, so does its subscription. Some writers store without publishing (gocelery); their records
are found by reading again, less and less often. While any wait is left, a cut connection is replaced, and all keys are
read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from celeriac.clock import set_within
from celeriac.errors import BackendError, BackendUnavailable, CeleriacError
from celeriac.retry import Backoff
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.offload import in_thread
from celeriac.servers.redis.link import Line, Link
from celeriac.wire.result import ResultRecord

_log = logging.getLogger("celeriac.backend.redis")

_BATCH = 1000
_FIRST_LOOK = 0.5
_LAST_LOOK = 5.0
_TICK = 0.5
_LINGER = 0.05
"""Seconds for which a subscription that nobody needs any more waits for a command that it can go with."""

_MOST_LEFT = 100
"""Subscriptions that nobody needs, above which they end at once."""

_SILENCE = 10.0
"""Seconds without a word after which the connection is asked whether it stands."""

Key = Callable[[str], str]
Decode = Callable[[str, bytes], ResultRecord]
Slow = Callable[[bytes], bool]


class Wait:
    """The records of one ``follow``, as they come. Ends when every task is ready.

    :param slow: whether decoding is left to a thread, when the follower gets to it.
    """

    def __init__(self, task_ids: Collection[str], key: Key, decode: Decode, slow: Slow, now: float) -> None:
        self.pending = {key(task_id).encode(): task_id for task_id in task_ids}
        self.keys = tuple(self.pending)
        self.look_at = now + _FIRST_LOOK
        self._looks = Backoff(2 * _FIRST_LOOK, _LAST_LOOK)
        self._decode = decode
        self._slow = slow
        self._told: dict[bytes, bytes] = {}
        self._news: deque[ResultRecord | CeleriacError | tuple[bytes, str, bytes]] = deque()
        self._some = asyncio.Event()

    def __aiter__(self) -> Wait:
        return self

    async def __anext__(self) -> ResultRecord:
        while not self._news:
            if not self.pending:
                raise StopAsyncIteration
            self._some.clear()
            await self._some.wait()
        news = self._news[0]  # removed only after it was read, since the caller may be cancelled meanwhile
        if isinstance(news, tuple):
            news = await self._read_aside(*news)
        self._news.popleft()
        if isinstance(news, CeleriacError):
            raise news
        return news

    def fail(self, error: CeleriacError) -> None:
        """Pass on that the records cannot be read."""
        self._news.append(error)
        self._some.set()

    def told(self, key: bytes) -> bytes | None:
        """Return the record of this key that was last passed on."""
        return self._told.get(key)

    def tell(self, key: bytes, raw: bytes) -> None:
        """Pass on a record, unless it was passed on before, or the task is done."""
        task_id = self.pending.get(key)
        if task_id is None or self._told.get(key) == raw:
            return
        self._told[key] = raw
        if self._slow(raw):
            self._news.append((key, task_id, raw))
        else:
            try:
                record = self._decode(task_id, raw)
            except CeleriacError as error:
                self._news.append(error)
            else:
                self._news.append(record)
                self._settle(key, record)
        self._some.set()

    async def _read_aside(self, key: bytes, task_id: str, raw: bytes) -> ResultRecord | CeleriacError:
        try:
            record = await in_thread(partial(self._decode, task_id, raw))
        except CeleriacError as error:
            return error
        self._settle(key, record)
        return record

    def _settle(self, key: bytes, record: ResultRecord) -> None:
        if record.ready:
            self.pending.pop(key, None)
            self._told.pop(key, None)

    def postpone(self, now: float) -> None:
        """Set the time of the next look."""
        self.look_at = now + self._looks.pause()


class Look:
    """A reading of keys: each record is passed to the waits that asked, unless one got something newer meanwhile.

    :ivar commands: what is asked; the answers are to be given to ``take`` in their order.
    """

    def __init__(self, waits: Iterable[Wait]) -> None:
        self._asking: dict[bytes, list[tuple[Wait, bytes | None]]] = {}
        for wait in waits:
            for key in wait.pending:
                self._asking.setdefault(key, []).append((wait, wait.told(key)))
        keys = tuple(self._asking)
        self.commands = [("MGET", *keys[start : start + _BATCH]) for start in range(0, len(keys), _BATCH)]
        self._keys = iter(keys)

    def take(self, answer: Sequence[bytes | None] | CeleriacError) -> None:
        """Pass on the answer to the next command. A refusal goes to every wait."""
        if isinstance(answer, CeleriacError):
            for wait in {wait for asking in self._asking.values() for wait, _ in asking}:
                wait.fail(answer)
            return
        for raw, key in zip(answer, self._keys, strict=False):
            for wait, told in self._asking[key]:
                if raw is not None and wait.told(key) == told:
                    wait.tell(key, raw)


class Listener:
    """The waits of one backend."""

    def __init__(self, link: Link, key: Key, decode: Decode, slow: Slow) -> None:
        self._link = link
        self._key = key
        self._decode = decode
        self._slow = slow
        self._waits: dict[bytes, set[Wait]] = {}
        self._all: set[Wait] = set()
        self._subscribed: set[bytes] = set()
        self._line: Line | None = None
        self._tender: asyncio.Task[None] | None = None
        self._cut = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._unconfirmed = 0
        self._confirmed: asyncio.Future[None] | None = None
        self._protocol = 3
        self._asked: deque[Look | None] = deque()
        self._heard = 0.0
        self._said = False
        self._join: Coalescer[Wait, None] = Coalescer(self._subscribe, _BATCH)
        self._left: set[bytes] = set()
        self._leaving: asyncio.TimerHandle | None = None
        self._leave: Coalescer[None, None] = Coalescer(self._unsubscribe, _BATCH)

    async def join(self, task_ids: Collection[str]) -> Wait:
        """Return the records of these tasks; what is there already is in it."""
        self._loop = asyncio.get_running_loop()
        wait = Wait(task_ids, self._key, self._decode, self._slow, self._loop.time())
        for key in wait.keys:
            self._waits.setdefault(key, set()).add(wait)
        self._all.add(wait)
        try:
            await self._join.lead(wait)
        except BaseException:
            self.leave(wait)
            raise
        if self._tender is None:
            self._tender = asyncio.create_task(self._tend(), name="celeriac-results")
        return wait

    def leave(self, wait: Wait) -> None:
        """Forget a wait; its subscriptions end with the next one's, or a moment later."""
        self._all.discard(wait)
        for key in wait.keys:
            waits = self._waits[key]
            waits.discard(wait)
            if not waits:
                del self._waits[key]
                self._left.add(key)
        if self._line is None:
            self._left.clear()
        elif len(self._left) > _MOST_LEFT:
            self._leave_now()
        elif self._leaving is None:
            self._leaving = self._loop.call_later(_LINGER, self._leave_now)

    async def close(self) -> None:
        """End all waiting. Idempotent."""
        self._forget_timer()
        await self._leave.drain()
        await self._join.drain()
        tender, self._tender = self._tender, None
        if tender is not None:
            tender.cancel()
            await asyncio.wait([tender])
        await self._hang_up()

    async def _subscribe(self, waits: Sequence[Wait]) -> Sequence[None]:
        try:
            protocol = await self._send_subscriptions(waits)
        except BackendUnavailable as error:
            error.logged = self._said
            await self._hang_up()
            raise
        if protocol == 2:
            await self._look(waits)
        return [None] * len(waits)

    async def _send_subscriptions(self, waits: Sequence[Wait]) -> int:
        """Subscribe to the channels of these waits, and read their keys where the protocol lets us; return which it is.

        Returns once the subscriptions are confirmed. Records that were read are passed on as they come.
        """
        line = self._line or await self._call_up()
        late = line.in_time(partial(self._lose, line))
        try:
            confirmed, commands = self._questions(waits, line.protocol)
            await line.send_all(commands)
            if confirmed is not None:
                await confirmed
        finally:
            late.cancel()
        return line.protocol

    def _questions(
        self, waits: Sequence[Wait], protocol: int
    ) -> tuple[asyncio.Future[None] | None, Sequence[Sequence[Any]]]:
        """Return what is sent for these waits, and a future of the confirmation where one is to come."""
        confirmed = None
        commands: list[Sequence[Any]] = []
        new = {key for wait in waits for key in wait.pending} - self._subscribed
        if new:
            confirmed = self._confirmed = self._loop.create_future()
            # A caller that was cancelled no longer waits for it.
            confirmed.add_done_callback(_ignore)
            self._unconfirmed += len(new)
            self._subscribed.update(new)
            commands.append(("SUBSCRIBE", *new))
            if gone := self._take_gone():
                commands.append(("UNSUBSCRIBE", *gone))
        if protocol == 3:
            look = Look(waits)
            self._asked.extend([look] * len(look.commands))
            commands += look.commands
        return confirmed, commands

    def _forget_timer(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _leave_now(self) -> None:
        self._forget_timer()
        self._leave(None).add_done_callback(_ignore)

    async def _unsubscribe(self, asked: Sequence[None]) -> Sequence[None]:
        gone = self._take_gone()
        if gone and self._line is not None:
            await self._line.send("UNSUBSCRIBE", *gone)
        return asked

    def _take_gone(self) -> set[bytes]:
        """Return what is subscribed to in vain, and count it as no longer subscribed to."""
        gone = self._left.difference(self._waits) & self._subscribed
        self._left.clear()
        self._subscribed -= gone
        return gone

    async def _look(self, waits: Iterable[Wait]) -> None:
        """Read the keys that these waits still wait for, over another connection."""
        look = Look(waits)
        for answer in await self._link.answers(look.commands) if look.commands else ():
            look.take(answer)

    async def _call_up(self) -> Line:
        line = self._line = await self._link.open_push_line(self._protocol)
        self._protocol = line.protocol
        self._said = False
        self._subscribed.clear()
        self._asked.clear()
        self._unconfirmed = 0
        self._heard = self._loop.time()
        line.listen(partial(self._take, line), partial(self._lose, line))
        return line

    def _take(self, line: Line, is_push: bool, news: Any) -> None:
        if line is not self._line:
            return
        self._heard = self._loop.time()
        if is_push:
            self._hear(*news)
        elif isinstance(news, CeleriacError) and (line.protocol == 2 or self._unconfirmed):
            self._lose(line, news)  # a subscription was refused
        elif line.protocol == 3 and (look := self._asked.popleft()) is not None:
            look.take(news)

    def _hear(self, kind: bytes, key: bytes, content: Any) -> None:
        if kind == b"message":
            for wait in tuple(self._waits.get(key, ())):
                wait.tell(key, content)
        elif kind == b"subscribe":
            self._confirm()

    def _confirm(self) -> None:
        self._unconfirmed -= 1
        confirmed = self._confirmed
        if self._unconfirmed == 0 and confirmed is not None and not confirmed.done():
            confirmed.set_result(None)

    def _lose(self, line: Line, error: CeleriacError) -> None:
        line.cut()
        if line is not self._line:
            return
        if self._all:
            _log.warning("results are waited for, but the connection was cut; making it anew: %s", error)
            self._said = True
        if self._confirmed is not None and not self._confirmed.done():
            self._confirmed.set_exception(error)
        self._line = None
        self._subscribed.clear()
        self._cut.set()

    async def _hang_up(self) -> None:
        line, self._line = self._line, None
        self._subscribed.clear()
        if line is not None:
            await line.close()

    async def _tend(self) -> None:
        """Read again and reconnect, while any wait is left."""
        pause, backoff = _TICK, Backoff(2 * _TICK, _LAST_LOOK)
        try:
            while self._all:
                await set_within(self._cut, pause)
                self._cut.clear()
                try:
                    await self._make_good()
                    pause = _TICK
                    backoff.reset()
                except BackendUnavailable:
                    pause = backoff.pause()
                except BackendError as error:
                    _log.error("results are waited for, but cannot be read: %s", error)
                    pause = _LAST_LOOK
        finally:
            self._tender = None

    async def _make_good(self) -> None:
        now = self._loop.time()
        if self._line is None:
            await asyncio.gather(*(self._join(wait) for wait in tuple(self._all)))
            return
        waits = [wait for wait in self._all if wait.look_at <= now and wait.pending]
        for wait in waits:
            wait.postpone(now)
        if waits:
            await self._look(waits)
        if now - self._heard > _SILENCE + self._link.timeout:
            await self._hang_up()
        elif now - self._heard > _SILENCE and (line := self._line) is not None:
            if line.protocol == 3:
                self._asked.append(None)
            await line.send("PING")


def _ignore(future: asyncio.Future[Any]) -> None:
    """Retrieve a failure that is of no use: with the connection, its subscriptions are gone, too."""
    if not future.cancelled():
        future.exception()
