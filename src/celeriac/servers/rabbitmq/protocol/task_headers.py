"""The headers of a usual task, of which all but seven texts are compared rather than read.

Rules: pure. Celery and this library write the headers of every task in one order. A task that is sent by itself, for
now and for the first time, has no others. Headers that deviate are left to the reader of tables, and so are texts with
control characters: without them, a text ends where the name of the next header begins, which is a byte of length.
Source: Celery, Message Protocol version 2; AMQP 0-9-1, section 4.2.5.5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from struct import Struct
from typing import Any, cast

from celeriac.wire.task_headers import SENT_HEADER, KnownHeaders, TaskHeaders

_TEXT = rb"S(....)([^\0-\x1f]*+)"
_SENT = bytes((len(SENT_HEADER),)) + SENT_HEADER.encode()
_usual = re.compile(
    rb"....\x04lang" + _TEXT + rb"\x04task" + _TEXT + rb"\x02id" + _TEXT
    + rb"\x06shadowV\x03etaV\x07expiresV\x05groupV\x0bgroup_indexV\x07retriesI\0\0\0\0\ttimelimitA\0\0\0\x02VV"
    + rb"\x07root_id" + _TEXT + rb"\tparent_idV\x08argsrepr" + _TEXT + rb"\nkwargsrepr" + _TEXT
    + rb"\x06origin" + _TEXT + rb"\rignore_result(t\0|t\x01|V)"
    + rb"\x15replaced_task_nestingI\0\0\0\0\x0fstamped_headersV\x06stampsF\0\0\0\0"
    + rb"(?:" + re.escape(_SENT) + rb"d(.{8}))?",
    re.DOTALL,
).fullmatch  # fmt: skip

_IGNORED = {b"t\0": False, b"t\x01": True, b"V": None}
_lengths_of = Struct(">7I").unpack
_number_of = Struct(">d").unpack


def read_sole_task(
    data: bytes, at: int, end: int, read: Callable[[bytes], dict[str, Any]]
) -> Mapping[str, Any] | None:
    """Return the headers in the table from ``at`` to ``end``, ``None`` for those of any other task.

    :param read: returns the plain headers in the bytes of a table.
    """
    found = _usual(data, at, end)
    if found is None or end > len(data):
        return None
    (
        lang_size, lang, task_size, task, id_size, task_id, root_size, root_id, args_size, args, kwargs_size, kwargs,
        origin_size, origin, ignored, sent,
    ) = found.groups()  # fmt: skip
    sizes = lang_size + task_size + id_size + root_size + args_size + kwargs_size + origin_size
    lengths = len(lang), len(task), len(task_id), len(root_id), len(args), len(kwargs), len(origin)
    moment = None if sent is None else _number_of(sent)[0]
    if _lengths_of(sizes) != lengths or not (moment is None or isfinite(moment)):
        return None
    try:
        # In the order of the fields: looking the names up would cost as much again.
        known = KnownHeaders(
            lang.decode(),
            task.decode(),
            task_id.decode(),
            None,
            None,
            None,
            None,
            None,
            0,
            None,
            root_id.decode(),
            None,
            args.decode(),
            kwargs.decode(),
            origin.decode(),
            _IGNORED[ignored],
            0,
            None,
            None,
            moment,
        )
    except UnicodeDecodeError:
        return None
    return cast("Mapping[str, Any]", TaskHeaders(known, data[at:end], read))
