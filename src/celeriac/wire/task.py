"""A task message: what a producer asks a worker to do.

Rules: ``decode`` answers with a value for every envelope: a ``TaskMessage``, or ``Malformed`` that says which field is
wrong. Protocol 2 is distinguished from protocol 1 by the ``task`` header, as Celery does. A null field is an absent
one. A time without an offset is UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from celeriac.errors import ContentRefused, EncodeError, MalformedMessage
from celeriac.wire.content import JSON, Codecs, Content
from celeriac.wire.envelope import Envelope
from celeriac.wire.extended_json import encode_json
from celeriac.wire.frame import DELIVERIES_HEADER
from celeriac.wire.names import RESULT_HEADER, is_text
from celeriac.wire.preview import preview
from celeriac.wire.steps import Steps
from celeriac.wire.task_body import NOTHING_EMBEDDED, Call, Embed, as_list, parse_body, parse_call, read_chain
from celeriac.wire.task_headers import SENT_HEADER, KnownHeaders, Limit, TaskHeaders


class TaskMessage(msgspec.Struct, frozen=True, gc=False):
    """One call of one task, whichever protocol it travels in (Celery: Message Protocol, versions 1 and 2).

    Signature dictionaries stay as Celery writes them. ``args`` is a tuple where the content has one (pickle). ``chain``
    is in wire order: the next step is its last element. ``time_limit`` and ``soft_time_limit`` are seconds. ``headers``
    holds only the custom ones. ``ignore_result`` is ``None`` where the producer leaves it to the task. ``expiration``
    is that of the envelope.
    """

    id: str
    task: str
    args: list[Any] | tuple[Any, ...] = []
    kwargs: dict[str, Any] = {}
    retries: int = 0
    eta: datetime | None = None
    expires: datetime | None = None
    group: str | None = None
    group_index: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    shadow: str | None = None
    callbacks: Sequence[dict[str, Any]] = ()
    errbacks: Sequence[dict[str, Any]] = ()
    chain: Sequence[dict[str, Any]] = ()
    chord: dict[str, Any] | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] = {}
    origin: str | None = None
    lang: str | None = None
    args_repr: str | None = None
    kwargs_repr: str | None = None
    headers: dict[str, Any] = {}
    correlation_id: str | None = None
    reply_to: str | None = None
    priority: int = 0
    content_type: str = "application/json"
    compression: str | None = None
    protocol: Literal[1, 2] = 2
    app_id: str | None = None
    expiration: str | None = None
    delivery_mode: int = 2


class Malformed(msgspec.Struct, frozen=True):
    """A message that is no task message, and why.

    ``id``, ``task`` and ``reply_to`` are filled in as far as they could be read, so that the caller can be told.
    ``refused`` says that the content type or compression is not accepted here, rather than broken.
    """

    reason: str
    id: str | None = None
    task: str | None = None
    reply_to: str | None = None
    refused: bool = False


PROTOCOL_HEADERS = frozenset(
    {
        "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
        "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers",
        "stamps", "compression", "redelivered", "meth", DELIVERIES_HEADER, RESULT_HEADER, SENT_HEADER,
    }
)  # fmt: skip
"""Headers that belong to the protocol; all others are the sender's own."""

_EMPTY_EMBED = b'{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'


def decode(envelope: Envelope, codecs: Codecs) -> TaskMessage | Malformed:
    """Return the task message that an envelope holds, of protocol 1, 2 or Celery's mix of both. Never raises."""
    headers = envelope.headers
    if isinstance(headers, TaskHeaders) and codecs.reads_as_ascii_json(
        envelope.body, envelope.content_type, envelope.content_encoding
    ):
        known = headers.known
        try:
            call = parse_call(envelope.body)
            eta = _read_time(known.eta, "eta") if known.eta else None
            expires = _read_time(known.expires, "expires") if known.expires else None
            embed = call.embed or NOTHING_EMBEDDED
            chain = read_chain(embed.chain) if embed.chain else ()
        except (msgspec.MsgspecError, MalformedMessage, ValueError, RecursionError, MemoryError):
            return _decode_any(envelope, headers, codecs)
        if known.id and known.task and known.group != "":
            return _message(envelope, known, known.group, eta, expires, call, embed, chain, {}, None, 2)
    return _decode_any(envelope, headers, codecs)


def _decode_any(envelope: Envelope, headers: Mapping[str, Any], codecs: Codecs) -> TaskMessage | Malformed:
    if RESULT_HEADER in headers:
        return _malformed(
            envelope, headers, "a result of a task, no task: its sender named this queue for results"
        )
    compression = headers.get("compression")
    if compression is not None and not isinstance(compression, str):
        return _malformed(envelope, headers, f"compression must be text, not {_kind(compression)}")
    try:
        body = codecs.decode(
            envelope.body, envelope.content_type, envelope.content_encoding, compression, parse_body
        )
    except (ContentRefused, MalformedMessage) as error:
        return _malformed(envelope, headers, str(error), refused=isinstance(error, ContentRefused))
    if headers.get("task"):
        if isinstance(body, (list, tuple, Call)):
            return _assemble(envelope, headers, body, 2)
        if isinstance(body, dict):
            return _assemble(envelope, body | dict(headers), _v1_call(body), 2)
        return _malformed(envelope, headers, f"body must be [args, kwargs, embed], not {_kind(body)}")
    if isinstance(body, dict) and "task" in body:
        if "task_id" in body and "status" in body:
            return _malformed(
                envelope, {}, "a result of a task, which a field of its own makes look like a task"
            )
        return _assemble(envelope, body, _v1_call(body), 1)
    return _malformed(
        envelope, headers, f"no task name in the headers, and the body is {_kind(body)} without one"
    )


def takes_long(envelope: Envelope, codecs: Codecs) -> bool:
    """Whether decoding may take so long that an event loop should leave it to a thread.

    It never does up to ``codecs.quick`` bytes, which a caller may look at first.
    """
    compression = envelope.headers.get("compression")
    return codecs.takes_long(
        envelope.body, envelope.content_type, compression if isinstance(compression, str) else None
    )


def encode(
    message: TaskMessage,
    codecs: Codecs,
    *,
    serializer: str = "json",
    compression: str | None = None,
    now: datetime | None = None,
    sent: float | None = None,
) -> Envelope:
    """Return the envelope of a task message, in the protocol that ``message.protocol`` names.

    :param compression: name of the compression for the body; see ``Codecs.compress``.
    :param now: with it, a message that expires carries the milliseconds left as its ``expiration``.
    :param sent: seconds since the epoch, which a message of protocol 2 carries as the header ``SENT_HEADER``.
    :raises EncodeError: an argument cannot be written, a custom header has a name of the protocol, or the serializer or
        compression is not at hand.
    """
    write = _encode_v1 if message.protocol == 1 else _encode_v2
    try:
        content, headers = write(message, codecs, serializer)
    except EncodeError as error:
        raise EncodeError(f"task {message.task}: {error}") from error
    if sent is not None and message.protocol == 2:
        headers[SENT_HEADER] = sent
    body = content.body
    if compression is not None:
        body, compressed = codecs.compress(body, compression)
        if compressed is not None:
            headers["compression"] = compressed
    return Envelope(
        body=body,
        content_type=content.content_type,
        content_encoding=content.content_encoding,
        headers=headers,
        correlation_id=message.correlation_id or message.id,
        reply_to=message.reply_to,
        priority=message.priority,
        expiration=_expiration(message.expires, now),
        app_id=message.app_id,
    )


# --- reading ----------------------------------------------------------------------------------------------------

# Peers written in Go and JavaScript have no numbers but floats.
_Count = int | Annotated[float, msgspec.Meta(multiple_of=1)] | None


class _Fields(msgspec.Struct, gc=False):
    """The headers of protocol 2, or the body of protocol 1, as other programs may have written them."""

    id: str
    task: str
    retries: _Count = None
    eta: Any = None
    expires: Any = None
    group: str | None = None
    taskset: str | None = None
    group_index: _Count = None
    root_id: str | None = None
    parent_id: str | None = None
    timelimit: tuple[Limit, Limit] | None = None
    ignore_result: bool | None = None
    shadow: str | None = None
    replaced_task_nesting: _Count = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    origin: str | None = None
    lang: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None


_MISFITS = (
    msgspec.ValidationError,
    UnicodeEncodeError,
)  # the latter for a lone surrogate in place of a number


def _v1_call(body: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return the parts of a protocol 1 body that stand in the body of protocol 2."""
    return body.get("args"), body.get("kwargs"), body


def _assemble(
    envelope: Envelope, fields: Mapping[str, Any], call: Any, protocol: Literal[1, 2]
) -> TaskMessage | Malformed:
    try:
        known = msgspec.convert(fields, _Fields)
        eta = _read_time(known.eta, "eta") if known.eta else None
        expires = _read_time(known.expires, "expires") if known.expires else None
    except (*_MISFITS, MalformedMessage) as error:
        return _malformed(envelope, fields, str(error))
    try:
        called = call if isinstance(call, Call) else _converted(call)
        embed = called.embed or NOTHING_EMBEDDED
        chain = read_chain(embed.chain) if embed.chain else ()
    except (*_MISFITS, MalformedMessage) as error:
        return _malformed(envelope, fields, f"body [args, kwargs, embed]: {error}")
    names = (known.id, known.task, known.task if known.group is None else known.group)
    if "" in names or not "".join(names).isascii():
        for name in names:
            if not name or not is_text(name):
                return _malformed(envelope, fields, f"{name!r:.100} is no usable name")
    headers = envelope.headers
    return _message(
        envelope,
        known,
        known.taskset or known.group,
        eta,
        expires,
        called,
        embed,
        chain,
        {} if headers.keys() <= PROTOCOL_HEADERS else _without_protocol(headers),
        headers.get("compression"),
        protocol,
    )


def _converted(call: Any) -> Call:
    """Return a body that was read by another serializer than JSON; a tuple of arguments stays one."""
    called = msgspec.convert(call, Call)
    if type(call) in (list, tuple) and type(call[0]) is tuple:
        called.args = call[0]  # type: ignore[assignment]  # msgspec has no type for a list or a tuple
    return called


def _message(
    envelope: Envelope,
    known: KnownHeaders | _Fields,
    group: str | None,
    eta: datetime | None,
    expires: datetime | None,
    call: Call,
    embed: Embed,
    chain: Sequence[dict[str, Any]],
    headers: dict[str, Any],
    compression: str | None,
    protocol: Literal[1, 2],
) -> TaskMessage:
    time_limit, soft_time_limit = known.timelimit or (None, None)
    # In the order of the fields: looking 34 names up costs more than all the rest of a message's reading.
    return TaskMessage(
        known.id,
        known.task,
        call.args or [],
        call.kwargs or {},
        int(known.retries or 0),
        eta,
        expires,
        group,
        None if known.group_index is None else int(known.group_index),
        known.root_id,
        known.parent_id,
        time_limit,
        soft_time_limit,
        known.ignore_result,
        known.shadow,
        as_list(embed.callbacks) if embed.callbacks else (),
        as_list(embed.errbacks) if embed.errbacks else (),
        chain,
        embed.chord or None,
        int(known.replaced_task_nesting or 0),
        known.stamped_headers,
        known.stamps or {},
        known.origin,
        known.lang,
        known.argsrepr,
        known.kwargsrepr,
        headers,
        envelope.correlation_id,
        envelope.reply_to,
        envelope.priority,
        envelope.content_type or "",
        compression,
        protocol,
        envelope.app_id,
        envelope.expiration,
        envelope.delivery_mode,
    )


def _read_time(value: Any, field: str) -> datetime:
    """Return an aware time; every ISO 8601 form that Python reads is understood."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise MalformedMessage(f"{field} is no ISO 8601 time: {value!r:.100}") from None
    if not isinstance(value, datetime):
        raise MalformedMessage(f"{field} must be an ISO 8601 time, not {value!r:.100}")
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _without_protocol(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if name not in PROTOCOL_HEADERS}


def _malformed(
    envelope: Envelope, fields: Mapping[str, Any], reason: str, *, refused: bool = False
) -> Malformed:
    """Say what is wrong, to whom: the id is looked for in the correlation id too, where Celery repeats it."""
    task_id, task = (
        value if isinstance(value, str) and is_text(value) else None
        for value in (fields.get("id"), fields.get("task"))
    )
    return Malformed(reason, task_id or envelope.correlation_id, task, envelope.reply_to, refused)


def _kind(value: Any) -> str:
    if isinstance(value, Call):
        return "list"
    return "null" if value is None else type(value).__name__


# --- writing ----------------------------------------------------------------------------------------------------


def _encode_v2(message: TaskMessage, codecs: Codecs, serializer: str) -> tuple[Content, dict[str, Any]]:
    headers = {
        "lang": message.lang or "py",
        "task": message.task,
        "id": message.id,
        "shadow": message.shadow,
        "eta": _write_time(message.eta),
        "expires": _write_time(message.expires),
        "group": message.group,
        "group_index": message.group_index,
        "retries": message.retries,
        "timelimit": [message.time_limit, message.soft_time_limit],
        "root_id": message.root_id,
        "parent_id": message.parent_id,
        "argsrepr": preview(tuple(message.args)) if message.args_repr is None else message.args_repr,
        "kwargsrepr": preview(message.kwargs) if message.kwargs_repr is None else message.kwargs_repr,
        "origin": message.origin,
        "ignore_result": message.ignore_result,
        "replaced_task_nesting": message.replaced_task_nesting,
        "stamped_headers": message.stamped_headers,
        "stamps": message.stamps,
    }
    if message.headers:
        headers |= _custom(message.headers)
    if serializer != "json":
        embed = {
            "callbacks": message.callbacks or None,
            "errbacks": message.errbacks or None,
            "chain": list(message.chain) or None,
            "chord": message.chord or None,
        }
        return codecs.encode([message.args, message.kwargs, embed], serializer), headers
    nothing = not (message.callbacks or message.errbacks or message.chain or message.chord)
    parts = (
        encode_json(message.args, "args"),
        encode_json(message.kwargs, "kwargs") if message.kwargs else b"{}",
        _EMPTY_EMBED if nothing else _encode_embed(message),
    )
    return Content(b"[" + b", ".join(parts) + b"]", JSON, "utf-8"), headers


def _encode_embed(message: TaskMessage) -> bytes:
    chain = message.chain
    if isinstance(chain, Steps) and chain:
        steps = chain.as_json()
    else:
        steps = encode_json(list(chain) or None, "embed['chain']")
    return b'{"callbacks": %b, "errbacks": %b, "chain": %b, "chord": %b}' % (
        encode_json(message.callbacks or None, "embed['callbacks']"),
        encode_json(message.errbacks or None, "embed['errbacks']"),
        steps,
        encode_json(message.chord or None, "embed['chord']"),
    )


def _encode_v1(message: TaskMessage, codecs: Codecs, serializer: str) -> tuple[Content, dict[str, Any]]:
    callbacks = [*message.callbacks, *_nest(message.chain)]
    body = {
        "task": message.task,
        "id": message.id,
        "args": message.args,
        "kwargs": message.kwargs,
        "group": message.group,
        "group_index": message.group_index,
        "retries": message.retries,
        "eta": _write_time(message.eta),
        "expires": _write_time(message.expires),
        "utc": True,
        "callbacks": callbacks or None,
        "errbacks": message.errbacks or None,
        "timelimit": [message.time_limit, message.soft_time_limit],
        "taskset": message.group,
        "chord": message.chord or None,
    }
    if serializer == "json":
        return Content(encode_json(body, "body"), JSON, "utf-8"), _custom(message.headers)
    return codecs.encode(body, serializer), _custom(message.headers)


def _nest(chain: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the next step of a chain, each step holding the one after as its link: protocol 1 has no other form."""
    following: list[dict[str, Any]] = []
    for step in chain:  # the last step comes first
        options = dict(step.get("options") or {})
        links = [*as_list(options.get("link")), *following]
        if links:
            options["link"] = links
        following = [step | {"options": options}]
    return following


def _custom(headers: dict[str, Any]) -> dict[str, Any]:
    if not headers.keys().isdisjoint(PROTOCOL_HEADERS):
        taken = ", ".join(sorted(headers.keys() & PROTOCOL_HEADERS))
        raise EncodeError(f"headers: {taken}: the protocol uses these names itself; choose others")
    return dict(headers)


def _write_time(value: datetime | None) -> str | None:
    """Return ISO 8601 with an offset, without which readers in Go cannot read it."""
    if value is None:
        return None
    return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).isoformat()


def _expiration(expires: datetime | None, now: datetime | None) -> str | None:
    if expires is None or now is None:
        return None
    if expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    return str(max(0, int((expires - now).total_seconds() * 1000)))
