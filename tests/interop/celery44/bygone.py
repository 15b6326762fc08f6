"""Run a module with what Celery 4.4 asks of Python and Python 3.11 to 3.13 have no longer; Celery itself is as it was.

``python -m tests.interop.celery44.bygone celery worker ...`` is ``python -m celery worker ...``.
"""

import importlib.metadata
import inspect
import runpy
import sys

entry_points = importlib.metadata.entry_points


def entry_points_by_group() -> dict[str, importlib.metadata.EntryPoints]:
    """Every entry point by its group, as ``entry_points()`` gave them until Python 3.11; kombu looks for plug-ins."""
    found = entry_points()
    return {group: found.select(group=group) for group in found.groups}


if __name__ == "__main__":
    importlib.metadata.entry_points = entry_points_by_group
    # Python 3.10 was the last to have it; vine imports it, and nobody calls it.
    inspect.formatargspec = None
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
