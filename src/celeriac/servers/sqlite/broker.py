"""A broker in one SQLite file, shared by any number of processes of one machine.

Rules: the event loop never waits for the disk. Simple queries are answered here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from celeriac.clock import Clock, SystemClock
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Schedule, Subscription, Survey
from celeriac.contracts.removal import Removed, Unwanted
from celeriac.contracts.set_aside import Cap, DeadLetters
from celeriac.errors import Finding
from celeriac.quantities import SECONDS, require
from celeriac.servers.row_fanout import RowFanout
from celeriac.servers.row_removal import remove_rows
from celeriac.servers.row_subscription import RowSubscription
from celeriac.servers.sqlite.beat import SqliteBeat
from celeriac.servers.sqlite.board import SqliteBoard
from celeriac.servers.sqlite.dead import SqliteDeadLetters
from celeriac.servers.sqlite.failed import SqliteFailed
from celeriac.servers.sqlite.fanout import SqliteBroadcasts
from celeriac.servers.sqlite.limits import USUAL, FileLimits
from celeriac.servers.sqlite.outgoing import new_messages
from celeriac.servers.sqlite.queue_file import QueueFile
from celeriac.servers.sqlite.removal import SqliteRows
from celeriac.servers.sqlite.results import SqlBackend
from celeriac.servers.sqlite.schedule import SqliteSchedule
from celeriac.servers.sqlite.settlements import SqliteSettlements
from celeriac.servers.sqlite.subscription import SqliteTaker
from celeriac.servers.sqlite.survey import survey
from celeriac.servers.sqlite.transactions import SqliteTransactions
from celeriac.servers.subscriptions import Subscriptions
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.preview import counted

_BULK = 5000
"""The most messages of ``publish_many`` in one transaction: a larger one would keep other processes waiting."""


class SqliteBroker:
    """Keeps messages in a SQLite file.

    :param path: the database file; made when missing.
    :param lease: seconds after which the messages of a process that died are given to others.
    :param failed: how much the failed list keeps.
    :param group: whether the file's group may read and write the files that are made here; else only the owner may.
    :param limits: how long this process waits for the file, and how much it takes at once.
    """

    may_repeat = False
    tells_taken = shows_heads = True
    removal_reach = None

    def __init__(
        self,
        path: str,
        *,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        lease: float = 30.0,
        group: bool = False,
        failed: Cap = Cap(),  # noqa: B008 - it has no state
        limits: FileLimits = USUAL,
    ) -> None:
        require("lease", lease, SECONDS)
        self._file = QueueFile(path, clock, lease, failed, limits, group=group)
        self._failed = SqliteFailed(self._file, failed)
        self._board = SqliteBoard(self._file.link, clock)
        self._fanout = RowFanout(SqliteBroadcasts(self._file))
        self._subscriptions: Subscriptions[RowSubscription] = Subscriptions()
        self._settlements: list[SqliteSettlements] = []

    async def publish(self, envelope: Envelope, route: Route) -> None:
        (new,) = await new_messages(self._file.link, [(envelope, route)])
        await self._file.calls.publish(new)

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        new = await new_messages(self._file.link, messages)
        for start in range(0, len(new), _BULK):
            await self._file.add(new[start : start + _BULK])

    async def publish_once(self, key: str, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        new = await new_messages(self._file.link, messages)
        return await self._file.calls.publish_once((key, new))

    async def forget_once(self, key: str) -> None:
        await self._file.calls.forget_once(key)

    def subscribe(self, queues: Sequence[str]) -> AbstractAsyncContextManager[Subscription]:
        return self._subscriptions.hold(
            RowSubscription(self._file, self._file, SqliteTaker(self._file)), queues
        )

    async def queues(self) -> list[str]:
        return await self._file.link.read(self._file.messages.queues)

    async def depth(self, queue: str) -> int:
        return await self._file.revived(lambda connection: self._file.messages.depth(connection, queue))

    async def peek(self, queue: str, limit: int = 10) -> list[Envelope | Unreadable]:
        found = await self._file.revived(
            lambda connection: self._file.messages.peek(connection, queue, limit)
        )
        return [message.envelope for message in found]

    async def survey(self, queues: Sequence[str]) -> Survey:
        """Count all messages; see ``celeriac.contracts.broker.Surveyed``."""
        return await self._file.revived(lambda connection: survey(connection, queues))

    async def purge(self, queue: str) -> int:
        return await self._file.revived(lambda connection: self._file.messages.purge(connection, queue))

    def remove(self, queue: str, unwanted: Unwanted) -> AsyncIterator[Removed]:
        """Remove single messages; see ``celeriac.contracts.removal.Removing``."""
        return remove_rows(SqliteRows(self._file), queue, unwanted)

    @property
    def dead(self) -> DeadLetters:
        return SqliteDeadLetters(self._file)

    @property
    def failed(self) -> SqliteFailed:
        """The failed list."""
        return self._failed

    @property
    def schedule(self) -> Schedule:
        return SqliteSchedule(self._file)

    @property
    def board(self) -> SqliteBoard:
        """The board of this file."""
        return self._board

    @property
    def fanout(self) -> RowFanout:
        """Fanout by two tables of this file."""
        return self._fanout

    @property
    def transactions(self) -> SqliteTransactions:
        """Publishing in the caller's transactions."""
        return SqliteTransactions(self._file)

    @property
    def beat(self) -> SqliteBeat:
        """Ticks of periodic tasks."""
        return SqliteBeat(self._file, self._board.slots)

    def settlements(self, results: Backend) -> SqliteSettlements | None:
        """Return what lands decisions in one step, if the results are in this file."""
        if not isinstance(results, SqlBackend) or results.path.resolve() != self._file.link.path.resolve():
            return None
        for made in self._settlements:
            if made.results is results:
                return made
        self._settlements.append(SqliteSettlements(self._file, results))
        return self._settlements[-1]

    async def ping(self) -> str:
        known = await self.queues()
        return f"SQLite file {self._file.link.path}, {counted(len(known), 'queue')}"

    async def examine(self, queues: Sequence[str]) -> Sequence[Finding]:
        await self._file.link.write(lambda _: None)  # raises for a file that may only be read
        return ()

    async def close(self) -> None:
        """Stop the subscriptions, give back what is held, and close the file."""
        await self._subscriptions.stop()
        await self._fanout.close()
        for settlements in self._settlements:
            await settlements.drain()
        await self._board.drain()
        await self._file.close()
