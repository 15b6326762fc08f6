"""The queues of one database, as one process uses them: adds, takes and settles messages, and wakes subscriptions.

Rules: publishes and settlements of concurrent callers share statements. A change that makes a message ready wakes the
subscriptions of its queue, in this process by an event and in the others by a notification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import nullcontext, suppress
from itertools import chain
from typing import Any
from uuid import uuid4

import msgspec

from celeriac.clock import Clock, seconds_ahead
from celeriac.contracts.board import REVOKED
from celeriac.contracts.set_aside import Cap
from celeriac.errors import BrokerError, BrokerUnavailable, DeliveryLost, Finding
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres import rights
from celeriac.servers.postgres.board import REVISION, advance_slots, take_down
from celeriac.servers.postgres.connections import Connection, Connections
from celeriac.servers.postgres.housekeeping import Housekeeping
from celeriac.servers.postgres.keys import storable_key
from celeriac.servers.postgres.link import PostgresLink
from celeriac.servers.postgres.owners import Owners
from celeriac.servers.postgres.sleeping import FALL_ASLEEP, channel_of, channels_of
from celeriac.servers.postgres.strays import Strays
from celeriac.servers.queue_rows import NewMessage, Settlement, lost_delivery, split_by_size
from celeriac.servers.row_subscription import Taken
from celeriac.wire.once import ONCE, ONCE_SETTLED

_BATCH = 1000
"""Calls that share one statement."""

Addition = tuple[str, Sequence[NewMessage]]
"""A key, and the messages that are published once under it."""

Tick = tuple[str, float, Sequence[NewMessage]]
"""An entry, its slot, and the messages of that slot."""

Place = tuple[str, int, int]
"""A queue, a priority, and the lowest id to look at."""

Floors = dict[tuple[str, int], int]
"""For each queue and priority an id, below which nothing was found."""

_FALL_ASLEEP = FALL_ASLEEP.format(queues=1, process=2, channels=3)

_STAYS = {"requeue", "return", "park"}
"""How a message is settled that stays in its queue."""


class Look(msgspec.Struct, frozen=True):
    """What a look found besides messages to take.

    :param again: seconds until there may be something to do, ``None`` where nothing is known of.
    """

    found: bool
    again: float | None = None


class Queues:
    """The queues of one database: what the parts of one broker share.

    :ivar cap: how much the failed list keeps.
    :ivar strays: what this process holds; each settlement takes its message off.
    :ivar rings: how often there may have been something new to take.
    :ivar returns: how often messages were put back by this process, which may now come before those that it took last.
    """

    def __init__(self, connections: Connections, clock: Clock, lease: float, cap: Cap) -> None:
        self.connections = connections
        self.clock = clock
        self.cap = cap
        self.link = PostgresLink(
            connections, "queues", "board", unavailable=BrokerUnavailable, refused=BrokerError
        )
        self.owners = Owners(self.link, clock, lease)
        self.strays = Strays(clock)
        self.process = uuid4().hex
        self.housekeeping = Housekeeping(self.link, clock)
        self.publish: Coalescer[NewMessage, None] = Coalescer(
            self.add, _BATCH, lambda message: len(message.frame)
        )
        self.publish_once: Coalescer[Addition, bool] = Coalescer(self._add_once, _BATCH)
        self.tick: Coalescer[Tick, bool] = Coalescer(self._tick_all, _BATCH)
        self.forget_once: Coalescer[str, None] = Coalescer(self._forget_once, _BATCH)
        self.settle: Coalescer[Settlement, None] = Coalescer(self._settle, _BATCH)
        self._known: set[str] = set()
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._wakes: dict[str, _Wake] = {}
        self.returns = 0
        self.rings = 0

    # --- subscriptions

    async def attend(self, event: asyncio.Event, queue: str) -> None:
        """Declare the queue; set the event whenever it may have got a message, from any process."""
        sql.check_queue(queue, BrokerError)
        self.connections.join(self)
        await self.link.fetch(sql.DECLARE, [queue])
        self._known.add(queue)
        waiting = self._waiting.setdefault(queue, set())
        if not waiting:
            wake = self._wakes[queue] = _Wake(self, queue)
            await self.link.hear(await self._channel(queue), wake)
        waiting.add(event)

    async def declare(self, queues: Collection[str]) -> None:
        """Make the queues known that this process has not declared yet."""
        self.connections.join(self)
        unknown = self.unknown(queues)
        if unknown:
            await self.link.fetch(sql.DECLARE, sorted(unknown))
            self._known.update(unknown)

    async def ignore(self, event: asyncio.Event, queues: Collection[str]) -> None:
        """Set the event for these queues no longer."""
        for queue in queues:
            waiting = self._waiting.get(queue, set())
            waiting.discard(event)
            if not waiting and queue in self._wakes:
                self._waiting.pop(queue, None)
                await self.link.ignore(await self._channel(queue), self._wakes.pop(queue))

    def ring(self, queues: Collection[str]) -> None:
        """Set the events of this process that wait for one of the queues."""
        self.rings += 1
        for queue in queues:
            for event in self._waiting.get(queue, ()):
                event.set()

    @property
    def polls(self) -> bool:
        """Whether no notification arrives here, so that a sleeper must look often."""
        return not self.connections.has_sessions

    async def fall_asleep(self, queues: Sequence[str]) -> None:
        """Let each sender to these queues notify this process for the next seconds, if it can listen."""
        if self.polls:
            return
        schema = (await self.link.facts()).schema
        names = sorted(queues)
        await self.link.fetch(_FALL_ASLEEP, names, self.process, channels_of(schema, names))

    # --- adding

    async def add(self, messages: Sequence[NewMessage]) -> list[None]:
        self.connections.join(self)
        for batch in split_by_size(messages):
            queues = {message.queue for message in batch}
            unknown = queues - self._known
            if len(batch) == 1 and not unknown:
                (one,) = batch
                values = one.queue, one.priority, one.due, one.frame, await self._channel(one.queue)
                await self.link.fetch(sql.ADD_ONE, *values, keeps_plan=True)
            else:
                await self.link.fetch(sql.ADD, *sql.columns_of(batch, unknown), keeps_plan=True)
            self.published(queues)
        return [None] * len(messages)

    def unknown(self, queues: Collection[str]) -> set[str]:
        """Return the queues that this process has not declared yet."""
        return set(queues) - self._known

    def published(self, queues: Collection[str]) -> None:
        """Note that these queues exist now, and wake their subscriptions."""
        self._known.update(queues)
        self.ring(queues)

    async def _add_once(self, additions: Sequence[Addition]) -> list[bool]:
        """Add what is not done under its key yet; return of each whether it was added."""
        self.connections.join(self)
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

        new = await self.link.transact(whole)
        self.published(queues)
        answers: list[bool] = []
        for key, _ in additions:
            answers.append(key in new)
            new.discard(key)
        return answers

    async def _tick_all(self, ticks: Sequence[Tick]) -> list[bool]:
        """Add the messages of each slot that is later than its entry's last one; return of each whether it was."""
        self.connections.join(self)
        queues = {message.queue for _, _, messages in ticks for message in messages}

        async def whole(connection: Connection) -> list[bool]:
            new = await advance_slots(connection, [(entry, slot) for entry, slot, _ in ticks])
            added = [messages for (_, _, messages), is_new in zip(ticks, new, strict=True) if is_new]
            for batch in split_by_size(list(chain.from_iterable(added))):
                await connection.fetch(sql.ADD, *sql.columns_of(batch, queues))
            return new

        new = await self.link.transact(whole)
        self.published(queues)
        return new

    async def _forget_once(self, keys: Sequence[str]) -> list[None]:
        await self.link.fetch(sql.FORGET_ONCE, list({storable_key(key) for key in keys}), float(ONCE_SETTLED))
        return [None] * len(keys)

    # --- taking

    async def take(self, places: Sequence[Place], now: int, ahead: int = 0) -> tuple[Taken, Floors]:
        """Take messages from places, the first place first; return the lowest ids that were taken, too.

        :param now: how many can start now.
        :param ahead: how many more may be taken, as long as they are not large.
        """
        self.connections.join(self)
        owner = await self.owners.hold()
        queues, priorities, floors = ([place[number] for place in places] for number in range(3))
        if self.strays.are_to_be_looked_for():
            await self._put_strays_back(owner)
        async with self.strays.turn:
            asked = self.clock.now()
            try:
                values = owner, queues, priorities, floors, now + ahead, now
                rows = await self.link.fetch(sql.TAKE, *values, keeps_plan=True)
            except BaseException:
                self.strays.suspect()
                raise
            number = self.strays.took([row["id"] for row in rows])
        if not rows:
            return Taken(drained=True), {}
        order = {(queue, priority): number for number, (queue, priority, _) in enumerate(places)}
        rows.sort(key=lambda row: (order[row["queue"], row["priority"]], row["id"]))
        lowest: Floors = {}
        for row in rows:
            lowest.setdefault((row["queue"], row["priority"]), row["id"])
        messages = [sql.taken_message(row, owner, number) for row in rows]
        ahead_by = seconds_ahead(rows[0]["now"], asked, self.clock.now())
        drained = len(rows) == rows[0]["found"] < now + ahead
        return Taken(messages, rows[0]["revision"] or 0, ahead_by, drained), lowest

    async def revision(self) -> int:
        return int(await self.link.value(REVISION, REVOKED))

    async def look(self, queues: Sequence[str], *, sleeps_on: bool = False) -> Look:
        """Put back what came due and what dead owners held; tell whether there is something to take.

        :param sleeps_on: have senders notify this process for some more seconds.
        """
        owners = self.owners
        asleep = sorted(queues) if sleeps_on and not self.polls else []
        channels = channels_of((await self.link.facts()).schema, asleep)
        who = owners.own or 0, await owners.lock_class()
        values = *who, list(queues), asleep, self.process, channels
        (row,) = await self.link.fetch(sql.LOOK, *values, keeps_plan=True)
        found: bool = row["waiting"]
        due: float | None = None if row["due"] is None else row["due"] - row["now"]
        if due is not None and not due > 0:  # a time that is no number is due, too
            found |= bool(await self._changing(sql.COME_DUE))
            due = 0.05
        if owners.own is not None and self.strays.are_to_be_looked_for():
            found |= await self._put_strays_back(owners.own)
        dead = owners.dead_among(row["unlocked"], row["expired"], row["up"])
        if dead:
            found |= bool(await self._changing(sql.RECOVER, dead, await owners.lock_class()))
        if await self.housekeeping.sweeps():
            found |= bool(await self._changing(sql.RECOVER_UNOWNED))
        times = [seconds for seconds in (due, owners.next_look()) if seconds is not None]
        return Look(found, min(times, default=None))

    async def revive(self) -> None:
        """Queue what came due, before a caller looks."""
        self.connections.join(self)
        await self._changing(sql.COME_DUE)

    async def examine(self) -> list[Finding]:
        """Look for the rights that are needed; return what is lacking that costs little. Raises ``BrokerError``."""
        self.connections.join(self)
        await rights.require(self.link, rights.QUEUES)
        await self.link.fetch(sql.DECLARE, [])  # which a replica refuses
        return await rights.costs(self.link)

    async def retry_dead(self, ids: Sequence[int]) -> int:
        self.connections.join(self)
        rows = await self.link.fetch(sql.RETRY_DEAD, list(ids))
        queues = [row["queue"] for row in rows if row["queue"] is not None]
        self.ring(queues)
        return len(queues)

    async def give_back(self, settlements: Sequence[Settlement]) -> None:
        """Put messages that never started back as they came. What was lost meanwhile is another's already."""
        await self._settle(settlements)

    async def close(self) -> None:
        await self.publish.drain()
        await self.publish_once.drain()
        await self.tick.drain()
        await self.forget_once.drain()
        await self.settle.drain()
        await self.housekeeping.close()
        with suppress(BrokerError):  # others put our messages back once they find our lock free
            if self.owners.own is not None:
                await self.link.fetch(sql.RELEASE, self.owners.own)
            await self.owners.let_go()
        self.strays.clear()
        self._known.clear()
        await self.connections.leave(self)

    # --- settling

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[DeliveryLost | None]:
        gives_back = any(one.verb in _STAYS for one in settlements)
        async with self.strays.turn if gives_back else nullcontext():
            mine = [one for one in settlements if self.strays.is_last(one)]
            held = await self._settle_mine(mine)
            self.strays.let_go(mine)
        self.housekeeping.settled(len(held))
        self._returned({one.queue for one in mine if one.verb in _STAYS})
        return [None if (one.id, one.take) in held else lost_delivery(one) for one in settlements]

    async def _settle_mine(self, settlements: Sequence[Settlement]) -> set[tuple[int, int]]:
        """Return the id and the take of what was held."""
        groups = list(sql.by_owner(settlements))
        marked = [one for one in settlements if one.mark is not None]

        async def whole(connection: Connection) -> set[tuple[int, int]]:
            held: set[tuple[int, int]] = set()
            for group in groups:
                rows = await connection.fetch(sql.SETTLE[group[0].verb], *sql.held_columns(group, self.cap))
                found = {row["id"] for row in rows}
                held.update((one.id, one.take) for one in group if one.id in found)
            await take_down(
                connection, [one.mark for one in marked if one.mark and (one.id, one.take) in held]
            )
            return held

        if len(groups) == 1 and not marked:
            return await self.link.run(whole, keeps_plans=groups[0][0].verb in sql.SIMPLE)
        return await self.link.transact(whole) if groups else set()

    async def _put_strays_back(self, owner: int) -> bool:
        """Return whether there were any."""
        async with self.strays.turn:
            return bool(await self._changing(sql.FREE_STRAYS, owner, self.strays.held))

    async def _changing(self, statement: str, *values: Any) -> list[str]:
        """Run a statement that puts messages back; return the queues that got some."""
        queues = [
            row["queue"] for row in await self.link.fetch(statement, *values) if row["queue"] is not None
        ]
        self._returned(queues)
        return queues

    def _returned(self, queues: Collection[str]) -> None:
        self.returns += bool(queues)
        self.ring(queues)

    async def _channel(self, queue: str) -> str:
        return channel_of((await self.link.facts()).schema, queue)


class _Wake:
    """Wakes the subscriptions of one queue."""

    def __init__(self, queues: Queues, queue: str) -> None:
        self._queues = queues
        self._queue = queue

    def __call__(self, _payload: str) -> None:
        self._queues.ring([self._queue])
