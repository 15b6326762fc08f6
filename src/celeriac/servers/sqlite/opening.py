"""Opens a SQLite file: makes it with the wanted rights, puts it in WAL mode, makes the tables that are missing.

Rules: with ``synchronous=NORMAL``, a commit survives the death of any process, but the last commits before a power cut
may be lost. Functions that the schema of a foreign file names are not called.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from celeriac.servers.sqlite.reading import column

_WAL_PAUSE = 0.005
"""Seconds between tries to put a new file in WAL mode while another connection does the same."""

_STATEMENTS = 256
"""Statements that a connection keeps prepared."""

_MADE = """
SELECT tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
ORDER BY rowid"""
_NAMES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
_COLUMNS = "SELECT name, type FROM pragma_table_info(?)"


def open_file(path: Path, mode: int, busy: float) -> sqlite3.Connection:
    """Return a connection to the file, which is made where there is none. Raises ``sqlite3.Error``.

    :param mode: the rights of a file that is made; SQLite gives its own files beside it the same.
    :param busy: seconds for which a statement waits for the locks of others.
    """
    _make_file(path, mode)
    connection = sqlite3.connect(
        path,
        timeout=busy,
        isolation_level=None,  # transactions are begun and committed by name
        check_same_thread=False,
        cached_statements=_STATEMENTS,
    )
    try:
        connection.text_factory = _text
        # The schema of a file from elsewhere can then call harmless functions only.
        connection.execute("PRAGMA trusted_schema=OFF")
        _use_wal(connection, int(busy / _WAL_PAUSE))
        connection.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def make_tables(connection: sqlite3.Connection, schemas: Iterable[str]) -> None:
    """Make the tables that are missing, and the columns that a table made by an older program lacks."""
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        model.executescript("".join(schemas))
        present = set(column(connection, _NAMES))
        for table, statement in model.execute(_MADE).fetchall():
            if table not in present:
                connection.execute(statement)
        for table in present.intersection(column(model, _NAMES)):
            there = {name for name, _ in connection.execute(_COLUMNS, (table,))}
            for name, kind in model.execute(_COLUMNS, (table,)):
                if name not in there:
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")


def _make_file(path: Path, mode: int) -> None:
    with contextlib.suppress(OSError):  # it is there, or SQLite says what is wrong
        made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        try:
            if hasattr(os, "fchmod"):  # Windows has no such rights
                os.fchmod(made, mode)
        finally:
            os.close(made)


def _use_wal(connection: sqlite3.Connection, tries: int) -> None:
    """Put the file in WAL mode; SQLite refuses at once, whatever its timeout, while another opens the new file."""
    for tries_left in reversed(range(max(1, tries))):
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        except sqlite3.Error as error:
            if not tries_left or error_code(error) != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(_WAL_PAUSE)
        else:
            return


def error_code(error: sqlite3.Error) -> int:
    """Return the primary result code, 0 where the error is none of SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF


def _text(value: bytes) -> str:
    """Return text of the file; what is no UTF-8 must not make the rest unreadable."""
    return value.decode(errors="replace")
