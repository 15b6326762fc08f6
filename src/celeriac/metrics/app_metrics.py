"""The metrics of an app for a program that serves its own: a collector for prometheus-client, and an ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from celeriac.client.connections import RunBlocking
from celeriac.contracts.broker import Broker
from celeriac.metrics.exposition import Exposition
from celeriac.metrics.process import ProcessMetrics
from celeriac.metrics.queues import BrokerNumbers, QueueReader
from celeriac.metrics.vitals import Vitals

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class AppMetrics:
    """The numbers of one app in this process, and those of its broker.

    ``REGISTRY.register(app.metrics())`` adds them to a registry of prometheus-client; the object itself is an ASGI app
    that serves them alone: ``web.mount("/metrics", app.metrics())``.
    """

    def __init__(
        self,
        exposition: Exposition,
        process: ProcessMetrics,
        broker: Callable[[], Broker],
        vitals: Vitals,
        run: RunBlocking,
    ) -> None:
        self._exposition = exposition
        self._process = process
        self._vitals = vitals
        self._reader = QueueReader(broker, process.queues)
        self._run = run

    def describe(self) -> Iterable[Metric]:
        """Return nothing: a registry then does not collect while it registers."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return all families, for a registry of prometheus-client.

        In a thread that runs an event loop the numbers of the broker, and whether the servers answer, are left out,
        since asking would block that loop.
        """
        numbers = self._numbers()
        return list(self._exposition.families(self._process.snapshot(), numbers))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the metrics of this app alone, by ASGI."""
        if scope["type"] != "http":
            return
        numbers = await self._look()
        await self._exposition.asgi(self._process.snapshot(), numbers)(scope, receive, send)

    def _numbers(self) -> BrokerNumbers | None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._run(self._look())
        self._vitals.forget()
        return None

    async def _look(self) -> BrokerNumbers | None:
        """Ask the servers whether they answer, and the broker for its numbers; return these."""
        numbers, _ = await asyncio.gather(self._reader.read(), self._vitals.look())
        return numbers
