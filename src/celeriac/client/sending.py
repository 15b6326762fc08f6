"""What ``send`` returns: it must be awaited, and where Celery's spelling without ``await`` is used it says so.

Rules: it works as the coroutine that it stands for. The coroutine is made when this is first awaited. One that is
never awaited gives one warning, which names the fix.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")


class Sending(Coroutine[Any, Any, T]):
    """What ``app.send_task`` returns; to be awaited.

    :param start: makes the coroutine that sends.
    :param text: what was called, and what to write in code without an event loop.
    """

    __slots__ = ("_coroutine", "_start", "_text")

    def __init__(self, start: Callable[[], Coroutine[Any, Any, T]], text: str) -> None:
        self._start = start
        self._text = text
        self._coroutine: Coroutine[Any, Any, T] | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._begun().__await__()

    def send(self, value: Any, /) -> Any:
        """As a coroutine's."""
        return self._begun().send(value)

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None, /) -> Any:
        """As a coroutine's."""
        return self._begun().throw(kind, value, trace) if value is not None else self._begun().throw(kind)

    def close(self) -> None:
        """As a coroutine's."""
        self._begun().close()

    def __del__(self) -> None:
        if self._coroutine is None:
            warnings.warn(f"nothing was sent: {self._text}", RuntimeWarning, stacklevel=2, source=self)

    if not TYPE_CHECKING:  # a checker goes on to refuse what a coroutine has not

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"there is no {name!r} yet, since nothing was sent: {self._text}")

    def _begun(self) -> Coroutine[Any, Any, T]:
        if self._coroutine is None:
            self._coroutine = self._start()
        return self._coroutine
