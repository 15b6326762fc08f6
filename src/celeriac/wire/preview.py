"""Short text of values, for people to read in logs and monitors.

Rules: never raises, never longer than its limit by more than a few characters, never reads more of a value than it
shows, whatever the value.
"""

from __future__ import annotations

from typing import Any

LIMIT = 1024
"""Characters that Celery allows ``argsrepr`` and ``kwargsrepr``."""

_DEPTH = 8
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    dict: ("{", "}"),
}
_LISTS = frozenset({tuple, list})
_NUMBERS = frozenset({int, float, bool, type(None)})
_FEW = 8


def preview(value: Any, limit: int = LIMIT) -> str:
    """Return ``repr(value)``, cut to ``limit`` characters where it is longer; cut text ends in ``...``."""
    kind = type(value)
    if kind is dict and not value:
        return "{}"
    if kind in _LISTS and len(value) <= _FEW and _NUMBERS.issuperset(map(type, value)):
        text = _own_repr(value)  # as most calls have it
    else:
        text = _text(value, limit, 0)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 task``, ``2 tasks``.

    :param plural: where it is not the noun with an s.
    """
    return f"1 {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def _text(value: Any, room: int, depth: int) -> str:
    """Return the text of a value, or its beginning, which is then longer than the room."""
    kind = type(value)
    if kind is str or kind is bytes:
        return repr(value if len(value) <= room else value[: max(room, 0) + 1])
    if kind not in _BRACKETS or (kind is set and not value):
        return _own_repr(value)
    opening, closing = _BRACKETS[kind]
    if depth >= _DEPTH:
        return f"{opening}...{closing}"
    if kind is tuple and len(value) == 1:
        closing = ",)"
    parts = []
    for item in value.items() if kind is dict else value:
        if kind is dict:
            text = f"{_text(item[0], room, depth + 1)}: "
            text += _text(item[1], room - len(text), depth + 1)
        else:
            text = _text(item, room, depth + 1)
        parts.append(text)
        room -= len(text) + 2
        if room < 0:
            break
    return f"{opening}{', '.join(parts)}{closing}"


def _own_repr(value: Any) -> str:
    try:
        return repr(value)
    except BaseException as error:  # noqa: BLE001 - a value's own __repr__ may raise anything
        return f"<{type(value).__name__}: its repr raised {type(error).__name__}>"
