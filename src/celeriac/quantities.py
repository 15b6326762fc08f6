"""Checks the numbers and times that users give.

Rules: this module is pure. Only numbers pass, never a text or a ``timedelta``. A value that a clock, a timer or a
``datetime`` cannot hold is refused here, since it would otherwise fail far from where it was given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from celeriac.errors import ConfigError

Check: TypeAlias = tuple[str, Callable[[Any], bool]]
"""A check: the words of its error that say what to give, and a function that returns whether a value passes."""

FARTHEST = 1e11
"""Seconds, 3,000 years: from more, no ``datetime`` can be made."""

LONGEST = 1e9
"""Seconds, 31 years: longer than this no timer of a system waits."""

FIRST_YEAR, LAST_YEAR = 2, 9998
"""Years of UTC that are the same or the next year everywhere on earth."""


def is_number(value: Any) -> bool:
    """Whether this is a finite number that a float can hold, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_moment(value: Any) -> bool:
    """Whether this is a time with a time zone, which every time zone can write."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        return False
    try:
        return FIRST_YEAR <= value.astimezone(UTC).year <= LAST_YEAR
    except (OverflowError, ValueError):
        return False


def or_none(check: Check) -> Check:
    """Return the check that lets ``None`` pass too."""
    return f"{check[0]}, or None", lambda value: value is None or check[1](value)


def whole(least: int) -> Check:
    """Return the check of a whole number."""
    return (
        f"a whole number, {least} or more",
        lambda value: type(value) is int and least <= value <= sys.maxsize,
    )


def number(least: float) -> Check:
    """Return the check of a number."""
    return f"a number, {least:g} or more", lambda value: is_number(value) and value >= least


SECONDS: Check = ("seconds, more than 0", lambda value: is_number(value) and 0 < value < LONGEST)
GRACE: Check = ("seconds, 0 or more", lambda value: is_number(value) and 0 <= value < LONGEST)
DELAY: Check = ("seconds, 0 or more", lambda value: is_number(value) and 0 <= value < FARTHEST)
PATIENCE: Check = (
    "seconds, or None to wait for ever",
    lambda value: value is None or (is_number(value) and abs(value) < FARTHEST),
)
MOMENT: Check = (
    f"an aware time before the year {LAST_YEAR + 1}, such as datetime.now(timezone.utc) + timedelta(hours=1)",
    is_moment,
)
EXPIRY: Check = (
    f"seconds, or an aware time before the year {LAST_YEAR + 1}",
    lambda value: is_moment(value) or (is_number(value) and abs(value) < FARTHEST),
)
PRIORITY: Check = (
    "a whole number from 0 to 9",
    lambda value: type(value) is int and 0 <= value <= 9,
)

PROTOCOL: Check = (
    "1 or 2, a version of Celery's task message protocol",
    lambda value: type(value) is int and value in {1, 2},
)

Rate: TypeAlias = str | float
"""How many in a time: a number a second, or a text such as ``10/m``."""

_SECONDS_OF = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_apart(rate: Rate | None) -> float | None:
    """Return the seconds from one to the next at this rate, ``None`` where it is 0, for no limit.

    Raises ``ValueError`` for what is no rate (Celery: ``rate_limit``).
    """
    if not rate:
        return None
    count, _, unit = str(rate).partition("/")
    per_second = float(count) / _SECONDS_OF.get(unit or "s", 0.0) if unit in ("", *_SECONDS_OF) else -1.0
    if not 0 <= per_second < LONGEST or 0 < per_second < 1 / LONGEST:
        raise ValueError(f"{rate!r:.100} is no rate: give {RATE[0]}")
    return 1 / per_second if per_second else None


def _is_rate(value: Any) -> bool:
    if not isinstance(value, str) and not is_number(value):
        return False
    try:
        seconds_apart(value)
    except ValueError:
        return False
    return True


RATE: Check = ("a number a second, or a text such as '10/s', '100/m', '1000/h'; 0 for no limit", _is_rate)

OPTIONS: Mapping[str, Check] = {
    "priority": PRIORITY,
    "countdown": DELAY,
    "eta": MOMENT,
    "expires": EXPIRY,
    "time_limit": SECONDS,
    "soft_time_limit": SECONDS,
    "protocol": PROTOCOL,
}
"""The options of sending that are numbers or times."""


def require(what: str, value: Any, check: Check) -> None:
    """Raise ``ConfigError`` for a value that does not pass.

    :param what: names it, such as ``option countdown``; with ``{}`` in it, where the value stands.
    """
    allowed, passes = check
    if not passes(value):
        given = f"{value!r:.200}"
        said = what.format(given) if "{}" in what else f"{what}={given}"
        raise ConfigError(f"{said}: give {allowed}{_hint(value)}")


def patience(timeout: float | None) -> float | None:
    """Return for how long a caller waits. Raises ``ConfigError`` for what are no seconds."""
    require("timeout", timeout, PATIENCE)
    return timeout


def _hint(value: Any) -> str:
    if isinstance(value, timedelta):
        return "; a timedelta has total_seconds()"
    if isinstance(value, datetime) and value.utcoffset() is None:
        return "; this one has no time zone"
    return ""
