"""Writes values as JSON, for people and for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from celeriac.cli.visible import visible, visible_json


def as_json(value: Any, *, lines: bool = True) -> str:
    """Return the value as JSON, in lines where a person reads it; its repr where JSON has no word for it.

    No control character is left in it, only newlines between its lines.

    :param lines: may have several lines.
    """
    spread = lines and sys.stdout.isatty()
    try:
        text = _written(value, spread)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return visible(repr(value))
    return visible_json(text)


def _written(value: Any, spread: bool) -> str:
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:  # half of a surrogate pair, for which JSON has an escape
        separators = None if spread else (",", ":")
        return json.dumps(msgspec.to_builtins(value), indent=2 if spread else None, separators=separators)
    return (msgspec.json.format(encoded) if spread else encoded).decode()
