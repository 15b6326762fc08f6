"""Publishing within a transaction of the caller's, on the caller's own connection.

Rules: the caller's search path is not ours, so the schema is written out. What is sent so always notifies, since its
commit may come much later than the look of one that falls asleep meanwhile. Queues are declared before, on a
connection of ours: in the caller's transaction a new name would keep other senders waiting until it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.canvas.launch import Opening
from celeriac.contracts.transactions import Statement
from celeriac.servers.postgres.board import NOW
from celeriac.servers.postgres.keys import storable_key
from celeriac.servers.postgres.outgoing import new_messages
from celeriac.servers.postgres.queues import Queues
from celeriac.servers.postgres.sleeping import channels_of
from celeriac.servers.queue_rows import split_by_size
from celeriac.wire.envelope import Envelope, Route

_ROWS = 100
"""Messages of one statement."""

_ADD = "INSERT INTO {schema}.celeriac_message (queue, priority, due_at, frame) VALUES {rows}"
_OPEN = "INSERT INTO {schema}.celeriac_chord (id, size, touched) VALUES {rows} ON CONFLICT (id) DO NOTHING"
_NOTIFY = "SELECT {calls}"


class PostgresTransactions:
    """See ``celeriac.contracts.transactions.Transactions``."""

    dialect = "postgresql"

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def statements(
        self, messages: Sequence[tuple[Envelope, Route]], openings: Sequence[Opening] = ()
    ) -> Sequence[Statement]:
        new = new_messages(messages)
        names = sorted({message.queue for message in new})
        await self._queues.waking.declare(names)
        facts = await self._queues.link.facts()
        schema = facts.quoted_schema.replace("{", "{{").replace("}", "}}")
        statements: list[Statement] = []
        if openings:
            rows = ", ".join([f"({{}}, {{}}, {NOW})"] * len(openings))
            sizes: list[Any] = [
                value for opening in openings for value in (storable_key(opening.chord_id), opening.size)
            ]
            statements.append(Statement(_OPEN.format(schema=schema, rows=rows), sizes))
        for batch in split_by_size(new):
            for start in range(0, len(batch), _ROWS):
                some = batch[start : start + _ROWS]
                rows = ", ".join(["({}, {}, {}, {})"] * len(some))
                values = [
                    value
                    for message in some
                    for value in (message.queue, message.priority, message.due, message.frame)
                ]
                statements.append(Statement(_ADD.format(schema=schema, rows=rows), values))
        if names:
            calls = ", ".join(["pg_notify({}, '')"] * len(names))
            statements.append(Statement(_NOTIFY.format(calls=calls), channels_of(facts.schema, names)))
        return statements
