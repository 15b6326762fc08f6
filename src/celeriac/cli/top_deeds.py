"""What the keys of ``celeriac top`` do; each returns what to tell the person."""

from __future__ import annotations

from celeriac.monitor.filters import Filter
from celeriac.monitor.monitor import Monitor
from celeriac.wire.preview import counted

MOST_AT_ONCE = 10_000
"""Tasks that one action may mean."""


class Deeds:
    """Does what a person asks for. Its methods raise ``CeleriacError``."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._actions = monitor.actions

    async def cancel(self, id: str, *, terminate: bool) -> str:
        """Revoke a task, and end it, if it runs and that is asked for."""
        await self._actions.cancel([id], terminate=terminate)
        return f"{id} {'terminated' if terminate else 'cancelled'}"

    async def retry(self, id: str) -> str:
        """Run a task again."""
        return f"sent again as {await self._actions.retry(id)}"

    async def retry_all(self, group: str) -> str:
        """Run all failed tasks of one error again."""
        wanted = Filter(group=group, state="FAILURE", again=False)
        ids = await self._monitor.history.ids(wanted, MOST_AT_ONCE)
        job = await self._monitor.jobs.run("retry", ids, self._actions.retry_all)
        if job.under_way:
            return f"{counted(len(ids), 'task')}: under way"
        return f"{counted(job.done, 'task')} sent again" + (f"; not: {job.trouble}" if job.trouble else "")

    async def pause(self, queue: str, *, paused: bool) -> str:
        """Pause a queue, or resume one that is paused."""
        control = self._monitor.app.control
        if paused:
            await control.resume(queue)
            return f"queue {queue} goes on"
        takers = await control.pause(queue)
        return f"queue {queue} is paused; {counted(len(takers), 'worker')} took from it"
