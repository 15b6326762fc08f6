"""Paused queues: no worker takes from them, and what waits there stays.

Rules: which queues are paused is a set on the broker's board, so that a worker that starts later knows it, too. Workers
of Celery do not look there: each gets a request to take from the queue no longer. Those that did so are kept beside
the set, since they need a second request when the queue is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from celeriac.contracts.board import Sets

PAUSED = "paused"
"""The name of the sets on the board."""

FOLLOW = "follow_pauses"
"""The method of our workers that lets them look at the board at once."""

OURS = "celeriac"
"""A field of ``stats`` that only our workers answer with."""

KEEP = 400 * 86400.0
"""Seconds for which a queue stays paused if nobody resumes it."""

_QUEUES = "queues"
_ASKING = 1.0


class Reply(Protocol):
    """What one worker answered."""

    @property
    def node(self) -> str:
        """Its name."""
        ...

    @property
    def value(self) -> Any:
        """The answer."""
        ...


class Answered(Protocol):
    """What all workers answered."""

    @property
    def answers(self) -> Sequence[Reply]:
        """In the order they came."""
        ...


class Asking(Protocol):
    """What asks workers; see ``celeriac.client.control.Control.ask``."""

    async def ask(
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        destination: Sequence[str] | None = None,
        timeout: float = ...,
    ) -> Answered:
        """Return the answers of the workers."""
        ...


class Pauses:
    """The paused queues of one broker.

    :param sets: of its board.
    """

    def __init__(self, sets: Sets) -> None:
        self._sets = sets

    async def load(self) -> frozenset[str]:
        """Return the paused queues."""
        return frozenset((await self._sets.load(PAUSED, [_QUEUES])).sets.get(_QUEUES, ()))

    async def pause(self, control: Asking, queue: str) -> list[str]:
        """Pause a queue; return the workers that took from it.

        Our workers that miss the request stop within ``worker.pausing.BETWEEN`` seconds.
        """
        await self._sets.add(PAUSED, {_QUEUES: [queue]}, KEEP)
        asked = await control.ask("active_queues", timeout=_ASKING)
        takers = [answer.node for answer in asked.answers if _takes_from(answer.value, queue)]
        ours = await _ours(control, takers) if takers else []
        others = [node for node in takers if node not in ours]
        if ours:
            await control.ask(FOLLOW, destination=ours, timeout=_ASKING)
        if others:
            await self._sets.add(PAUSED, {_told(queue): others}, KEEP)
            await control.ask("cancel_consumer", {"queue": queue}, destination=others, timeout=_ASKING)
        return sorted(takers)

    async def resume(self, control: Asking, queue: str) -> None:
        """Let workers take from a queue again: ours within a second, and those of Celery that stopped for it."""
        others = list((await self._sets.load(PAUSED, [_told(queue)])).sets.get(_told(queue), ()))
        await self._sets.remove(PAUSED, {_QUEUES: [queue], _told(queue): others})
        if others:
            await control.ask("add_consumer", {"queue": queue}, destination=others, timeout=_ASKING)


def _told(queue: str) -> str:
    """Return the name of the set of Celery's workers that were asked to take from the queue no longer."""
    return f"told:{queue}"


def _takes_from(held: object, queue: str) -> bool:
    """Whether a worker says that it takes from the queue."""
    entries = held if isinstance(held, list) else []
    return any(isinstance(entry, dict) and entry.get("name") == queue for entry in entries)


async def _ours(control: Asking, nodes: list[str]) -> list[str]:
    """Return those of these workers that are celeriac's."""
    asked = await control.ask("stats", destination=nodes, timeout=_ASKING)
    return [
        answer.node for answer in asked.answers if isinstance(answer.value, dict) and OURS in answer.value
    ]
