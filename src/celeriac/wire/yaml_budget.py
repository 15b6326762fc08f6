"""Limits what a YAML document may make its reader build, and checks that before any of it is built.

Rules: the document is read as a stream of events, which takes no recursion: the library builds values recursively, and
deep nesting ends the process. Aliases count with all that they stand for. A long number in base 60 takes minutes.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from celeriac.errors import MalformedMessage

DEEPEST = 200
"""Levels of nesting that are read."""

_LONGEST_BASE_60 = 64
_LONGEST_NUMBER = 4300
"""Characters of a number; Python converts no more of a decimal one either."""

_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-FxXoO_.:eE+-]*")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NODE = 8
"""Bytes that a node counts besides its text."""


def check_yaml(body: bytes, most: int) -> None:
    """Raise ``MalformedMessage`` for a document that takes too much to be built.

    :param most: bytes that it may have with its aliases written out.
    """
    _Weighing(most).add_all(yaml.parse(body, _LOADER))


def read_yaml(body: bytes, most: int) -> Any:
    """Return the value of a document. Raises as ``check_yaml``, and what the library raises."""
    check_yaml(body, most)
    return yaml.load(body, _LOADER)  # noqa: S506 - it is one of the safe ones


class _Weighing:
    """The sizes of the open nodes, innermost last, and of those that an alias may name."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: list[tuple[str | None, int]] = []
        self._known: dict[str, int] = {}

    def add_all(self, events: object) -> None:
        for event in events:  # type: ignore[attr-defined]
            if isinstance(event, yaml.ScalarEvent):
                _check_number(event)
                self._close(event.anchor, _NODE + len(event.value))
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self._known:
                    raise MalformedMessage(f"YAML: the alias {event.anchor!r:.100} names nothing, or itself")
                self._close(None, self._known[event.anchor])
            elif isinstance(event, yaml.CollectionStartEvent):
                if len(self._open) >= DEEPEST:
                    raise MalformedMessage(f"YAML: nested deeper than {DEEPEST} levels")
                self._open.append((event.anchor, _NODE))
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close(*self._open.pop())

    def _close(self, anchor: str | None, size: int) -> None:
        if anchor is not None:
            self._known[anchor] = size
        if self._open:
            outer, before = self._open[-1]
            size += before
            self._open[-1] = (outer, size)
        if size > self._most:
            raise MalformedMessage(
                f"YAML: larger than {self._most} bytes with its aliases: max_decompressed_size"
            )


def _check_number(event: yaml.ScalarEvent) -> None:
    value = event.value
    if len(value) <= _LONGEST_BASE_60 or not (event.implicit[0] or event.tag is not None):
        return
    if (":" in value or len(value) > _LONGEST_NUMBER) and _NUMBER.fullmatch(value):
        raise MalformedMessage(f"YAML: a number of {len(value)} characters")
