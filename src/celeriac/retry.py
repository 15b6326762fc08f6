"""When a failed task runs again, and after how long.

Rules: pure; the source of randomness is handed in. Attempts are counted as runs: the first run is attempt 1, so
``max_attempts=3`` is Celery's ``max_retries=2``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import random

from celeriac.errors import ConfigError, TaskAborted
from celeriac.quantities import DELAY, Check, number, require, whole


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy: exponential backoff with a cap and jitter.

    :param on: the exceptions that are worth another run. A task that exits (``SystemExit``, ``KeyboardInterrupt``) or
        cancels itself is not run again unless these name what it raised, or ``TaskAborted``.
    :param max_attempts: how often the task runs at the most, the first run included.
    :param backoff: seconds before the first retry.
    :param factor: what the delay is multiplied with from one retry to the next.
    :param cap: no delay is longer, in seconds.
    :param jitter: take a random part of each delay, between half and the whole of it, so that tasks which failed
        together do not come back together.
    :param never: exceptions that are not retried although ``on`` has a class above them.

    Raises ``ConfigError`` for a value that makes no sense.
    """

    on: tuple[type[BaseException], ...] = (Exception,)
    max_attempts: int = 3
    backoff: float = 1.0
    factor: float = 2.0
    cap: float = 600.0
    jitter: bool = True
    never: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        for name in ("on", "never"):
            _require_exceptions(name, getattr(self, name))
        for name, check in _ALLOWED.items():
            require(f"Retry({name}={{}})", getattr(self, name), check)

    def wants(self, error: BaseException, attempt: int) -> bool:
        """Say whether the task should run again.

        :param error: what this run raised.
        :param attempt: how many runs there have been, this one included.
        """
        kind = type(error)
        if isinstance(error, TaskAborted) and TaskAborted not in self.on:
            kind = error.raised or SystemExit
        return attempt < self.max_attempts and issubclass(kind, self.on) and not issubclass(kind, self.never)

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait before a retry.

        :param attempt: which retry it is; 1 is the first.
        :param random: gives a float in [0, 1), as ``random.random`` does.
        """
        try:
            delay = min(self.cap, self.backoff * self.factor ** (attempt - 1))
        except OverflowError:
            delay = self.cap
        return delay * (0.5 + 0.5 * random()) if self.jitter else delay


class Backoff:
    """The pauses between tries while a service is away: each about twice as long as the one before.

    Each has jitter, between half and the whole of it, so that those who lost a service together do not come back to
    it together.

    :param first: seconds before the second try.
    :param longest: no pause is longer, in seconds.
    """

    __slots__ = ("_first", "_longest", "_next")

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def pause(self) -> float:
        """Return the seconds to wait now; the next pause is longer."""
        seconds, self._next = self._next, min(2 * self._next, self._longest)
        return seconds * (0.5 + 0.5 * random())

    def reset(self) -> None:
        """Begin anew: the service has answered."""
        self._next = self._first


_ALLOWED: Mapping[str, Check] = {
    "max_attempts": whole(1),
    "backoff": DELAY,
    "factor": number(1),
    "cap": DELAY,
    "jitter": ("True or False", lambda value: isinstance(value, bool)),
}


def _require_exceptions(name: str, classes: object) -> None:
    if isinstance(classes, tuple) and all(
        isinstance(c, type) and issubclass(c, BaseException) for c in classes
    ):
        return
    raise ConfigError(f"Retry({name}={classes!r}): give a tuple of exception classes, such as (OSError,)")
