"""How long tests of calls ahead wait, and for what."""

import asyncio
from collections.abc import Callable

WAIT = 60.0
LONG = 3600.0


async def until(holds: Callable[[], object]) -> None:
    """Return once it is so."""
    async with asyncio.timeout(WAIT):
        while not holds():  # noqa: ASYNC110 - another process tells, by a file
            await asyncio.sleep(0.001)
