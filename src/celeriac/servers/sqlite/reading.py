"""Reads one value or one column by a statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

_NOTHING: Mapping[str, Any] = {}


def scalar(connection: sqlite3.Connection, statement: str, values: Mapping[str, Any] = _NOTHING) -> Any:
    """Return the first column of the first row, ``None`` where there is no row."""
    row = connection.execute(statement, values).fetchone()
    return None if row is None else row[0]


def column(connection: sqlite3.Connection, statement: str, values: Mapping[str, Any] = _NOTHING) -> list[Any]:
    """Return the first column of every row."""
    return [row[0] for row in connection.execute(statement, values).fetchall()]
