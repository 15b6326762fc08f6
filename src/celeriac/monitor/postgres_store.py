"""Keeps the history in a PostgreSQL database, in a schema of its own.

Rules: one dashboard writes to a schema; others may read it. Text is looked for by trigrams where the extension
``pg_trgm`` is there, or may be made; else every task is looked at. What PostgreSQL cannot keep is written escaped.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import count
from typing import Any

import asyncpg
import msgspec

from celeriac.errors import CeleriacError
from celeriac.monitor.rows import TaskRow
from celeriac.monitor.store import COLUMNS, Batch, KeptAttempt, Statement, Values
from celeriac.servers.postgres.url import Target, parse_postgres_url

SCHEMA = "celeriac_history"
"""Where the tables are, if the URL names no schema."""

VERSION = 2
PATIENCE = 30.0
"""Seconds for one statement."""

_KINDS = {"retries": "integer", "runtime": "double precision", "changed": "double precision"}
_KINDS |= dict.fromkeys(("sent", "received", "started", "ended"), "double precision")
_TEXT = "(task.name || ' ' || task.id || ' ' || task.args || ' ' || task.kwargs || ' ' || task.error)"

TABLES = f"""
CREATE TABLE task (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE, name text NOT NULL,
  state text NOT NULL, queue text NOT NULL, worker text NOT NULL, args text NOT NULL, kwargs text NOT NULL,
  result text NOT NULL, error text NOT NULL, retries integer NOT NULL, sent double precision,
  received double precision, started double precision, ended double precision, runtime double precision,
  eta text NOT NULL, expires text NOT NULL, root text NOT NULL, parent text NOT NULL, progress text NOT NULL,
  changed double precision NOT NULL);
CREATE INDEX task_state ON task (state, seq);
CREATE INDEX task_name ON task (name, seq);
CREATE INDEX task_root ON task (root, seq) WHERE root <> '';
CREATE INDEX task_changed ON task (changed);
CREATE TABLE traceback (hash text PRIMARY KEY, text text NOT NULL);
CREATE TABLE attempt (
  task text NOT NULL, retries integer NOT NULL, at double precision NOT NULL, worker text NOT NULL,
  state text NOT NULL, error text NOT NULL, traceback text NOT NULL, grouped text NOT NULL,
  PRIMARY KEY (task, retries, at));
CREATE INDEX attempt_grouped ON attempt (grouped);
CREATE TABLE grouped (
  id text PRIMARY KEY, name text NOT NULL, error text NOT NULL, place text NOT NULL, first double precision NOT NULL,
  last double precision NOT NULL, count bigint NOT NULL, example text NOT NULL);
CREATE TABLE grouped_hour (
  hour bigint NOT NULL, grouped text NOT NULL, count bigint NOT NULL, PRIMARY KEY (hour, grouped));
CREATE TABLE minute (
  minute bigint NOT NULL, name text NOT NULL, queue text NOT NULL, state text NOT NULL, count bigint NOT NULL,
  runtime double precision NOT NULL, longest double precision NOT NULL, wait double precision NOT NULL,
  PRIMARY KEY (minute, name, queue, state));
CREATE TABLE again (task text PRIMARY KEY, changed double precision NOT NULL);
CREATE TABLE action (at double precision NOT NULL, who text NOT NULL, what text NOT NULL, outcome text NOT NULL);
CREATE TABLE version (number integer NOT NULL);
INSERT INTO version VALUES ({VERSION});
"""
_TRIGRAMS = f"CREATE EXTENSION IF NOT EXISTS pg_trgm; CREATE INDEX task_text ON task USING gin ({_TEXT} gin_trgm_ops);"

_SELECT = ", ".join(COLUMNS)
_WRITE = "INSERT INTO task ({columns}) SELECT * FROM unnest({arrays}) ON CONFLICT (id) DO UPDATE SET {updates}".format(
    columns=_SELECT,
    arrays=", ".join(
        f"${number}::{_KINDS.get(column, 'text')}[]" for number, column in enumerate(COLUMNS, 1)
    ),
    updates=", ".join(f"{column} = excluded.{column}" for column in COLUMNS if column != "id"),
)
_TRACEBACKS = "INSERT INTO traceback SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING"
_ATTEMPTS = """
    INSERT INTO attempt SELECT * FROM unnest(
        $1::text[], $2::integer[], $3::double precision[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
    ON CONFLICT DO NOTHING RETURNING task, retries, at"""
_HOURS = (
    "INSERT INTO grouped_hour AS known VALUES ($1, $2, $3)"
    " ON CONFLICT (hour, grouped) DO UPDATE SET count = known.count + excluded.count"
)
_GROUPS = """
    INSERT INTO grouped AS known VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET
        last = greatest(known.last, excluded.last), count = known.count + excluded.count, example = excluded.example"""
_MINUTES = """
    INSERT INTO minute AS known SELECT * FROM unnest(
        $1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::double precision[],
        $7::double precision[], $8::double precision[])
    ON CONFLICT (minute, name, queue, state) DO UPDATE SET
        count = known.count + excluded.count, runtime = known.runtime + excluded.runtime,
        longest = greatest(known.longest, excluded.longest), wait = known.wait + excluded.wait"""


class PostgresStore:
    """See ``celeriac.monitor.store.Store``.

    :param url: see ``celeriac.servers.postgres.url.parse_postgres_url``.
    """

    def __init__(self, url: str) -> None:
        self._target = parse_postgres_url(url)
        self._schema = self._target.schema or SCHEMA
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        target = self._target
        try:
            self._pool = await asyncpg.create_pool(
                **target.address,
                timeout=target.connect_timeout or PATIENCE,
                command_timeout=PATIENCE,
                min_size=1,
                max_size=4,
                server_settings={"search_path": self._schema, "application_name": "celeriac history"},
            )
            async with self._pool.acquire() as connection:
                await _prepare(connection, self._schema)
        except _ERRORS as error:
            raise _unreachable(target, error) from error

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    async def known(self, ids: Sequence[str]) -> list[TaskRow]:
        wanted = [_plain(id) for id in ids]
        rows = await self._fetch(f"SELECT {_SELECT} FROM task WHERE id = ANY($1::text[])", [wanted])
        return [TaskRow(*row) for row in rows]

    async def write(self, batch: Batch) -> None:
        async def whole(connection: Any) -> None:
            await _write_attempts(connection, batch.attempts)
            if batch.ended:
                await connection.execute(_MINUTES, *_minutes(batch.ended))
            if batch.rows:
                rows = [msgspec.structs.astuple(row) for row in batch.rows]
                await connection.execute(_WRITE, *map(_column, zip(*rows, strict=True)))

        await self._transact(whole)

    async def fetch(self, query: str, values: Values) -> Sequence[Sequence[Any]]:
        return [tuple(row) for row in await self._fetch(_numbered(query), list(map(_value, values)))]

    async def run(self, statements: Sequence[Statement]) -> list[int]:
        async def whole(connection: Any) -> list[int]:
            answers = [
                await connection.execute(_numbered(query), *map(_value, values))
                for query, values in statements
            ]
            return [int(answer.rpartition(" ")[2]) for answer in answers]

        changed: list[int] = await self._transact(whole)
        return changed

    def text_clause(self, text: str) -> tuple[str, str]:
        escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        # A shorter text has no trigram, and is in nearly every task.
        where = _TEXT if len(text) >= 3 else "(task.name || ' ' || task.id)"
        return f"{where} ILIKE ? ESCAPE '\\'", f"%{escaped}%"

    async def _fetch(self, query: str, values: Sequence[Any]) -> Sequence[Any]:
        assert self._pool is not None, "the history is not open"
        try:
            rows: Sequence[Any] = await self._pool.fetch(query, *values)
        except _ERRORS as error:
            raise _unreachable(self._target, error) from error
        return rows

    async def _transact(self, work: Any) -> Any:
        assert self._pool is not None, "the history is not open"
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                return await work(connection)
        except _ERRORS as error:
            raise _unreachable(self._target, error) from error


_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, asyncio.TimeoutError)


async def _prepare(connection: Any, schema: str) -> None:
    """Make the schema and its tables where they are missing. Raises ``CeleriacError`` for another version's tables."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('celeriac history'))")
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema):
            await connection.execute(f'CREATE SCHEMA "{schema}"')
        if await connection.fetchval("SELECT to_regclass('version') IS NOT NULL"):
            number = await connection.fetchval("SELECT number FROM version")
            if number != VERSION:
                raise CeleriacError(
                    f"the history in schema {schema!r} is of version {number}, and this celeriac knows {VERSION}:"
                    " name another schema, as in ?schema=history2"
                )
            return
        await connection.execute(TABLES)
        try:
            async with connection.transaction():
                await connection.execute(_TRIGRAMS)
        except asyncpg.PostgresError:
            return  # this role may not, or the server has it not: text is then looked for in every task


async def _write_attempts(connection: Any, attempts: Sequence[KeptAttempt]) -> None:
    if not attempts:
        return
    texts = {kept.hash: kept.attempt.traceback for kept in attempts if kept.hash}
    await connection.execute(_TRACEBACKS, list(texts), _column(texts.values()))
    rows = [(*kept.attempt[:6], kept.hash, kept.attempt.group) for kept in attempts]
    added = {tuple(row) for row in await connection.fetch(_ATTEMPTS, *map(_column, zip(*rows, strict=True)))}
    groups: dict[str, list[KeptAttempt]] = defaultdict(list)
    for kept in attempts:
        if (_plain(kept.attempt.task), kept.attempt.retries, kept.attempt.at) in added:
            groups[kept.attempt.group].append(kept)
    for group, members in sorted(groups.items()):
        times = [kept.attempt.at for kept in members]
        last = members[-1]
        texts_of = map(_plain, (last.name, last.error, last.place))
        example = _plain(last.attempt.task)
        await connection.execute(_GROUPS, group, *texts_of, min(times), max(times), len(members), example)
        for hour, number in Counter(int(at // 3600) for at in times).items():
            await connection.execute(_HOURS, hour, group, number)


def _minutes(ended: Sequence[TaskRow]) -> list[list[Any]]:
    """Return the arrays of ``_MINUTES``, a minute of one task, queue and state each."""
    sums: dict[tuple[int, str, str, str], list[float]] = {}
    for row in ended:
        key = (int((row.ended or row.changed) // 60), _plain(row.name), _plain(row.queue), row.state)
        one = sums.setdefault(key, [0, 0.0, 0.0, 0.0])
        one[0] += 1
        one[1] += row.runtime or 0.0
        one[2] = max(one[2], row.runtime or 0.0)
        one[3] += row.wait or 0.0
    return [list(column) for column in zip(*((*key, *one) for key, one in sorted(sums.items())), strict=True)]


def _numbered(query: str) -> str:
    """Return the query with its values marked as PostgreSQL has them."""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", query)


def _column(values: Any) -> list[Any]:
    return [_value(value) for value in values]


def _value(value: Any) -> Any:
    return _plain(value) if isinstance(value, str) else value


def _plain(text: str) -> str:
    """Return a text as PostgreSQL can keep it."""
    if text.isprintable():
        return text
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def _unreachable(target: Target, error: BaseException) -> CeleriacError:
    text = str(error) or type(error).__name__
    return CeleriacError(f"the history at {target.place} cannot be used: {text}")
