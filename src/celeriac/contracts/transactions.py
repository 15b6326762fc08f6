"""The contract of publishing within a transaction of the caller's.

Rules: what is to be written is given as SQL, and executed on the caller's connection, of whichever library it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from celeriac.canvas.launch import Opening
from celeriac.wire.envelope import Envelope, Route


class Statement(msgspec.Struct, frozen=True):
    """A statement of SQL.

    :param text: has ``{}`` in the place of each value.
    """

    text: str
    values: Sequence[str | int | float | bytes | None] = ()


class Transactions(Protocol):
    """Publishes within a transaction of the caller's, on the caller's own connection to the broker's database.

    :ivar dialect: ``postgresql`` or ``sqlite``.
    """

    dialect: str

    async def statements(
        self, messages: Sequence[tuple[Envelope, Route]], openings: Sequence[Opening] = ()
    ) -> Sequence[Statement]:
        """Return what is to be executed, in order, so that the messages are published when the transaction commits.

        Nothing is published by this call, and nothing if the transaction is rolled back.

        :param openings: chords to be made known in the same transaction; only where the results are in this database.

        Raises as ``Broker.publish_many``.
        """
        ...
