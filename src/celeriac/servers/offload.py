"""Leaves long work to a thread, so that an event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


async def in_thread(work: Callable[[], R]) -> R:
    """Return what ``work()`` returns; raises what it raises. Where no thread can be started it runs here and now."""
    loop = asyncio.get_running_loop()
    try:
        running = loop.run_in_executor(None, work)
    except RuntimeError:
        return work()
    return await running
