"""What receivers of ``task_received`` get as ``request`` (Celery: ``worker.request.Request``)."""

from __future__ import annotations

from typing import Any

from celery import Celery

from celeriac.celery_app.request import headers_of
from celeriac.worker.attempt import Attempt


class Received:
    """A message that is about to run."""

    def __init__(self, attempt: Attempt, app: Celery, hostname: str) -> None:
        message = attempt.message
        self.id = self.task_id = message.id
        self.type = message.task
        self.name = self.task_name = message.shadow or message.task
        self.app = app
        self.task = dict.get(app.tasks, message.task)
        self.hostname = hostname
        self.args, self.kwargs = message.args, message.kwargs
        self.argsrepr, self.kwargsrepr = message.args_repr, message.kwargs_repr
        self.root_id, self.parent_id = message.root_id, message.parent_id
        self.correlation_id, self.reply_to = message.correlation_id, message.reply_to
        self.group, self.group_index = message.group, message.group_index
        self.eta, self.expires = message.eta, message.expires
        self.time_limits = (message.time_limit, message.soft_time_limit)
        self.replaced_task_nesting = message.replaced_task_nesting
        self.stamped_headers = message.stamped_headers or []
        self.stamps = message.stamps
        self.request_dict = headers_of(message)
        self.delivery_info = {
            "exchange": "",
            "routing_key": attempt.queue,
            "priority": message.priority,
            "redelivered": attempt.delivery.redelivered,
        }
        self.callbacks = list(message.callbacks) or None
        self.errbacks = list(message.errbacks) or None
        self.chain = list(message.chain) or None
        self.chord = message.chord

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return the description that ``inspect active`` gives."""
        return {
            "id": self.id,
            "name": self.name,
            "args": self.args,
            "kwargs": self.kwargs,
            "type": self.type,
            "hostname": self.hostname,
            "delivery_info": self.delivery_info,
        }
