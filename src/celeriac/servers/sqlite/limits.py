"""How long one process waits for a SQLite file, and how much it takes from it in one step."""

from __future__ import annotations

import msgspec

from celeriac.servers.queue_rows import BATCH_BYTES


class FileLimits(msgspec.Struct, frozen=True):
    """The limits of one process on one file.

    :param busy: seconds for which a write waits for those of other connections.
    :param look: seconds between looks at the file, which make up for lost pokes.
    :param batch: bytes of the messages that one step takes, unless the first alone has more.
    """

    busy: float = 5.0
    look: float = 1.0
    batch: int = BATCH_BYTES


USUAL = FileLimits()
