"""Django's database connections around a task: one that is too old or broken is closed, in the thread that has it.

Rules: nothing is done where Django was not imported, or has no settings; connections belong to threads, so this runs
where the task runs. Django does the same around each request (Django: "Persistent connections").
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("celeriac.worker")


@contextmanager
def usable_connections() -> Iterator[None]:
    """Close what Django may not use any more, before the block and after it."""
    if "django.db" not in sys.modules:
        yield
        return
    _close_old()
    try:
        yield
    finally:
        _close_old()


def _close_old() -> None:
    if not sys.modules["django.conf"].settings.configured:
        return
    try:
        sys.modules["django.db"].close_old_connections()
    except Exception:
        logger.exception("Django's database connections could not be closed")
