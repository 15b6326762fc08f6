"""Transactions that a task of Django's leaves open, which keep others from writing to the same SQLite.

Rules: nothing is done where Django was not imported. Django closes the connections of a task after it, which undoes
what is not committed; where the result is written to such a database too, that has to come first.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

logger = logging.getLogger("celeriac.celery")

_IN_DATABASES = ("django_celery_results.", "celery.backends.database")
"""Where the classes are of Celery's stores that may write to a database that the tasks use."""


def end_open_transactions(backend: Any, task: str) -> None:
    """Close the connections of this thread to SQLite that are in a transaction, where results may go to SQLite.

    :param backend: Celery's, which is to store the result.
    :param task: name and id of the task, for the log.
    """
    if "django.db" not in sys.modules or not type(backend).__module__.startswith(_IN_DATABASES):
        return
    connections = sys.modules["django.db"].connections
    for connection in connections.all(initialized_only=True):
        if connection.vendor == "sqlite" and _is_in_transaction(connection.connection):
            logger.warning(
                "%s left a transaction of database %r open: it is rolled back", task, connection.alias
            )
            connection.close()
            if connection.in_atomic_block:  # whose connection the next task of this thread could not use
                del connections[connection.alias]


def _is_in_transaction(connection: Any) -> bool:
    """Whether Python's connection is in a transaction; ``None`` is none yet, and one that was closed says an error."""
    try:
        return connection is not None and bool(connection.in_transaction)
    except Exception:  # noqa: BLE001 - a class of the user's stands for the connection, or it is closed
        return False
