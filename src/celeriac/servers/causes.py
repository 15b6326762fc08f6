"""Errors of drivers as the causes of celeriac's own errors.

Rules: a cause has its text and no more. The frames and the earlier errors of a driver would be most of the lines that a
caller is shown, and the error that names the URL would be lost among them.
"""

from __future__ import annotations

import socket
from typing import TypeVar

E = TypeVar("E", bound=BaseException)

_ENOUGH = 10
"""Errors of a chain that are looked at."""


def as_cause(error: E) -> E:
    """Return the error without its frames and its own causes, for ``raise ... from``."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def next_step(error: BaseException) -> str:
    """Return what to do about an error of connecting, to be put after its text; empty where that is not known."""
    current: BaseException | None = error
    for _ in range(_ENOUGH):
        if isinstance(current, ConnectionRefusedError):
            return "; nothing listens there: start the server, or correct the URL"
        if isinstance(current, socket.gaierror):
            return "; this host name is not known here: correct the URL"
        if current is None:
            break
        current = current.__cause__ or current.__context__
    return ""
