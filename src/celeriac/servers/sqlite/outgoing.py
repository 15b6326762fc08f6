"""Messages as a SQLite file keeps them, made from envelopes and routes.

Rules: a message that the file cannot keep is refused before any is written.
"""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.servers.queue_rows import NewMessage, new_message
from celeriac.servers.sqlite.link import LARGE, SqliteLink
from celeriac.wire.envelope import Envelope, Route


async def new_messages(link: SqliteLink, messages: Sequence[tuple[Envelope, Route]]) -> list[NewMessage]:
    """Return what is to be added; raise ``EncodeError`` or ``BrokerError`` for the first that cannot be kept."""
    new = [new_message(envelope, route) for envelope, route in messages]
    for (envelope, _), message in zip(messages, new, strict=True):
        size = len(message.frame)
        if size >= LARGE:
            await link.check_size(size, _name(envelope))
    return new


def _name(envelope: Envelope) -> str:
    task, task_id = envelope.headers.get("task"), envelope.headers.get("id") or envelope.correlation_id
    return f"the message of {task}[{task_id}]"
