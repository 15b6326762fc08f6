"""Which tasks are meant: the filters of a page, as they stand in its URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that fit all that is given.

    :param text: part of the name, id, arguments or error, in any case.
    :param since: seconds since the epoch; ``until`` the same.
    :param group: fingerprint of an error.
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

    def clause(self) -> tuple[str, list[Any]]:
        """Return the condition in SQL, for the table ``task``, and its parameters."""
        parts, values = ["1"], list[Any]()
        for column in ("state", "name", "queue", "worker", "root"):
            if value := getattr(self, column):
                parts.append(f"task.{column} = ?")
                values.append(value)
        if self.group:
            parts.append("task.id IN (SELECT task FROM attempt WHERE grouped = ?)")
            values.append(self.group)
        if self.since is not None:
            parts.append("task.changed >= ?")
            values.append(self.since)
        if self.until is not None:
            parts.append("task.changed < ?")
            values.append(self.until)
        if self.text:
            condition, value = _text_clause(self.text)
            parts.append(condition)
            values.append(value)
        return " AND ".join(parts), values


def read_filter(query: Mapping[str, str]) -> Filter:
    """Return the filter that a URL's query says; what cannot be read is left out."""
    names = ("state", "name", "queue", "worker", "root", "group", "text")
    texts = {name: query[name].strip() for name in names if query.get(name)}
    return Filter(**texts, since=_time(query.get("since")), until=_time(query.get("until")))


def _text_clause(text: str) -> tuple[str, str]:
    if len(text) < 3:  # the index holds three characters each
        return "(task.name || ' ' || task.id LIKE ? ESCAPE '\\')", f"%{_plain(text)}%"
    quoted = text.replace('"', '""')
    return "task.seq IN (SELECT rowid FROM task_text WHERE task_text MATCH ?)", f'"{quoted}"'


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _time(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
