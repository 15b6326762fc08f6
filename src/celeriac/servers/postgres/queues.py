"""The queues of one database, as one process uses them: takes, puts back and settles messages.

Rules: settlements of concurrent callers share statements. What is put back wakes the subscriptions of its queue.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import msgspec

from celeriac.clock import Clock, seconds_ahead
from celeriac.contracts.board import REVOKED
from celeriac.contracts.set_aside import Cap
from celeriac.errors import BrokerError, BrokerUnavailable, DeliveryLost, Finding
from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres import rights
from celeriac.servers.postgres.adding import Adding
from celeriac.servers.postgres.board import REVISION, take_down
from celeriac.servers.postgres.connections import Connection, Connections
from celeriac.servers.postgres.housekeeping import Housekeeping
from celeriac.servers.postgres.link import PostgresLink
from celeriac.servers.postgres.owners import Owners
from celeriac.servers.postgres.sleeping import channels_of
from celeriac.servers.postgres.strays import Strays
from celeriac.servers.postgres.waking import Waking
from celeriac.servers.queue_calls import STAYS, QueueCalls
from celeriac.servers.queue_rows import Settlement, lost_delivery
from celeriac.servers.row_subscription import Taken

Place = tuple[str, int, int]
"""A queue, a priority, and the lowest id to look at."""

Floors = dict[tuple[str, int], int]
"""For each queue and priority an id, below which nothing was found."""


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
        self.housekeeping = Housekeeping(self.link, clock)
        self.waking = Waking(self.link, self.join)
        self.adding = adding = Adding(self.link, self.waking, self.join)
        self.calls = QueueCalls(adding.add, adding.add_once, adding.tick, adding.forget_once, self._settle)
        self.settle = self.calls.settle
        self.returns = 0

    def join(self) -> None:
        """Note that the connections are in use, until ``close``."""
        self.connections.join(self)

    # --- taking

    async def take(self, places: Sequence[Place], now: int, ahead: int = 0) -> tuple[Taken, Floors]:
        """Take messages from places, the first place first; return the lowest ids that were taken, too.

        :param now: how many can start now.
        :param ahead: how many more may be taken, as long as they are not large.
        """
        self.join()
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
        asleep = sorted(queues) if sleeps_on and not self.waking.polls else []
        channels = channels_of((await self.link.facts()).schema, asleep)
        who = owners.own or 0, await owners.lock_class()
        values = *who, list(queues), asleep, self.waking.process, channels
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
        self.join()
        await self._changing(sql.COME_DUE)

    async def examine(self) -> list[Finding]:
        """Look for the rights that are needed; return what is lacking that costs little. Raises ``BrokerError``."""
        self.join()
        await rights.require(self.link, rights.QUEUES)
        await self.link.fetch(sql.DECLARE, [])  # which a replica refuses
        return await rights.costs(self.link)

    async def retry_dead(self, ids: Sequence[int]) -> int:
        self.join()
        rows = await self.link.fetch(sql.RETRY_DEAD, list(ids))
        queues = [row["queue"] for row in rows if row["queue"] is not None]
        self.waking.ring(queues)
        return len(queues)

    async def give_back(self, settlements: Sequence[Settlement]) -> None:
        """Put messages that never started back as they came. What was lost meanwhile is another's already."""
        await self._settle(settlements)

    async def close(self) -> None:
        await self.calls.drain()
        await self.housekeeping.close()
        with suppress(BrokerError):  # others put our messages back once they find our lock free
            if self.owners.own is not None:
                await self.link.fetch(sql.RELEASE, self.owners.own)
            await self.owners.let_go()
        self.strays.clear()
        self.waking.forget()
        await self.connections.leave(self)

    # --- settling

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[DeliveryLost | None]:
        gives_back = any(one.verb in STAYS for one in settlements)
        async with self.strays.turn if gives_back else nullcontext():
            mine = [one for one in settlements if self.strays.is_last(one)]
            held = await self._settle_mine(mine)
            self.strays.let_go(mine)
        self.housekeeping.settled(len(held))
        self._returned({one.queue for one in mine if one.verb in STAYS})
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
        self.waking.ring(queues)
