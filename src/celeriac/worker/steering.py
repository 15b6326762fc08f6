"""Carries out the commands of ``celery control``, and answers them in Celery's words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from signal import Signals
from typing import Any

import msgspec

from celeriac.client.app import Connections
from celeriac.client.revocations import stamp, stamps_of
from celeriac.client.revoking import revoke
from celeriac.clock import Clock
from celeriac.errors import BrokerError, ConfigError
from celeriac.quantities import RATE, SECONDS, or_none, require, whole
from celeriac.wire.content import Codecs
from celeriac.wire.preview import preview
from celeriac.wire.task import TaskMessage
from celeriac.worker.autoscaling import Autoscaler
from celeriac.worker.bodies import Bodies
from celeriac.worker.events.events import Events
from celeriac.worker.pool import Pool
from celeriac.worker.rate_limits import RateLimits
from celeriac.worker.recalling import recall
from celeriac.worker.revocations import RevocationList

logger = logging.getLogger("celeriac.worker")

NOT_WITH_AUTOSCALE = "{} is not supported with autoscale. Adjust autoscale range instead."

RECALL_WITHIN = 2.0
"""Seconds that looking through what is parked may take."""

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
    rate_limits: RateLimits
    autoscaler: Autoscaler
    pool: Pool
    revocations: RevocationList
    codecs: Codecs
    add_queue: Callable[[str], Awaitable[None]]
    drop_queue: Callable[[str], Awaitable[None]]
    follow_pauses: Callable[[], Awaitable[None]]
    grow: Callable[[int], Awaitable[int]]
    shrink: Callable[[int], Awaitable[int]]
    ending: Ending
    events: Events | None = None


class Steering:
    """The methods of ``celery control``."""

    def __init__(self, levers: Levers) -> None:
        self._levers = levers
        self._recalling = False
        self._recall_again = False

    async def revoke(
        self, task_id: Any, terminate: bool = False, signal: Any = None, stored: bool = False, **_: Any
    ) -> dict[str, str]:
        """Revoke tasks, durably; ``terminate`` also ends those that run here.

        :param stored: the revocation is with the broker already.
        """
        ids = [task_id] if isinstance(task_id, str) else list(task_id or ())
        if not all(isinstance(id, str) for id in ids):
            raise TypeError("task_id is a text or a list of texts")
        if terminate:
            self._note_signal(_signal_of(signal), lambda message: message.id in ids)
        with self._levers.revocations.ahead(ids=ids):
            if not stored:
                connections, clock = self._levers.connections, self._levers.clock
                await revoke(connections, ids, terminate=bool(terminate), clock=clock, tell=False)
            running = {attempt.message.id for attempt in self._levers.bodies.running()}
            await self._enforce()
        if not terminate:
            return {"ok": f"tasks {set(ids)} flagged as revoked"}
        here = [id for id in ids if id in running]
        return {"ok": f"terminate: {', '.join(here)}" if here else "terminate: tasks unknown"}

    async def revoke_by_stamped_headers(
        self, headers: Any, terminate: bool = False, signal: Any = None, **_: Any
    ) -> dict[str, str]:
        """Revoke all tasks that have one of these stamps, durably; ``terminate`` also ends those that run here.

        :param headers: values by the name of the header, or texts such as ``header=value``.
        """
        if isinstance(headers, list):
            headers = dict(text.split("=", 1) for text in headers)
        wanted = {name: values if isinstance(values, list) else [values] for name, values in headers.items()}
        stamps = [stamp(name, value) for name, values in wanted.items() for value in values]
        if terminate:
            self._note_signal(
                _signal_of(signal), lambda message: not {*stamps}.isdisjoint(stamps_of(message))
            )
        with self._levers.revocations.ahead(stamps=stamps):
            await self._levers.connections.revocations.add(stamps=stamps, terminate=bool(terminate))
            running = [attempt.message for attempt in self._levers.bodies.running()]
            found = {one for message in running for one in stamps_of(message)} & set(stamps)
            await self._enforce()
        if not terminate:
            return {"ok": f"headers {headers} flagged as revoked, but not terminated"}
        ended = {
            name: [value for value in values if stamp(name, value) in found]
            for name, values in wanted.items()
        }
        if not found:
            return {"ok": f"headers {headers} were not terminated"}
        return {"ok": f"headers { {name: values for name, values in ended.items() if values} } revoked"}

    def _note_signal(self, signal: Signals, concerns: Callable[[TaskMessage], bool]) -> None:
        """Let what runs here and is about to be ended know by which signal; before others hear of the revocation."""
        for attempt in self._levers.bodies.running():
            if concerns(attempt.message):
                attempt.signal = signal

    async def _enforce(self) -> None:
        """Stop what runs here and is revoked, and bring what is parked to where a worker sees that it is."""
        levers = self._levers
        await levers.revocations.look()
        levers.bodies.stop_revoked(levers.revocations.revoked)
        self._recall_again = True
        if self._recalling:  # one look sees to all that was revoked before it
            return
        self._recalling = True
        try:
            async with asyncio.timeout(RECALL_WITHIN):
                while self._recall_again:
                    self._recall_again = False
                    await recall(levers.connections.broker, levers.revocations.revoked, levers.codecs)
        except (BrokerError, TimeoutError) as error:
            logger.debug("what is parked and revoked is declined when it is due: %r", error)
        finally:
            self._recalling = False

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

    async def rate_limit(self, task_name: Any, rate_limit: Any, **_: Any) -> dict[str, str]:
        """Change how often runs of a task start here, until this worker ends."""
        try:
            require("rate_limit", rate_limit, or_none(RATE))
        except ConfigError as error:
            return {"error": f"Invalid rate limit string: {ValueError(str(error))!r}"}
        if task_name not in self._levers.tasks():
            return {"error": "unknown task"}
        self._levers.rate_limits.set(task_name, rate_limit)
        if not rate_limit:
            return {"ok": "rate limit disabled successfully"}
        return {"ok": "new rate limit set successfully"}

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

    async def follow_pauses(self) -> dict[str, str]:
        """Look at once which queues are paused."""
        await self._levers.follow_pauses()
        return {"ok": "paused queues are left alone"}

    async def pool_grow(self, n: int = 1, **_: Any) -> dict[str, str]:
        """Run ``n`` more tasks at once."""
        if self._levers.autoscaler.is_on:
            return {"error": NOT_WITH_AUTOSCALE.format("pool_grow")}
        await self._levers.grow(n)
        return {"ok": "pool will grow"}

    async def pool_shrink(self, n: int = 1, **_: Any) -> dict[str, str]:
        """Run ``n`` fewer tasks at once."""
        if self._levers.autoscaler.is_on:
            return {"error": NOT_WITH_AUTOSCALE.format("pool_shrink")}
        await self._levers.shrink(n)
        return {"ok": "pool will shrink"}

    async def autoscale(self, **limits: Any) -> dict[str, str]:
        """Run between ``min`` and ``max`` tasks at once, as many as there are."""
        scaling = self._levers.autoscaler
        for name, number in limits.items():
            if name not in ("max", "min"):
                raise TypeError(f"autoscale takes max and min, not {name!r}")
            require(name, number, or_none(whole(1)))
        await scaling.update(limits.get("max"), limits.get("min"))
        return {"ok": f"autoscale now max={scaling.scaling.most} min={scaling.scaling.least}"}

    async def pool_restart(self, **_: Any) -> dict[str, str]:
        """Replace the processes of the pool as they become free; they import the app anew."""
        children = self._levers.pool.children
        if children is None:
            raise ValueError("Pool restarts not enabled: this pool has no child processes to replace")
        children.restart()
        return {"ok": "reload started"}

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


def _signal_of(named: Any) -> Signals:
    """Return the signal of an order, which names it as Celery takes it (``SIGKILL``, ``KILL``, 9); it may say none."""
    if not named:
        return Signals.SIGTERM
    if isinstance(named, int):
        return Signals(named)
    name = named if str(named).startswith("SIG") else f"SIG{named}"
    if name not in Signals.__members__:
        raise ValueError(f"signal {preview(named)} is none that this machine has: name one such as SIGTERM")
    return Signals[name]
