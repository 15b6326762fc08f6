"""Says at a worker's start which other workers answer on its broker.

Rules: it is said when the worker is ready, and delays nothing. Where nobody else answers, or remote control is off,
nothing is said.
"""

from __future__ import annotations

from celeriac.client.app import App
from celeriac.errors import CeleriacError

NAMED = 8
"""How many are named."""

DEADLINE = 2.0
"""Seconds that they have to answer."""


class Neighbours:
    """The other workers of a broker.

    :ivar names: their names, sorted.
    :ivar doubled: whether another worker has the name of this one.
    """

    def __init__(self, own: str, answered: list[str]) -> None:
        self.names = sorted(set(answered) - {own})
        self.doubled = answered.count(own) > 1

    def __str__(self) -> str:
        more = f" and {len(self.names) - NAMED} more" if len(self.names) > NAMED else ""
        return f"{', '.join(self.names[:NAMED])}{more}"


async def neighbours(app: App, own: str) -> Neighbours:
    """Ask who else is there.

    :param own: the name of the worker that has started.
    """
    if not app.settings.remote_control:
        return Neighbours(own, [])
    try:
        asked = await app.control.ask("ping", timeout=DEADLINE)
    except CeleriacError:  # this user may not ask, or the broker just went away, which the worker's log says
        return Neighbours(own, [])
    return Neighbours(own, [answer.node for answer in asked.answers])
