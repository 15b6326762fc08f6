"""Tells of the soft time limit of a running body, which is kept where the body runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class SoftLimit:
    """Tells, once, that the soft time limit of a body is over.

    :param seconds: those of the limit, from now on.
    :param tell: called then.
    :param runs: whether the body runs still.
    """

    __slots__ = ("_runs", "_tell", "_timer", "_told")

    def __init__(self, seconds: float, tell: Callable[[], None], runs: Callable[[], bool]) -> None:
        self._tell = tell
        self._runs = runs
        self._told = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self._passed)

    def end(self, *, was_reached: bool = False) -> None:
        """Watch no more.

        :param was_reached: the body has ended by its limit; its clock may have been ahead of the timer here.
        """
        self._timer.cancel()
        if was_reached and not self._told:
            self._told = True
            self._tell()

    def _passed(self) -> None:
        if self._runs():
            self.end(was_reached=True)
