"""The headers of a usual task, of which all but seven texts are compared rather than read.

Rules: pure. Celery and this library write the headers of every task in one order. A task that is sent by itself, for
now and for the first time, has no others. Headers that deviate are left to the reader of tables.
Source: Celery, Message Protocol version 2; AMQP 0-9-1, section 4.2.5.5.
"""

from __future__ import annotations

from struct import Struct, error
from typing import Any

_TEXTS = (
    b"\x04langS",
    b"\x04taskS",
    b"\x02idS",
    (
        b"\x06shadowV\x03etaV\x07expiresV\x05groupV\x0bgroup_indexV\x07retriesI\0\0\0\0"
        b"\ttimelimitA\0\0\0\x02VV\x07root_idS"
    ),
    b"\tparent_idV\x08argsreprS",
    b"\nkwargsreprS",
    b"\x06originS",
)
"""What stands before each text: the names and kinds of fields, and the values of those that are the same everywhere."""

_HEADS = tuple((head, len(head)) for head in _TEXTS)
_RESTS = tuple(
    (
        ignored,
        b"\rignore_result"
        + value
        + b"\x15replaced_task_nestingI\0\0\0\0\x0fstamped_headersV\x06stampsF\0\0\0\0",
    )
    for ignored, value in ((False, b"t\0"), (None, b"V"), (True, b"t\x01"))
)
"""What stands after the last text, for each value of ``ignore_result``."""

_length_at = Struct(">I").unpack_from


def read_sole_task(data: bytes, at: int, end: int) -> tuple[dict[str, Any], int] | None:
    """Return the headers that a table begins with, and where the next one begins; ``None`` for any other task.

    :param at: where its first field begins.
    :param end: where the table ends.
    """
    texts: list[str] = []
    try:
        for head, size in _HEADS:
            if not data.startswith(head, at):
                return None
            start = at + size + 4
            at = start + _length_at(data, at + size)[0]
            texts.append(data[start:at].decode())
    except (error, UnicodeDecodeError):
        return None
    for value, rest in _RESTS:
        if data.startswith(rest, at):
            ignored = value
            at += len(rest)
            break
    else:
        return None
    if at > end:
        return None
    lang, task, task_id, root_id, args, kwargs, origin = texts
    headers: dict[str, Any] = {
        "lang": lang,
        "task": task,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": root_id,
        "parent_id": None,
        "argsrepr": args,
        "kwargsrepr": kwargs,
        "origin": origin,
        "ignore_result": ignored,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    return headers, at
