"""Sends the message of a task that failed once more, from the failed list.

Rules: it goes under a new id to the queue that it came from, with the header ``x-celeriac-retry-of``; its body is the
same, byte for byte, unless other arguments are given. What is asked for twice, as by a double click, is sent once.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from celeriac.client.app import App
from celeriac.contracts.broker import Broker
from celeriac.contracts.set_aside import DeadLetter
from celeriac.errors import CeleriacError
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.frame import DELIVERIES_HEADER
from celeriac.wire.task import Malformed, TaskMessage, decode, encode
from celeriac.wire.task_headers import SENT_HEADER

RETRY_OF = "x-celeriac-retry-of"
"""The header that names the task that is run again."""


STEP = 100
"""So many are sent at the same time, and share round trips."""


class Arguments(msgspec.Struct, frozen=True):
    """The arguments of a task."""

    args: list[Any]
    kwargs: dict[str, Any]


class Refused(CeleriacError):
    """It cannot be done; the text says why, and what to do."""


class SentAlready(Refused):
    """Its message was sent again before; it is done no second time."""


async def send_again(app: App, letter: DeadLetter, arguments: Arguments | None = None) -> str:
    """Run the task of an entry of the failed list again, and take the entry out; return the new id.

    :param arguments: to use in place of its own.

    Raises ``Refused`` where it cannot be sent, ``SentAlready`` where it was, and ``BrokerError``.
    """
    broker, now = app.connections().broker, app.clock.now()
    new = str(uuid.uuid4())
    envelope = renewed(letter, new, app.codecs, now, arguments)
    route = Route(letter.queue, queue=letter.queue)
    is_first = await broker.publish_once(_key(letter, arguments), [(envelope, route)])
    await broker.failed.delete([letter.id])
    if not is_first:
        raise SentAlready(f"task {letter.id} was sent again already")
    return new


async def send_all_again(
    app: App, letters: Sequence[DeadLetter]
) -> Sequence[tuple[str, str | CeleriacError]]:
    """Do so with all of them; return of each its id, with the new id or why it was not sent."""
    answers = list[tuple[str, str | CeleriacError]]()
    for start in range(0, len(letters), STEP):
        some = letters[start : start + STEP]
        answers += await asyncio.gather(*(_try_again(app, letter) for letter in some))
    return answers


async def _try_again(app: App, letter: DeadLetter) -> tuple[str, str | CeleriacError]:
    try:
        return letter.id, await send_again(app, letter)
    except CeleriacError as error:
        return letter.id, error


async def kept_message(broker: Broker, id: str, codecs: Codecs) -> TaskMessage | None:
    """Return the message of a task that is in the failed list; ``None`` where there is none that can be read here."""
    for letter in await broker.failed.find([id]):
        if isinstance(letter.envelope, Envelope):
            message = decode(letter.envelope, codecs)
            return message if isinstance(message, TaskMessage) else None
    return None


def renewed(
    letter: DeadLetter, new: str, codecs: Codecs, now: float, arguments: Arguments | None = None
) -> Envelope:
    """Return the message to send under the new id. Raises ``Refused`` and ``EncodeError``.

    :param now: seconds since the epoch.
    """
    envelope = letter.envelope
    if not isinstance(envelope, Envelope):
        raise Refused(f"the message of task {letter.id} cannot be read: {envelope.reason}")
    if arguments is None and envelope.headers.get("task") and envelope.headers.get("id"):
        return _with_headers(envelope, letter.id, new, now)
    message = decode(envelope, codecs)
    if isinstance(message, Malformed):
        raise Refused(f"the message of task {letter.id} cannot be read here: {message.reason}")
    message = msgspec.structs.replace(
        message,
        id=new,
        retries=0,
        eta=None,
        expires=None,
        root_id=new if message.root_id in (None, letter.id) else message.root_id,
        correlation_id=new,
        headers={**message.headers, RETRY_OF: letter.id},
    )
    if arguments is not None:
        message = msgspec.structs.replace(
            message, args=arguments.args, kwargs=arguments.kwargs, args_repr=None, kwargs_repr=None
        )
    return encode(message, codecs, serializer=message.content_type, compression=message.compression, sent=now)


def _with_headers(envelope: Envelope, id: str, new: str, now: float) -> Envelope:
    """Return the message with the same body; protocol 2 has in the headers all that changes."""
    headers = {name: value for name, value in envelope.headers.items() if name != DELIVERIES_HEADER}
    headers |= {"id": new, "retries": 0, "eta": None, "expires": None, RETRY_OF: id}
    if headers.get("root_id") in (None, id):
        headers["root_id"] = new
    if SENT_HEADER in headers:
        headers[SENT_HEADER] = now
    correlation = envelope.correlation_id
    return msgspec.structs.replace(
        envelope,
        headers=headers,
        correlation_id=new if correlation == id else correlation,
        expiration=None,
        delivery_tag=None,
        redelivered=False,
        copy=None,
    )


def _key(letter: DeadLetter, arguments: Arguments | None) -> str:
    """Return the key under which this run is sent once."""
    changes = repr((arguments.args, arguments.kwargs)) if arguments is not None else ""
    told = f"{letter.died_at!r}\0{changes}".encode(errors="replace")
    return f"{letter.id}.{blake2b(told, digest_size=8).hexdigest()}.again"
