"""Publishes what celeriac itself sends for a Celery app: bodies of chords, errbacks of tasks that never ran.

Rules: the app's own ``apply_async`` writes these messages too, in a thread, since its code may block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from celery import Celery

from celeriac.canvas.budget import Budget
from celeriac.canvas.launch import FollowUp
from celeriac.celery_app.tracing import trace_in
from celeriac.celery_app.writing import keeping
from celeriac.client.publisher import Publisher
from celeriac.clock import Clock
from celeriac.contracts.broker import Broker
from celeriac.routing import SendOptions
from celeriac.servers.offload import in_thread
from celeriac.settings import Settings
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Route
from celeriac.worker.decision import Written

logger = logging.getLogger("celeriac.celery")


class AppPublisher(Publisher):
    """Writes follow-ups as the Celery app would."""

    def __init__(
        self, celery: Celery, broker: Broker, codecs: Codecs, settings: Settings, clock: Clock
    ) -> None:
        super().__init__(broker, codecs, settings, clock)
        self._celery = celery

    async def prepare(
        self, follow_ups: Sequence[FollowUp], defaults: Callable[[str], SendOptions], budget: Budget
    ) -> list[tuple[Envelope, Route]]:
        """Write the messages. Raises ``EncodeError`` if one cannot be encoded, or they exceed the budget."""
        written = await in_thread(lambda: [self._write(follow_up) for follow_up in follow_ups])
        prepared: list[tuple[Envelope, Route]] = []
        for follow_up, message in zip(follow_ups, written, strict=True):
            prepared += [message] if message else await super().prepare([follow_up], defaults, budget)
        return prepared

    def _write(self, follow_up: FollowUp) -> Written | None:
        """Return the message; ``None`` where the app's code refuses, so that the next worker says why."""
        kept: list[Written] = []
        try:
            with trace_in(follow_up.message.headers), keeping(kept):
                self._send(follow_up)
            (message,) = kept
        except Exception:
            logger.debug("%s is not written by the app", follow_up.message.task, exc_info=True)
            return None
        return message

    def _send(self, follow_up: FollowUp) -> None:
        message = follow_up.message
        given: dict[str, Any] = {
            "task_id": message.id,
            "root_id": message.root_id,
            "parent_id": message.parent_id,
            "group_id": message.group,
            "group_index": message.group_index,
            "retries": message.retries,
            "chain": list(message.chain) or None,
            "chord": message.chord,
            "link": list(message.callbacks) or None,
            "link_error": list(message.errbacks) or None,
            "replaced_task_nesting": message.replaced_task_nesting,
            "shadow": message.shadow,
            "reply_to": message.reply_to,
            "headers": dict(message.headers) or None,
            "add_to_parent": False,
            "countdown": follow_up.countdown,
            "eta": message.eta or follow_up.eta,
            "expires": message.expires or follow_up.expires,
        }
        if message.args_repr is not None:
            given["argsrepr"] = message.args_repr
        if message.kwargs_repr is not None:
            given["kwargsrepr"] = message.kwargs_repr
        if message.priority:
            given["priority"] = message.priority
        for name in ("time_limit", "soft_time_limit", "ignore_result"):
            if (value := getattr(message, name)) is not None:
                given[name] = value
        for name in ("queue", "exchange", "routing_key", "serializer", "compression"):
            if (value := getattr(follow_up, name)) is not None:
                given[name] = value
        if message.stamped_headers:
            given |= {"stamped_headers": message.stamped_headers, **message.stamps}
        task = dict.get(self._celery.tasks, message.task)
        send = partial(self._celery.send_task, message.task) if task is None else task.apply_async
        send(tuple(message.args), dict(message.kwargs), **given)
