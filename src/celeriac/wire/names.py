"""The names of Redis keys, as kombu and Celery have them.

Rules: pure text, no prefix unless a function says so; ``SEPARATOR`` is the two bytes that kombu puts between parts.
"""

from __future__ import annotations

from collections.abc import Sequence

SEPARATOR = "\x06\x16"
PRIORITY_STEPS = (0, 3, 6, 9)
HIGHEST_PRIORITY = 9

UNACKED = "unacked"
"""Hash: delivery tag to ``[message, exchange, routing_key]``."""

UNACKED_INDEX = "unacked_index"
"""Sorted set: delivery tag to the time it was received."""

UNACKED_MUTEX = "unacked_mutex"
"""Lock of the worker that restores messages whose visibility timeout has passed."""

BINDING_DEADLINES = "_kombu.binding_deadlines"
"""Sorted set: exchange to the time (ms) after which its bindings are swept, if none of them is for good (kombu 5.7)."""

DEFAULT_QUEUE = "celery"
RESULT_PREFIX = "celery-task-meta-"
GROUP_PREFIX = "celery-taskset-meta-"

RESULT_HEADER = "x-celeriac-result"
"""A message with this header is a result, in whichever queue it lies."""

MAKING_A_TASK = frozenset(
    {"task", "id", "args", "kwargs", "callbacks", "errbacks", "chain", "chord", "stamped_headers"}
)
"""Names by which a body is read as a task: no stamp, which a result has among its own fields, may be called so."""

_BACKEND_PREFIX_ENDS = (":", "_", "-", ".")


def is_text(text: str) -> bool:
    """Whether ``text`` can be part of a key: a lone surrogate, which JSON may smuggle in, has no UTF-8 form."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def result_key(task_id: str) -> str:
    """Return the key of a task's result; the channel it is announced on has the same name."""
    return RESULT_PREFIX + task_id


def group_key(group_id: str) -> str:
    """Return the key of a saved group."""
    return GROUP_PREFIX + group_id


def priority_step(priority: int, steps: Sequence[int] = PRIORITY_STEPS) -> int:
    """Return the largest step that is not above ``priority``, which is first brought into 0..9."""
    wanted = min(max(priority, 0), HIGHEST_PRIORITY)
    return max((step for step in steps if step <= wanted), default=min(steps))


def priority_key(queue: str, priority: int, steps: Sequence[int] = PRIORITY_STEPS) -> str:
    """Return the list that holds messages of this queue and priority; lower numbers are taken first on Redis."""
    step = priority_step(priority, steps)
    return f"{queue}{SEPARATOR}{step}" if step else queue


def queue_keys(queue: str, steps: Sequence[int] = PRIORITY_STEPS) -> list[str]:
    """Return the lists of a queue in the order they are taken from."""
    return [priority_key(queue, step, steps) for step in sorted(steps)]


def binding_key(exchange: str) -> str:
    """Return the set of an exchange's bindings."""
    return f"_kombu.binding.{exchange}"


def permanent_binding_key(exchange: str) -> str:
    """Return the set that guards an exchange's bindings from the sweep (kombu 5.7 and newer)."""
    return f"_kombu.binding_permanent.{exchange}"


def binding_member(routing_key: str, pattern: str, queue: str) -> str:
    """Return one binding; ``pattern`` is empty but for topic exchanges."""
    return SEPARATOR.join((routing_key, pattern, queue))


def split_binding(member: str) -> tuple[str, str, str] | None:
    """Return routing key, pattern and queue of a binding, or ``None`` if it is none."""
    parts = member.split(SEPARATOR)
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else None


def broker_key(prefix: str, key: str) -> str:
    """Return a broker's key under ``global_keyprefix``, which is put in front as it is."""
    return prefix + key


def backend_prefix(prefix: str) -> str:
    """Return what a result backend puts in front of its keys for ``global_keyprefix``."""
    return prefix if not prefix or prefix.endswith(_BACKEND_PREFIX_ENDS) else f"{prefix}_"
