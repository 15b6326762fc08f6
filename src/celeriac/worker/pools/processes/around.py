"""What listeners want to be entered around each body in a child, such as the context of a trace.

Rules: a listener's error changes nothing for the task. The first error of a child is logged.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from celeriac.worker.listeners import AroundBody

logger = logging.getLogger("celeriac.worker")


class Around:
    """Enters what the listeners want.

    :param functions: those of the listeners, pickled.
    """

    def __init__(self, functions: bytes) -> None:
        self._functions: Sequence[AroundBody] = pickle.loads(functions)  # noqa: S301 - our own bytes
        self._complained = False

    @contextmanager
    def entered(self, carried: Mapping[str, str]) -> Iterator[None]:
        """Enter them for the time of the block."""
        begun: list[Any] = []
        for function in self._functions:
            try:
                around = function(carried)
                around.__enter__()
                begun.append(around)
            except Exception as error:  # noqa: BLE001 - the body runs without it
                self._complain(error)
        try:
            yield
        finally:
            for around in reversed(begun):
                try:
                    around.__exit__(None, None, None)
                except Exception as error:  # noqa: BLE001 - the body has ended
                    self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            logger.error("a listener failed around a body; further failures are not logged", exc_info=error)
