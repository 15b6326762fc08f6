"""The progress reports of the tasks that run in one worker."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from celeriac.contracts.backend import Backend, EncodedResult
from celeriac.errors import CeleriacError
from celeriac.wire.result import ResultRecord

logger = logging.getLogger("celeriac.worker")


class Reports:
    """Stores the reports of each task in order, without making the task wait.

    While one report is on its way to the store, only the latest of the following ones is kept: older ones are stale.

    :param tell: called on the loop with each report.
    :ivar used: whether any task has reported yet. Until then there is nothing to wait for.
    """

    def __init__(self, backend: Backend, tell: Callable[[ResultRecord], None]) -> None:
        self._backend = backend
        self._loop = asyncio.get_running_loop()
        self._tell = tell
        self._handed: deque[EncodedResult] = deque()
        self._latest: dict[str, EncodedResult] = {}
        self._storing: dict[str, asyncio.Task[None]] = {}
        self.used = False

    def __call__(self, record: ResultRecord) -> None:
        """Take a report; any thread may call this. Raises ``EncodeError`` where its meta cannot be written."""
        encoded = self._backend.encode(record)
        self.used = True
        self._handed.append(encoded)
        # A call from another thread must wake the loop; a call from the loop's own thread goes the same way.
        self._loop.call_soon_threadsafe(self._submit)

    async def done(self, task_id: str) -> None:
        """Return when all reports of a task so far are stored, so that none of them overwrites the final result."""
        if self._handed:  # those calls are in the loop's queue ahead of this one
            await asyncio.sleep(0)
        if (storing := self._storing.get(task_id)) is not None:
            await asyncio.wait([storing])

    def _submit(self) -> None:
        encoded = self._handed.popleft()
        self._tell(encoded.record)
        task_id = encoded.record.task_id
        self._latest[task_id] = encoded
        if task_id not in self._storing:
            self._storing[task_id] = self._loop.create_task(self._store(task_id))

    async def _store(self, task_id: str) -> None:
        try:
            while (encoded := self._latest.pop(task_id, None)) is not None:
                await self._backend.store(encoded)
        except CeleriacError as error:
            logger.warning("a progress report could not be stored: %s", error)
        finally:
            self._latest.pop(task_id, None)
            del self._storing[task_id]
