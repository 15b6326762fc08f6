"""How much one message may be made to send: counted before anything of it is built.

Rules: pure; a bound from above, read off the dictionaries as they came. What one signature holds for several tasks (the
options of a group, the body of a chord, the call of chunks) counts once for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from celeriac.wire.steps import Steps
from celeriac.wire.task import TaskMessage

LIGHT = 500
"""Values in signatures that are gone through in a moment."""

_VALUE = 16
"""Bytes of JSON that a value takes."""

MAX_FOLLOW_UPS = 150_000
MAX_FOLLOW_UP_BYTES = 128 * 1024 * 1024


class Budget(msgspec.Struct, frozen=True):
    """What one message may send on.

    :param messages: their number.
    :param size: bytes of their bodies together.
    """

    messages: int = MAX_FOLLOW_UPS
    size: int = MAX_FOLLOW_UP_BYTES

    def excess(self, message: TaskMessage) -> str | None:
        """Say what is too much of what follows the message, or ``None``.

        What comes after that, in messages of its own, is counted when those come. Raises ``RecursionError``.
        """
        next_steps = [_weigh(callback) for callback in message.callbacks]
        if message.chain:
            # The rest of the chain goes along with each message that the next step is sent as.
            next_steps.append(_weigh(message.chain[-1]).each(_size(message.chain[:-1])))
        stamps = _size(message.stamps)
        errbacks = [_weigh(errback) for errback in message.errbacks]
        return self._excess(next_steps, stamps) or self._excess(errbacks, stamps)

    def excess_of(self, signature: Any) -> str | None:
        """Say what is too much of what a signature is sent as, or ``None``. Raises ``RecursionError``."""
        return self._excess([_weigh(signature)], 0)

    def exceeded(self, messages: int, size: int) -> str | None:
        """Say what is too much of so many messages of so many bytes together, or ``None``."""
        if messages > self.messages:
            return f"{messages} messages are more than max_follow_ups={self.messages}"
        if size > self.size:
            return f"{size} bytes of messages are more than max_follow_up_bytes={self.size}"
        return None

    def _excess(self, loads: Sequence[_Load], shared: int) -> str | None:
        number = sum(load.messages for load in loads)
        return self.exceeded(number, sum(load.size for load in loads) + number * shared)


def is_light(message: TaskMessage) -> bool:
    """Whether what follows the message is read in a moment, so that an event loop need not leave it to a thread."""
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
    """Return how many messages a signature is sent as, at the most."""
    try:
        return _weigh(signature).messages
    except RecursionError:
        return 1


class _Load(msgspec.Struct, frozen=True):
    messages: int = 0
    size: int = 0

    def each(self, shared: int) -> _Load:
        """Return the same with so many bytes more in each message."""
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
    """Count the first step that is not empty; all others go along with each of its messages."""
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
    """Return about how many bytes a value is when it is written."""
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
