"""The messages of the failed list, as pages of single tasks show them.

Rules: an open page asks again and again, and a broker may have to look through its whole list, so an answer holds for
``FRESH`` seconds; it is forgotten when something was done.
"""

from __future__ import annotations

from celeriac.clock import Clock
from celeriac.contracts.broker import Broker
from celeriac.monitor.again import kept_message
from celeriac.wire.content import Codecs
from celeriac.wire.task import TaskMessage

FRESH = 15.0
_MOST = 100


class Kept:
    """Looks up messages of failed tasks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, TaskMessage | None]] = {}

    async def of(self, broker: Broker, id: str, codecs: Codecs) -> TaskMessage | None:
        """Return the message of a task; ``None`` where it is not kept. Raises ``BrokerError``."""
        now = self._clock.monotonic()
        at, message = self._seen.get(id, (now - FRESH, None))
        if now - at >= FRESH:
            message = await kept_message(broker, id, codecs)
            self._seen.pop(id, None)
            self._seen[id] = now, message
            if len(self._seen) > _MOST:
                del self._seen[next(iter(self._seen))]
        return message

    def forget(self) -> None:
        """Ask again next time: something was changed."""
        self._seen.clear()
