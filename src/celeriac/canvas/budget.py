"""Limits how much one message may send on, before any of it is built.

Rules: this module is pure. It computes an upper bound from the dictionaries as they arrived. A field that one signature
holds for several tasks (the options of a group, the body of a chord, the call of chunks) counts once for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from celeriac.wire.steps import Steps
from celeriac.wire.task import TaskMessage

LIGHT = 500
"""Values in signatures up to which reading them is quick enough for the event loop."""

_VALUE = 16
"""Bytes of JSON that a value takes."""

MAX_FOLLOW_UPS = 150_000
MAX_FOLLOW_UP_BYTES = 128 * 1024 * 1024


class Budget(msgspec.Struct, frozen=True):
    """The limits on what one message may send on.

    :param messages: the most messages.
    :param size: the most bytes of all their bodies together.
    """

    messages: int = MAX_FOLLOW_UPS
    size: int = MAX_FOLLOW_UP_BYTES

    def excess(self, message: TaskMessage) -> str | None:
        """Return which limit the follow-ups of the message exceed; ``None`` where they exceed none.

        Messages that the follow-ups send in turn are counted when those arrive. Raises ``RecursionError``.
        """
        next_steps = [_weigh(callback) for callback in message.callbacks]
        if message.chain:
            # Each message of the next step carries the rest of the chain.
            next_steps.append(_weigh(message.chain[-1]).each(_size(message.chain[:-1])))
        stamps = _size(message.stamps)
        errbacks = [_weigh(errback) for errback in message.errbacks]
        return self._excess(next_steps, stamps) or self._excess(errbacks, stamps)

    def excess_of(self, signature: Any) -> str | None:
        """Return which limit the messages of a signature exceed, or ``None``. Raises ``RecursionError``."""
        return self._excess([_weigh(signature)], 0)

    def exceeded(self, messages: int, size: int) -> str | None:
        """Return which limit this number of messages, or of bytes, exceeds; ``None`` where it exceeds none."""
        if messages > self.messages:
            return f"{messages} messages are more than max_follow_ups={self.messages}"
        if size > self.size:
            return f"{size} bytes of messages are more than max_follow_up_bytes={self.size}"
        return None

    def _excess(self, loads: Sequence[_Load], shared: int) -> str | None:
        number = sum(load.messages for load in loads)
        return self.exceeded(number, sum(load.size for load in loads) + number * shared)


def is_light(message: TaskMessage) -> bool:
    """Whether the follow-ups of the message are read so quickly that no thread is needed to keep the loop free."""
    if not (message.callbacks or message.errbacks or message.chain or message.chord):
        return True
    chain = message.chain
    if len(chain) > LIGHT:
        return False
    left = LIGHT
    if isinstance(chain, Steps):
        left -= len(chain[-1:].as_json()) // _VALUE
        chain = ()
    pending: list[Any] = [message.callbacks, message.errbacks, message.chord, chain]
    while pending and left > 0:
        value = pending.pop()
        left -= 1
        if isinstance(value, Mapping | list | tuple):
            left -= len(value)
            if left > 0:
                pending += value.values() if isinstance(value, Mapping) else value
    return left > 0


def number_of(signature: Any) -> int:
    """Return an upper bound of how many messages a signature is sent as."""
    try:
        return _weigh(signature).messages
    except RecursionError:
        return 1


class _Load(msgspec.Struct, frozen=True):
    messages: int = 0
    size: int = 0

    def each(self, shared: int) -> _Load:
        """Return the same load with ``shared`` more bytes in each message."""
        return _Load(self.messages, self.size + self.messages * shared)


def _weigh(signature: Any) -> _Load:
    kwargs = signature.get("kwargs") if isinstance(signature, Mapping) else None
    if not isinstance(kwargs, Mapping):
        return _Load(1, _size(signature))
    match signature.get("subtask_type"):
        case "chain":
            return _weigh_chain(signature, kwargs)
        case "group":
            return _weigh_members(kwargs.get("tasks")).each(_size_without(signature, kwargs, "tasks"))
        case "chord":
            header = _weigh_members(kwargs.get("header"))
            # An empty header sends the body.
            header = header if header.messages else _weigh(kwargs.get("body"))
            return header.each(_size_without(signature, kwargs, "header"))
        case "chunks":
            items, size = kwargs.get("it"), kwargs.get("n")
            length = len(items) if isinstance(items, list | tuple) else 0
            pieces = -(-length // size) if isinstance(size, int) and size > 0 else 1
            return _Load(pieces, _size(items)).each(_size_without(signature, kwargs, "it"))
    return _Load(1, _size(signature))


def _weigh_members(members: Any) -> _Load:
    if isinstance(members, Mapping):  # Celery writes a group made of a group so
        return _weigh(members)
    if not isinstance(members, list | tuple):
        return _Load(1, _size(members))
    loads = [_weigh(member) for member in members]
    return _Load(sum(load.messages for load in loads), sum(load.size for load in loads))


def _weigh_chain(signature: Mapping[str, Any], kwargs: Mapping[str, Any]) -> _Load:
    """Count the messages of the first step that is not empty; each of them carries all other steps."""
    steps = kwargs.get("tasks")
    if not isinstance(steps, list | tuple):
        return _Load(1, _size(signature))
    for position, step in enumerate(steps):
        load = _weigh(step)
        if load.messages:
            rest = _size(steps[:position]) + _size(steps[position + 1 :])
            return load.each(rest + _size_without(signature, kwargs, "tasks"))
    return _Load()


def _size_without(signature: Mapping[str, Any], kwargs: Mapping[str, Any], left_out: str) -> int:
    rest = {name: value for name, value in kwargs.items() if name != left_out}
    return _size({**signature, "kwargs": rest})


def _size(value: Any) -> int:
    """Return about how many bytes a value takes in a message."""
    if isinstance(value, Steps):
        return len(value.as_json())
    size = 0
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, str | bytes):
            size += len(part) + 4
        elif isinstance(part, Mapping):
            size += 4 * len(part) + 2
            pending += part.keys()
            pending += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            size += 2 * len(part) + 2
            pending += part
        else:
            size += 8
    return size
