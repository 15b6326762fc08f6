"""Runs what knows nothing of event loops on the loop's own thread, as if there were none.

With Celery, receivers of signals and the tasks of the pool ``solo`` run in a main thread without a loop. Django refuses
its database to code on a thread whose loop runs, and ``asyncio.run`` refuses to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def beside_loop() -> Iterator[None]:
    """Hide the running loop from the code within the block, which may not await; also a decorator."""
    running = asyncio._get_running_loop()  # noqa: SLF001 - asyncio exports both, for loops
    asyncio._set_running_loop(None)  # noqa: SLF001
    try:
        yield
    finally:
        asyncio._set_running_loop(running)  # noqa: SLF001
