"""Which messages follow when a task has ended.

Rules: pure; ids are fixed here, derived from the ended task's id, so that a repeat after a redelivery carries the same
ids and can be recognised. What this cannot advance is named by ``obstacle`` before the task runs, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec

from celeriac.wire.task import TaskMessage

Signature = Mapping[str, Any]


class FollowUp(msgspec.Struct, frozen=True):
    """A message to publish, and where to.

    :param queue: the queue asked for; ``None`` leaves it to the routes.
    :param countdown: seconds from now until it is due, for signatures that carry one.
    """

    message: TaskMessage
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    countdown: float | None = None
    expires_in: float | None = None


def obstacle(message: TaskMessage) -> str | None:
    """Say why what follows this message cannot be sent on from here, or ``None``."""
    if message.chord is not None:
        return "it is part of a chord, which celeriac cannot count yet"
    for signature in (*message.callbacks, *message.errbacks, *message.chain):
        if not isinstance(signature, Mapping) or not isinstance(signature.get("task"), str):
            return f"a signature that follows it has no task name: {signature!r:.200}"
        if signature.get("subtask_type") in {"group", "chord", "chain"}:
            return f"a {signature['subtask_type']} follows it, which celeriac cannot send on yet"
    return None


def after_success(message: TaskMessage, value: Any) -> list[FollowUp]:
    """Return the link callbacks and the next step of the chain (Celery: order of a successful trace)."""
    follow_ups = [
        _follow(message, signature, [value], f"callback/{index}")
        for index, signature in enumerate(message.callbacks)
    ]
    if message.chain:
        step = _follow(message, message.chain[-1], [value], "chain")
        rest = msgspec.structs.replace(step.message, chain=list(message.chain[:-1]))
        follow_ups.append(msgspec.structs.replace(step, message=rest))
    return follow_ups


def after_failure(message: TaskMessage, inline: Callable[[str], bool]) -> list[FollowUp]:
    """Return the errbacks that go out as messages: they get the failed task's id as first argument.

    :param inline: tells of a task name whether that errback is called here with request, exception and traceback.
    """
    return [
        _follow(message, signature, [message.id], f"errback/{index}")
        for index, signature in enumerate(message.errbacks)
        if not inline(signature["task"])
    ]


def failed_steps(message: TaskMessage) -> list[str]:
    """Return the ids of the chain steps that will never run since this one failed."""
    ids = (_options(signature).get("task_id") for signature in message.chain)
    return [task_id for task_id in ids if isinstance(task_id, str)]


def child_tuples(follow_ups: Sequence[FollowUp]) -> list[Any]:
    """Return the follow-ups as Celery's result tuples."""
    return [[[follow_up.message.id, None], None] for follow_up in follow_ups]


def _follow(parent: TaskMessage, signature: Signature, partial: list[Any], label: str) -> FollowUp:
    options = _options(signature)
    args = list(signature.get("args") or [])
    task_id = options.get("task_id") or str(uuid5(NAMESPACE_OID, f"{parent.id}/{parent.retries}/{label}"))
    hard, soft = options.get("time_limit"), options.get("soft_time_limit")
    message = TaskMessage(
        id=task_id,
        task=signature["task"],
        args=args if signature.get("immutable") else [*partial, *args],
        kwargs=dict(signature.get("kwargs") or {}),
        root_id=parent.root_id or parent.id,
        parent_id=parent.id,
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        callbacks=_listed(options.get("link")),
        errbacks=_listed(options.get("link_error")),
        chord=options.get("chord"),
        time_limit=hard,
        soft_time_limit=soft,
        ignore_result=options.get("ignore_result"),
        shadow=options.get("shadow"),
        priority=options.get("priority", parent.priority) or 0,
        reply_to=options.get("reply_to") or parent.reply_to,
        headers=dict(options.get("headers") or {}),
        stamped_headers=parent.stamped_headers,
        stamps=parent.stamps,
        protocol=parent.protocol,
    )
    return FollowUp(
        message,
        queue=options.get("queue"),
        exchange=options.get("exchange"),
        routing_key=options.get("routing_key"),
        countdown=options.get("countdown"),
        expires_in=options.get("expires") if isinstance(options.get("expires"), int | float) else None,
    )


def _options(signature: Signature) -> Mapping[str, Any]:
    options = signature.get("options")
    return options if isinstance(options, Mapping) else {}


def _listed(value: Any) -> list[dict[str, Any]]:
    if not value:
        return []
    return [value] if isinstance(value, dict) else list(value)
