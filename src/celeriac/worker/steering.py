"""Carries out the commands of ``celery control``, and answers them in Celery's words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from celeriac.client.app import Connections
from celeriac.client.revoking import revoke
from celeriac.clock import Clock
from celeriac.quantities import SECONDS, or_none, require
from celeriac.worker.bodies import Bodies
from celeriac.worker.events.events import Events

ERROR_OF_EVENTS = {"error": "event dispatcher unavailable"}
"""Celery's answer where no events are sent."""


class Ending:
    """Asks the worker to stop, if it is run by ``serve()`` or ``start()``."""

    def __init__(self) -> None:
        self.asked: asyncio.Event | None = None

    def ask(self) -> None:
        """Begin the graceful stop. Raises ``ValueError`` for a worker that only its program can stop."""
        if self.asked is None:
            raise ValueError("this worker is part of a program, which alone can end it")
        self.asked.set()


class Levers(msgspec.Struct, frozen=True):
    """The parts of a worker that commands act on."""

    connections: Connections
    clock: Clock
    tasks: Callable[[], Sequence[str]]
    bodies: Bodies
    add_queue: Callable[[str], Awaitable[None]]
    drop_queue: Callable[[str], Awaitable[None]]
    grow: Callable[[int], Awaitable[int]]
    shrink: Callable[[int], Awaitable[int]]
    ending: Ending
    events: Events | None = None


class Steering:
    """The methods of ``celery control``."""

    def __init__(self, levers: Levers) -> None:
        self._levers = levers

    async def revoke(
        self, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any
    ) -> dict[str, str]:
        """Revoke tasks, durably; ``terminate`` also ends those that run here."""
        ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
        if not all(isinstance(id, str) for id in ids):
            raise TypeError("task_id is a text or a list of texts")
        await revoke(self._levers.connections, ids, terminate=bool(terminate), clock=self._levers.clock)
        if not terminate:
            return {"ok": f"tasks {set(ids)} flagged as revoked"}
        running = {attempt.message.id for attempt in self._levers.bodies.running()}
        here = [id for id in ids if id in running]
        return {"ok": f"terminate: {', '.join(here)}" if here else "terminate: tasks unknown"}

    async def terminate(self, signal: Any, task_id: Any, **_: Any) -> dict[str, str]:
        """Revoke tasks and end those that run here."""
        return await self.revoke(task_id, terminate=True, signal=signal)

    async def time_limit(
        self, task_name: Any = None, hard: float | None = None, soft: float | None = None, **_: Any
    ) -> dict[str, str]:
        """Change the time limits of a task until this worker ends."""
        if task_name not in self._levers.tasks():
            return {"error": "unknown task"}
        for name, limit in (("soft", soft), ("hard", hard)):
            require(name, limit, or_none(SECONDS))
        self._levers.bodies.limits[task_name] = soft, hard
        return {"ok": "time limits set successfully"}

    async def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str | None = None,
        routing_key: str | None = None,
        **options: Any,
    ) -> dict[str, str]:
        """Take from this queue too."""
        if exchange not in (None, "", queue) or routing_key not in (None, "", queue):
            raise ValueError("only the exchange and the routing key of the queue's own name are taken from")
        await self._levers.add_queue(queue)
        return {"ok": f"add consumer {queue}"}

    async def cancel_consumer(self, queue: str, **_: Any) -> dict[str, str]:
        """Take from this queue no longer."""
        await self._levers.drop_queue(queue)
        return {"ok": f"no longer consuming from {queue}"}

    async def pool_grow(self, n: int = 1, **_: Any) -> dict[str, str]:
        """Run ``n`` more tasks at once."""
        await self._levers.grow(n)
        return {"ok": "pool will grow"}

    async def pool_shrink(self, n: int = 1, **_: Any) -> dict[str, str]:
        """Run ``n`` fewer tasks at once."""
        await self._levers.shrink(n)
        return {"ok": "pool will shrink"}

    async def autoscale(self, **_: Any) -> None:
        """Refuse, as Celery's worker does that does not scale by itself."""
        raise ValueError("Autoscale not enabled")

    async def pool_restart(self, **_: Any) -> None:
        """Refuse, as Celery's worker does by default."""
        raise ValueError("Pool restarts not enabled")

    async def enable_events(self) -> dict[str, str]:
        """Tell monitors of every task from now on."""
        if self._levers.events is None:
            return ERROR_OF_EVENTS
        return {"ok": f"task events {'enabled' if self._levers.events.enable() else 'already enabled'}"}

    async def disable_events(self) -> dict[str, str]:
        """Tell monitors of tasks no longer."""
        if self._levers.events is None:
            return ERROR_OF_EVENTS
        return {"ok": f"task events {'disabled' if self._levers.events.disable() else 'already disabled'}"}

    async def heartbeat(self) -> None:
        """Send a heartbeat now, for a monitor that has just come."""
        if self._levers.events is not None:
            await self._levers.events.beat()

    async def election(self, **_: Any) -> None:
        """Do nothing, as Celery's worker does without gossip."""

    async def shutdown(self, **_: Any) -> dict[str, str]:
        """Begin the graceful stop, and say so."""
        self._levers.ending.ask()
        return {"ok": "shutting down"}
