"""Run a module with what Celery 4.4 asks of Python and Python 3.11 to 3.13 have no longer; Celery itself is as it was.

``python -m tests.interop.celery44.bygone celery worker ...`` is ``python -m celery worker ...``.
"""

import importlib.metadata
import inspect
import logging
import runpy
import sys

entry_points = importlib.metadata.entry_points


def entry_points_by_group() -> dict[str, importlib.metadata.EntryPoints]:
    """Every entry point by its group, as ``entry_points()`` gave them until Python 3.11; kombu looks for plug-ins."""
    found = entry_points()
    return {group: found.select(group=group) for group in found.groups}


def bring_back() -> None:
    """Give the modules what they had."""
    importlib.metadata.entry_points = entry_points_by_group
    # Until Python 3.10; vine imports it, and nobody calls it.
    inspect.formatargspec = None
    # Until Python 3.12; billiard's logger is made under it.
    logging._acquireLock = logging._lock.acquire
    logging._releaseLock = logging._lock.release


if __name__ == "__main__":
    bring_back()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
