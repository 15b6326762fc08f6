"""An event loop for the work of one command."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

T = TypeVar("T")


def run_with(app: AbstractAsyncContextManager[object], work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, within the block of the app, which closes its connections."""

    async def closing() -> T:
        async with app:
            return await work

    return asyncio.run(closing())
