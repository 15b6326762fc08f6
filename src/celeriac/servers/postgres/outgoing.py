"""Messages as PostgreSQL keeps them, made from envelopes and routes.

Rules: a message that cannot be kept is refused before any is written.
"""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.errors import EncodeError
from celeriac.servers.postgres.messages import check_queue
from celeriac.servers.queue_rows import NewMessage, new_message
from celeriac.wire.envelope import Envelope, Route

_LARGEST = 500_000_000
"""Bytes of a frame; PostgreSQL has room for a gigabyte in a value, and in a statement."""


def new_messages(messages: Sequence[tuple[Envelope, Route]]) -> list[NewMessage]:
    """Return what is to be added; raise ``EncodeError`` for the first that cannot be kept."""
    new = [new_message(envelope, route) for envelope, route in messages]
    for message in new:
        check_queue(message.queue, EncodeError)
        if len(message.frame) > _LARGEST:
            raise EncodeError(
                f"a message for queue {message.queue!r} is too large: it has {len(message.frame)} bytes, and "
                f"PostgreSQL is given {_LARGEST} at most; keep such a value elsewhere and send where it is"
            )
    return new
