"""Ends a process together with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_SET_DEATH_SIGNAL = 1
"""``PR_SET_PDEATHSIG`` of Linux's ``prctl``."""


def die_with(parent: int) -> None:
    """Have Linux kill this process when the parent ends, even if another process still holds the parent's sockets.

    On other systems this process ends when it reads the end of its socket, or the surviving process kills it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
