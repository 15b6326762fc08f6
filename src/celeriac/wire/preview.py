"""Short text of values, for people to read in logs and monitors.

Rules: never raises, never longer than its limit by more than a few characters, never reads more of a value than it
shows, whatever the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

LIMIT = 1024
"""Characters that Celery allows ``argsrepr`` and ``kwargsrepr``."""

_DEPTH = 8
_BRACKETS: dict[type, tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}")}


def preview(value: Any, limit: int = LIMIT) -> str:
    """Return ``repr(value)``, cut to ``limit`` characters where it is longer; cut text ends in ``...``."""
    parts: list[str] = []
    room = limit
    for part in _parts(value, limit, 0):
        parts.append(part)
        room -= len(part)
        if room < 0:
            return "".join(parts)[: limit - 3] + "..."
    return "".join(parts)


def _parts(value: Any, limit: int, depth: int) -> Iterator[str]:
    kind = type(value)
    if kind is str or kind is bytes:
        yield repr(value if len(value) <= limit else value[: limit + 1])
    elif kind is dict:
        yield from _inside("{", _pairs(value, limit, depth), "}", depth)
    elif kind in _BRACKETS and (value or kind is not set):
        opening, closing = _BRACKETS[kind]
        if kind is tuple and len(value) == 1:
            closing = ",)"
        items = (_parts(item, limit, depth + 1) for item in value)
        yield from _inside(opening, items, closing, depth)
    else:
        yield _own_repr(value)


def _pairs(value: dict[Any, Any], limit: int, depth: int) -> Iterator[Iterable[str]]:
    for key, item in value.items():
        yield chain(_parts(key, limit, depth + 1), (": ",), _parts(item, limit, depth + 1))


def _inside(opening: str, items: Iterable[Iterable[str]], closing: str, depth: int) -> Iterator[str]:
    yield opening
    if depth >= _DEPTH:
        yield "..."
    else:
        for index, item in enumerate(items):
            if index:
                yield ", "
            yield from item
    yield closing


def _own_repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - a value's own __repr__ may raise anything
        return f"<{type(value).__name__}: its repr raised {type(error).__name__}>"
