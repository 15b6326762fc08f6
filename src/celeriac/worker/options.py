"""Checks what a worker is given, and fills in what it is not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence

from celeriac.errors import ConfigError
from celeriac.quantities import require, whole
from celeriac.worker.pool import Pool

DEFAULT_CONCURRENCY = 100


def checked_concurrency(concurrency: int | None, pool: str | Pool) -> int:
    """Return how many tasks run at once where that is not given: as many as cores, or ``DEFAULT_CONCURRENCY``."""
    if concurrency is None:
        return (os.cpu_count() or 1) if pool == "processes" else DEFAULT_CONCURRENCY
    require("concurrency", concurrency, whole(1))
    return concurrency


def checked_queues(queues: Sequence[str]) -> list[str]:
    """Return the queues as a list. Raises ``ConfigError`` for what are no names."""
    if (
        not isinstance(queues, Iterable)
        or isinstance(queues, str)
        or not all(isinstance(name, str) and name for name in queues)
    ):
        raise ConfigError(f"queues={queues!r}: give a list of names, such as ['fast', 'slow']")
    return list(queues)


def checked_name(name: str | None) -> str:
    """Return the node name in full. Raises ``ConfigError`` for one that has not exactly one ``@``."""
    host = socket.gethostname()
    if not name:
        return f"celeriac@{host}"
    # Celery's short forms: %h the full name, %n the part before the first dot, %d the rest.
    first, _, domain = host.partition(".")
    full = name.replace("%h", host).replace("%n", first).replace("%d", domain)
    if "@" not in full:
        full = f"{full}@{host}"
    if full.count("@") != 1:
        raise ConfigError(f"node name {full!r} needs exactly one '@', as in worker1@{host}")
    return full
