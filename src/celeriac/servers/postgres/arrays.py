"""The arrays that carry the columns of many rows in one statement."""

from __future__ import annotations

from typing import Any


def without_nulls(column: list[Any]) -> list[Any]:
    """Return a column, or nothing where it has only ``None``.

    ``unnest`` of several arrays fills up the shorter ones with NULL. So a column that few rows use costs neither side
    anything: most results have no traceback, and no name where they are not extended.
    """
    return [] if column.count(None) == len(column) else column
