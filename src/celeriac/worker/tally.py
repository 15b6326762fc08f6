"""Counts what a worker has done."""

from __future__ import annotations

from collections import Counter


class Tally:
    """Numbers since the worker started.

    ``ended`` counts final states and RETRY by name; ``refused`` messages that were set aside; ``lost`` deliveries
    whose receipt was void when they were to be settled.
    """

    def __init__(self) -> None:
        self.received = 0
        self.held = 0
        self.refused = 0
        self.lost = 0
        self.ended: Counter[str] = Counter()
