"""A connection of the driver that is patient with a slow line, and that can keep the plans of its statements.

Rules: a statement is given up when nothing moves for a while, not when it takes long: a large value on a slow line
needs its time. A kept plan was made without a look at the values, and when the table may have been empty; so a
statement that has one leaves the planner no choice that is bad for a full table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import asyncpg

from celeriac.servers.progress import Patience, moved

ALWAYS = {"jit": "off"}
"""Settings of every session that works. A plan that needs a step which is switched off looks costly enough to be
compiled first, which takes half a second; none of our statements is worth that.
"""

ANSWER = 30.0
"""Seconds without a byte from either side after which a statement is given up."""

ANEW = {"plan_cache_mode": "force_custom_plan", "enable_seqscan": "on"}
"""Settings under which each execution is planned: a plan made for an empty table is not kept when thousands come."""

_KEPT = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
"""Settings under which a statement is planned once: that takes as long as running it, for most of ours."""


class PatientConnection(asyncpg.Connection):  # type: ignore[misc]  # the driver ships no types
    """See ``asyncpg.Connection``; only the methods below wait for longer than the driver would.

    :ivar patience: seconds for which nothing may move.
    :ivar keeps_plans: whether the plans of its statements are kept, ``None`` where that is unknown.
    """

    patience = ANSWER
    keeps_plans: bool | None = False

    async def fetch(self, query: str, *args: Any, timeout: float | None = None, **options: Any) -> Any:
        return await self._patiently(super().fetch(query, *args, **options), timeout)

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None, **options: Any) -> Any:
        return await self._patiently(super().fetchrow(query, *args, **options), timeout)

    async def fetchval(self, query: str, *args: Any, timeout: float | None = None, **options: Any) -> Any:
        return await self._patiently(super().fetchval(query, *args, **options), timeout)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        return await self._patiently(super().execute(query, *args), timeout)

    async def keep_plans(self, wanted: bool) -> None:
        """See to it that plans are kept from now on, or are not."""
        if wanted is not self.keeps_plans:
            settings = _KEPT if wanted else ANEW
            self.keeps_plans = None
            await self.execute("; ".join(f"SET {name} = {value}" for name, value in settings.items()))
            self.keeps_plans = wanted

    async def _patiently(self, exchange: Coroutine[Any, Any, Any], seconds: float | None) -> Any:
        """End it with ``TimeoutError``: after so many seconds, or when nothing moves any more."""
        if seconds is not None:
            async with asyncio.timeout(seconds):
                return await exchange
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as deadline:
            watch = Patience(loop, self._moved, self.patience, lambda: deadline.reschedule(loop.time()))
            try:
                return await exchange
            finally:
                watch.end()

    def _moved(self) -> int:
        return moved(self._transport.get_extra_info("socket"))
