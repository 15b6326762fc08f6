"""Publishing within a transaction of the caller's, on the caller's own connection to the file.

Rules: nothing is written on a connection of ours, which would wait for the end of the caller's transaction. Nobody
is poked, since the commit is not ours: workers see the message at their next look at the file, within a second.
"""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.canvas.launch import Opening
from celeriac.contracts.transactions import Statement
from celeriac.servers.sqlite.outgoing import new_messages
from celeriac.servers.sqlite.queue_file import QueueFile
from celeriac.wire.envelope import Envelope, Route

_DECLARE = "INSERT OR IGNORE INTO celeriac_queue (name) VALUES ({})"
_ADD = "INSERT INTO celeriac_message (queue, priority, due_at, frame) VALUES ({}, {}, {}, {})"
_OPEN = """
    INSERT OR IGNORE INTO celeriac_chord (id, size, ended, joined, done, touched) VALUES ({}, {}, 0, 0, 0, {})"""


class SqliteTransactions:
    """See ``celeriac.contracts.transactions.Transactions``."""

    dialect = "sqlite"

    def __init__(self, file: QueueFile) -> None:
        self._file = file

    async def statements(
        self, messages: Sequence[tuple[Envelope, Route]], openings: Sequence[Opening] = ()
    ) -> Sequence[Statement]:
        new = await new_messages(self._file.link, messages)
        await self._file.link.version()  # the tables are there
        now = self._file.clock.now()
        return [
            *(Statement(_OPEN, (opening.chord_id, opening.size, now)) for opening in openings),
            *(Statement(_DECLARE, (queue,)) for queue in sorted({message.queue for message in new})),
            *(
                Statement(_ADD, (message.queue, message.priority, message.due, message.frame))
                for message in new
            ),
        ]
