"""Which tasks are meant: the filters of a page, as they stand in its URL."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

_SPAN = re.compile(r"(\d{1,6})\s*([smhd])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that fit all that is given.

    :param text: part of the name, id, arguments or error, in any case.
    :param since: seconds since the epoch; ``until`` the same.
    :param group: fingerprint of an error.
    :param again: ``False`` leaves out the tasks that were run again since they last changed.
    """

    state: str = ""
    name: str = ""
    queue: str = ""
    worker: str = ""
    root: str = ""
    group: str = ""
    text: str = ""
    since: float | None = None
    until: float | None = None
    again: bool | None = None

    def clause(self, text_clause: Callable[[str], tuple[str, str]]) -> tuple[str, list[Any]]:
        """Return the condition in SQL, for the table ``task``, and its parameters.

        :param text_clause: returns those for a text; each store looks for it in its own way.
        """
        parts, values = ["1 = 1"], list[Any]()
        for column in ("state", "name", "queue", "worker", "root"):
            if value := getattr(self, column):
                parts.append(f"task.{column} = ?")
                values.append(value)
        if self.group:
            parts.append("task.id IN (SELECT task FROM attempt WHERE grouped = ?)")
            values.append(self.group)
        if self.again is False:
            parts.append(
                "NOT EXISTS (SELECT 1 FROM again WHERE again.task = task.id AND again.changed = task.changed)"
            )
        if self.since is not None:
            parts.append("task.changed >= ?")
            values.append(self.since)
        if self.until is not None:
            parts.append("task.changed < ?")
            values.append(self.until)
        if self.text:
            condition, value = text_clause(self.text)
            parts.append(condition)
            values.append(value)
        return " AND ".join(parts), values


def read_filter(query: Mapping[str, str], now: float = 0.0) -> Filter:
    """Return the filter that a URL's query says; what cannot be read is left out.

    :param now: seconds since the epoch, from which spans such as ``15m`` are counted back.
    """
    names = ("state", "name", "queue", "worker", "root", "group", "text")
    # A search cannot hold a NUL, and no name has one that it would miss.
    texts = {name: text for name in names if (text := query.get(name, "").replace("\0", "").strip())}
    since, until = _time(query.get("since"), now), _time(query.get("until"), now)
    return Filter(**texts, since=since, until=until, again=None)


def _time(text: str | None, now: float) -> float | None:
    """Return the moment that a text says: seconds since the epoch, a span back, or a time as ISO 8601."""
    if not text or not (text := text.strip()):
        return None
    if found := _SPAN.fullmatch(text):
        return now - float(found[1]) * _UNITS[found[2]]
    try:
        moment = float(text)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            return None
        moment = (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()
    return moment if math.isfinite(moment) else None
