"""Queues that a Celery app declares in a way of its own: priorities, types, exchanges and keys.

Rules: Celery's own code declares them, so that its clients and workers, which declare them again, find what
they ask for; a plain queue is left to celeriac.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.utils.nodenames import worker_direct

logger = logging.getLogger("celeriac.worker")


def declare(app: Celery, names: Sequence[str]) -> None:
    """Declare those of these queues that are not plain. A broker that is away, or refuses, is logged."""
    own = [queue for queue in (app.amqp.queues[name] for name in names) if not _is_plain(queue)]
    if not own:
        return
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
            for queue in own:
                queue(connection.default_channel).declare()
    except Exception as error:  # noqa: BLE001 - drivers have errors of their own
        listing = ", ".join(queue.name for queue in own)
        logger.warning("queues %s could not be declared as the app has them: %s", listing, error)


def select(app: Celery, names: Sequence[str]) -> list[str]:
    """Tell the app's own list of queues which of them a worker takes from; return those that it does not know.

    Celery's worker would not start with one that it does not know, where ``task_create_missing_queues`` is false.
    """
    queues = app.amqp.queues
    unknown = [name for name in names if name not in queues and not queues.create_missing]
    if unknown:
        logger.warning(
            "queues %s are not in task_queues, and task_create_missing_queues is false: name them there",
            ", ".join(unknown),
        )
    queues.select([name for name in names if name not in unknown])
    return unknown


def take_directly(app: Celery, node: str) -> str:
    """Add the queue of the worker of that name alone to those of the app; return its name (Celery: ``worker_direct``).

    Messages that name the exchange of such queues, and the worker's name as their key, come to it.
    """
    queue = worker_direct(node)
    app.amqp.queues.select_add(queue)
    return str(queue.name)


def _is_plain(queue: Any) -> bool:
    """Whether celeriac declares it alike: bound by its name to a direct exchange of that name."""
    exchange = queue.exchange
    return (
        not queue.queue_arguments
        and not queue.bindings
        and (queue.durable, queue.exclusive, queue.auto_delete) == (True, False, False)
        and (exchange.name, exchange.type, queue.routing_key) == (queue.name, "direct", queue.name)
    )
