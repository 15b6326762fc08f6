"""Finds out which workers take from which queue: by a question to the workers, or from a broker that counts them.

Rules: only workers that answer remote control are seen, so their absence is never claimed. Where the broker has no
remote control, or this user lacks the right to ask, the answer is missing and the command goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from celeriac.client.app import App
from celeriac.contracts.broker import CountsTakers
from celeriac.errors import BrokerError, BrokerUnavailable, ConfigError
from celeriac.wire.preview import counted

DEADLINE = 1.0
"""Seconds that workers have to answer."""


class Takers(NamedTuple):
    """What was found out about the takers of queues.

    :param nodes: the workers that answered, by queue.
    :param silent: how many workers received the question and did not answer.
    :param counts: how many take from a queue, where the broker counts them.
    """

    nodes: dict[str, list[str]]
    silent: int = 0
    counts: dict[str, int] | None = None

    @property
    def workers(self) -> list[str]:
        """The workers that answered."""
        return sorted({node for nodes in self.nodes.values() for node in nodes})

    def count(self, queue: str) -> int:
        """Return how many take from the queue, as far as is known."""
        return len(self.nodes.get(queue, ())) if self.counts is None else self.counts.get(queue, 0)

    def nobody(self, queue: str) -> bool:
        """Whether it is known that nobody takes from the queue: no worker, and none that did not answer."""
        return not self.count(queue) and (self.counts is not None or not self.silent)


async def counted_takers(app: App, queues: Sequence[str]) -> dict[str, int] | None:
    """Return how many take from these queues, ``None`` where the broker does not count them."""
    broker = app.connections().broker
    if not isinstance(broker, CountsTakers):
        return None
    return {queue: await broker.takers(queue) for queue in queues}


async def asked_takers(app: App) -> Takers | None:
    """Ask the workers which queues they take from. Return ``None`` where they cannot be asked.

    Raises ``BrokerUnavailable``.
    """
    try:
        asked = await app.control.ask("active_queues", timeout=DEADLINE)
    except BrokerUnavailable:
        raise
    except (BrokerError, ConfigError):
        return None
    nodes: dict[str, list[str]] = {}
    for node, queues in sorted(asked.by_node.items()):
        for queue in queues if isinstance(queues, list) else ():
            if isinstance(queue, dict) and isinstance(name := queue.get("name"), str):
                nodes.setdefault(name, []).append(node)
    return Takers(nodes, max(0, (asked.listeners or 0) - len(asked.answers)))


async def takers(app: App, queues: Sequence[str]) -> Takers | None:
    """Return the takers of these queues, and of others that workers name; ``None`` where they cannot be found out.

    Workers are asked only where the broker does not count. Raises ``BrokerUnavailable``.
    """
    counts = await counted_takers(app, queues)
    return await asked_takers(app) if counts is None else Takers({}, 0, counts)


async def what_it_waits_for(app: App, queue: str) -> str:
    """Return what a task in this queue waits for, in a few words. Raises ``CeleriacError``."""
    if queue in await app.control.paused():
        return f"waits: queue {queue} is paused (celeriac queues resume {queue})"
    known = await takers(app, [queue])
    if known is None:
        return f"waits in queue {queue}"
    if known.nobody(queue):
        return f"waits: no worker takes from queue {queue}"
    count = known.count(queue)
    silent = f", and {counted(known.silent, 'worker')} did not answer" if known.silent else ""
    return f"waits in queue {queue}, from which {counted(count, 'worker')} {_take(count)}{silent}"


def _take(count: int) -> str:
    return "takes" if count == 1 else "take"
