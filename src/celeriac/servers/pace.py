"""Measures how fast messages are settled: a subscription has RabbitMQ push as many ahead as that."""

from __future__ import annotations

import asyncio

AHEAD = 0.02
"""Seconds from the ack that makes room for a message to its arrival, on a busy machine."""


class Pace:
    """Measures in stretches of ``AHEAD`` seconds; to be asked again and again.

    :param loop: its clock is read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._now = loop.time
        self._since = self._now()
        self._before = 0
        self._latest = 0

    def at(self, total: int) -> int:
        """Return how many were dealt with in the latest whole stretch.

        :param total: how many were dealt with so far.
        """
        seconds = self._now() - self._since
        if seconds >= AHEAD:
            self._latest = int((total - self._before) * AHEAD / seconds)
            self._since += seconds
            self._before = total
        return self._latest
