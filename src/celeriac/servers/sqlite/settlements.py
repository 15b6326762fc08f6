"""Lands decisions in one transaction each: results, parts of chords, follow-ups, and the message.

Rules: nothing is done for a message that is no longer held. If a part gives a claim, or finds one held, the follow-ups
and the settlement of its decision wait for a second landing. If the file refuses a batch, each decision is landed
alone, so that only the faulty one fails. A decision that is refused in part is undone, so that its message comes again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from itertools import chain

from celeriac.contracts.backend import Standing
from celeriac.contracts.server import Landing
from celeriac.errors import DeliveryLost
from celeriac.servers.coalesce import Coalescer
from celeriac.servers.queue_rows import BATCH_BYTES
from celeriac.servers.row_settlements import Ending, answers_of, done_of, land, unless_open
from celeriac.servers.sqlite.outgoing import new_messages
from celeriac.servers.sqlite.queue_file import QueueFile
from celeriac.servers.sqlite.results import RESULT_TOPIC, SqlBackend
from celeriac.servers.sqlite.tables import RESULTS

_BATCH = 500
"""Endings that share one transaction."""


class SqliteSettlements:
    """See ``celeriac.contracts.server.Settlements``.

    :param results: keeps its tables in the same file.
    """

    limit = BATCH_BYTES

    def __init__(self, file: QueueFile, results: SqlBackend) -> None:
        self._file = file
        self.results = results
        self._land: Coalescer[Ending, Sequence[Standing]] = Coalescer(
            self._land_all, _BATCH, lambda ending: ending.weight
        )
        file.link.require(RESULTS)

    async def land(self, landing: Landing) -> Sequence[Standing]:
        rows = [await self.results.checked(result) for result in landing.results]
        messages = await new_messages(self._file.link, landing.messages) if landing.messages else ()
        return await land(landing, rows, messages, self._land)

    async def drain(self) -> None:
        """Return when every call so far was answered."""
        await self._land.drain()

    async def _land_all(self, endings: Sequence[Ending]) -> Sequence[Sequence[Standing] | DeliveryLost]:
        rows = [row for ending in endings for row in ending.rows]
        queues = {message.queue for ending in endings for message in ending.messages}
        topics = queues | {RESULT_TOPIC} if rows else queues
        answers = await self._file.link.write(partial(self._land_each, endings=endings), lambda: topics)
        self._file.published(queues)
        self.results.stored(rows)
        return answers

    # --- in the file's thread ------------------------------------------------------------------------------

    def _land_each(
        self, connection: sqlite3.Connection, endings: Sequence[Ending]
    ) -> list[Sequence[Standing] | DeliveryLost]:
        messages = self._file.messages
        held = messages.held(connection, [ending.settlement for ending in endings])
        valid = [ending for ending, is_held in zip(endings, held, strict=True) if is_held]
        rows = [row for ending in valid for row in ending.rows]
        if rows:
            self.results.rows.write(connection, rows)
        count = self.results.chords.count_in
        standings = [unless_open([count(connection, part) for part in ending.parts]) for ending in valid]
        done = done_of(valid, standings)
        self._file.add_in(connection, list(chain.from_iterable(ending.messages for ending in done)))
        settled = [ending.settlement for ending in done]
        messages.apply(connection, settled)
        self._file.unmark_in(connection, settled)
        return answers_of(endings, valid, standings)
