"""Many messages that are added in one transaction: the server works on some while the next ones are encoded.

Rules: all are added, or none. Sleepers are told, and queues made known, by the last statement: who looked before it
would find nothing, and a new name keeps other senders waiting until the transaction ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from celeriac.servers.postgres import messages as sql
from celeriac.servers.postgres.connections import Connection
from celeriac.servers.postgres.outgoing import new_messages
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.queue_rows import split_by_size
from celeriac.wire.envelope import Envelope, Route

SLICE = 500
"""Messages of one statement: so few are on their way to the server soon, and so many are worth a round trip."""


async def add_all(queues: Queues, messages: Sequence[tuple[Envelope, Route]]) -> None:
    """Add all. Raises ``EncodeError`` for the first that cannot be kept, and ``BrokerError``; then none was added."""
    names: set[str] = set()

    async def whole(connection: Connection) -> None:
        first: list[sql.Due] = []
        under_way: asyncio.Task[Any] | None = None
        try:
            for start in range(0, len(messages), SLICE):
                for batch in split_by_size(new_messages(messages[start : start + SLICE])):
                    if under_way is not None:
                        await under_way
                    first = sql.first_due([*first, *((message.queue, message.due) for message in batch)])
                    statement = connection.fetch(sql.ADD, *sql.message_columns(batch), [], [], [])
                    under_way = asyncio.create_task(statement)
                    await asyncio.sleep(0)  # so that it leaves before the next ones are encoded
            if under_way is not None:
                await under_way
        finally:
            if under_way is not None and not under_way.done():
                under_way.cancel()
                await asyncio.gather(under_way, return_exceptions=True)
        names.update(queue for queue, _ in first)
        await connection.fetch(
            sql.ADD, *sql.message_columns(()), *sql.queue_columns(first, queues.waking.unknown(names))
        )

    queues.join()
    await queues.link.transact(whole, keeps_plans=True)
    queues.waking.published(names)
