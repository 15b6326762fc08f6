"""Ends a process with the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_SET_DEATH_SIGNAL = 1
"""``PR_SET_PDEATHSIG`` of Linux's ``prctl``."""


def die_with(parent: int) -> None:
    """Let the end of the parent kill this process on Linux, whatever it does, and whoever holds the parent's sockets.

    Elsewhere it ends when it sees the end of its socket, or is killed by the process that is left.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
