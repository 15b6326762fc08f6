"""A message as Celery's tasks know it: the dictionary that ``self.request`` is made of. Pure."""

from __future__ import annotations

from typing import Any

from celeriac.context import Context
from celeriac.wire.task import TaskMessage


def request_of(context: Context) -> dict[str, Any]:
    """Return what ``self.request`` of a Celery task shows (Celery: ``worker.request.Request``)."""
    message = context.message
    request = headers_of(message)
    # The queue, and not the exchange and key that it was sent to: by these a retry comes back to this queue alone.
    delivery = {"exchange": "", "routing_key": context.queue, "priority": message.priority}
    request |= {
        "properties": {
            "correlation_id": message.correlation_id,
            "reply_to": message.reply_to,
            "priority": message.priority,
            "content_type": message.content_type,
            "delivery_mode": message.delivery_mode,
            "delivery_info": {"exchange": "", "routing_key": context.queue},
            **({} if message.app_id is None else {"app_id": message.app_id}),
            **({} if message.expiration is None else {"expiration": message.expiration}),
        },
        "reply_to": message.reply_to,
        "correlation_id": message.correlation_id,
        "hostname": context.worker,
        "delivery_info": {**delivery, "redelivered": context.redelivered},
        "args": message.args,
        "kwargs": message.kwargs,
        "is_eager": False,
        "callbacks": list(message.callbacks) or None,
        "errbacks": list(message.errbacks) or None,
        "chain": list(message.chain) or None,
        "chord": message.chord,
    }
    return request


def headers_of(message: TaskMessage) -> dict[str, Any]:
    """Return the message's headers as protocol 2 has them."""
    return {
        "lang": message.lang or "py",
        "task": message.task,
        "id": message.id,
        "shadow": message.shadow,
        "eta": None if message.eta is None else message.eta.isoformat(),
        "expires": None if message.expires is None else message.expires.isoformat(),
        "group": message.group,
        "group_index": message.group_index,
        "retries": message.retries,
        "timelimit": [message.time_limit, message.soft_time_limit],
        "root_id": message.root_id,
        "parent_id": message.parent_id,
        "argsrepr": message.args_repr,
        "kwargsrepr": message.kwargs_repr,
        "origin": message.origin,
        "ignore_result": message.ignore_result,
        "replaced_task_nesting": message.replaced_task_nesting,
        "stamped_headers": message.stamped_headers,
        "stamps": message.stamps,
        **({} if message.compression is None else {"compression": message.compression}),
        **message.headers,
    }
