"""How a child leaves in the middle of a call: its task was revoked, or its time is over.

Rules: the body sees ``SystemExit``, so that it can release what it holds, as in Celery's child processes. Whatever it
makes of that, the child ends, and answers nothing: the worker has decided for its call, and waits no more. The signal
is none that a terminal or a service manager sends to a whole group of processes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LEAVE = signal.SIGVTALRM
"""What the server sends to a child that is to leave."""


class Left(SystemExit):
    """Raised in the body of a child that is to leave."""


class Leaving:
    """Listens for the signal in one child.

    :ivar asked: whether it came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._works = False
        self._waits = False
        signal.signal(LEAVE, self._heard)

    @contextmanager
    def possible(self) -> Iterator[None]:
        """Let the signal end the code in the block; elsewhere it ends the process at once. Raises ``Left``."""
        self._works = True
        try:
            yield
        finally:
            self._works = False
            if self.asked:
                raise Left(1)

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Let the signal wait for the end of the block, which takes a moment. Raises ``Left`` there."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
            if self.asked:
                raise Left(1)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self._waits:
            self.asked = True
            return
        if not self._works:
            os._exit(1)
        self.asked = True
        raise Left(1)
