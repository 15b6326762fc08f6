"""Messages as a SQLite file keeps them, made from envelopes and routes.

Rules: a message that the file cannot keep is refused before any is written. A file has queues and no exchanges, so a
message goes to the queue of its route, or to the queue that its routing key names.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from celeriac.errors import BrokerError
from celeriac.servers.sqlite.link import LARGE, SqliteLink
from celeriac.servers.sqlite.messages import NewMessage
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import pack
from celeriac.wire.names import HIGHEST_PRIORITY, is_text


async def new_messages(link: SqliteLink, messages: Sequence[tuple[Envelope, Route]]) -> list[NewMessage]:
    """Return what is to be added; raise ``EncodeError`` or ``BrokerError`` for the first that cannot be kept."""
    new = [_new_message(envelope, route) for envelope, route in messages]
    for (envelope, _), message in zip(messages, new, strict=True):
        size = len(message.frame)
        if size >= LARGE:
            await link.check_size(size, _name(envelope))
    return new


def _new_message(envelope: Envelope, route: Route) -> NewMessage:
    queue = route.queue or route.routing_key
    if not is_text(queue):
        raise BrokerError(f"queue {queue!r} is no text that can be stored; give the queue another name")
    tag = envelope.delivery_tag or str(uuid.uuid4())
    priority = min(max(envelope.priority, 0), HIGHEST_PRIORITY)
    frame = pack(envelope, delivery_tag=tag, route=route)
    return NewMessage(queue, priority, frame, route.due)


def _name(envelope: Envelope) -> str:
    task, task_id = envelope.headers.get("task"), envelope.headers.get("id") or envelope.correlation_id
    return f"the message of {task}[{task_id}]"
