"""Adds messages to the queues of one database, also what is added once, with a key or a slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres.board import advance_slots
from celeriac.servers.postgres.connections import Connection
from celeriac.servers.postgres.keys import storable_key
from celeriac.servers.postgres.link import PostgresLink
from celeriac.servers.postgres.waking import Waking
from celeriac.servers.queue_calls import Addition, Tick
from celeriac.servers.queue_rows import NewMessage, split_by_size
from celeriac.wire.once import ONCE, ONCE_SETTLED


class Adding:
    """Does many calls in one statement or transaction; see ``celeriac.servers.queue_calls.QueueCalls``.

    :param join: notes that the connections are in use.
    """

    def __init__(self, link: PostgresLink, waking: Waking, join: Callable[[], None]) -> None:
        self._link = link
        self._waking = waking
        self._join = join

    async def add(self, messages: Sequence[NewMessage]) -> list[None]:
        self._join()
        for batch in split_by_size(messages):
            queues = {message.queue for message in batch}
            unknown = self._waking.unknown(queues)
            if len(batch) == 1 and not unknown:
                (one,) = batch
                channel = await self._waking.channel(one.queue)
                values = one.queue, one.priority, one.due, one.frame, channel
                await self._link.fetch(sql.ADD_ONE, *values, keeps_plan=True)
            else:
                await self._link.fetch(sql.ADD, *sql.columns_of(batch, unknown), keeps_plan=True)
            self._waking.published(queues)
        return [None] * len(messages)

    async def add_once(self, additions: Sequence[Addition]) -> list[bool]:
        """Add what is not done under its key yet; return of each whether it was added."""
        self._join()
        additions = [(storable_key(key), messages) for key, messages in additions]
        queues = {message.queue for _, messages in additions for message in messages}

        async def whole(connection: Connection) -> set[str]:
            await connection.execute(sql.DROP_ONCE)
            rows = await connection.fetch(sql.NOTE_ONCE, sorted({key for key, _ in additions}), float(ONCE))
            new = {row["key"] for row in rows}
            left = set(new)
            messages: list[NewMessage] = []
            for key, group in additions:
                if key in left:
                    left.discard(key)
                    messages += group
            for batch in split_by_size(messages):
                await connection.fetch(sql.ADD, *sql.columns_of(batch, queues))
            return new

        new = await self._link.transact(whole)
        self._waking.published(queues)
        answers: list[bool] = []
        for key, _ in additions:
            answers.append(key in new)
            new.discard(key)
        return answers

    async def tick(self, ticks: Sequence[Tick]) -> list[bool]:
        """Add the messages of each slot that is later than its entry's last one; return of each whether it was."""
        self._join()
        queues = {message.queue for _, _, messages in ticks for message in messages}

        async def whole(connection: Connection) -> list[bool]:
            new = await advance_slots(connection, [(entry, slot) for entry, slot, _ in ticks])
            added = [messages for (_, _, messages), is_new in zip(ticks, new, strict=True) if is_new]
            for batch in split_by_size(list(chain.from_iterable(added))):
                await connection.fetch(sql.ADD, *sql.columns_of(batch, queues))
            return new

        new = await self._link.transact(whole)
        self._waking.published(queues)
        return new

    async def forget_once(self, keys: Sequence[str]) -> list[None]:
        await self._link.fetch(
            sql.FORGET_ONCE, list({storable_key(key) for key in keys}), float(ONCE_SETTLED)
        )
        return [None] * len(keys)
