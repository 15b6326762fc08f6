"""Whatever stands in the rows of a SQLite file, a worker goes on with what is sound."""

import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from tests.hostile.check import make_app, runs, until

QUEUE = "hostile"
VALUES: list[Any] = ["x", b"\xff\xfe", -5, 2.5, float("inf"), float("-inf"), 2**62, "", 0]
COLUMNS = ["queue", "priority", "owner", "due_at", "redelivered", "deliveries", "frame"]


@pytest.fixture
def app(tmp_path: Path) -> Celeriac:
    return make_app(f"sqlite:///{tmp_path}/hostile.db", QUEUE)


@pytest.fixture
async def file(app: Celeriac, tmp_path: Path) -> AsyncIterator[sqlite3.Connection]:
    """A connection to the app's file, which has its tables."""
    async with app:
        await app.connections().broker.depth(QUEUE)
        with closing(sqlite3.connect(tmp_path / "hostile.db", isolation_level=None)) as connection:
            yield connection


def insert(file: sqlite3.Connection, table: str, **values: object) -> None:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    file.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))


def forged_messages() -> Sequence[dict[str, object]]:
    sound: dict[str, object] = {"queue": QUEUE, "priority": 0, "frame": b"{}"}
    return [{**sound, name: value} for name in COLUMNS for value in VALUES]


async def test_rows_of_messages(app: Celeriac, file: sqlite3.Connection, caplog: pytest.LogCaptureFixture):
    for row in forged_messages():
        insert(file, "celeriac_message", **row)
    async with app.worker():
        assert await runs(app)

        async def only_strangers_are_left() -> bool:
            parked = "due_at BETWEEN 1e12 AND 9e999"
            left = f"SELECT count(*) FROM celeriac_message WHERE queue = ? AND ({parked}) IS NOT TRUE"
            return bool(file.execute(left, (QUEUE,)).fetchone() == (0,))

        await until(only_strangers_are_left)
        broker = app.connections().broker
        assert all(isinstance(queue, str) for queue in await broker.queues())
        assert all(isinstance(letter.queue, str) for letter in await broker.dead.list(limit=1000))
        assert [parked.due for parked in await broker.schedule.list()] == [2**62, float("inf")]
    assert "cannot take messages" not in caplog.text


async def test_rows_of_everything_else(app: Celeriac, file: sqlite3.Connection):
    for number, value in enumerate(VALUES):
        insert(file, "celeriac_message", queue=QUEUE, priority=0, owner=number + 1, frame=b"held")
        dead = {"queue": value, "priority": value, "reason": value, "died_at": value, "frame": value}
        insert(file, "celeriac_dead", **dead)
        file.execute("INSERT OR REPLACE INTO celeriac_queue VALUES (?)", [value])
        file.execute("INSERT OR REPLACE INTO celeriac_listener VALUES (?, ?)", [value, QUEUE])
        file.execute("INSERT OR REPLACE INTO celeriac_once VALUES (?, ?)", [value, value])
        file.execute("INSERT OR REPLACE INTO celeriac_member VALUES ('revoked', 'ids', ?, ?)", [value, value])
        file.execute("INSERT OR REPLACE INTO celeriac_mark VALUES (?, ?, ?, ?)", [value] * 4)
        file.execute("INSERT OR REPLACE INTO celeriac_lease VALUES ('lead', ?, ?)", [value, value])
        insert(file, "celeriac_turn", name="line", at=value, expires=value)
    file.execute("INSERT INTO celeriac_revision VALUES ('revoked', 'x')")
    async with app.worker():
        assert await runs(app)
        broker = app.connections().broker

        async def all_came_back() -> bool:
            return await broker.dead.count() == 2 * len(VALUES)

        await until(all_came_back)
        task = await app.send_task("ok", [1], countdown=0.3)
        await task.cancel()
        assert (await app.connections().revocations.load()).revision >= 1
        board = broker.board
        assert await board.marks.put("key", "new", "1", 60) == "1"
        assert await board.leases.hold("lead", "me", 60)
        assert await board.windows.turn("line", 1, 60) == 0
        letters = await broker.dead.list(limit=1000)
        assert all(0 <= letter.died_at <= time.time() for letter in letters if letter.died_at < 2e9)
        assert await broker.dead.delete([letter.id for letter in letters]) == len(letters)


async def test_counts_of_deliveries_that_are_none_are_not_believed(app: Celeriac, file: sqlite3.Connection):
    for value in (-5, "x", 2.5, float("inf"), 2**62, b"\xff"):
        insert(file, "celeriac_message", queue=QUEUE, priority=0, deliveries=value, frame=b"{}")
    async with app.connections().broker.subscribe([QUEUE]) as subscription:
        taken = await subscription.take(10)
        assert {delivery.deliveries for delivery in taken} == {1}


async def test_a_text_in_place_of_a_blob_spoils_no_other_message(app: Celeriac, file: sqlite3.Connection):
    frames = ["\u00e9" * 10, b"second", 3, b"fourth"]
    for frame in frames:
        insert(file, "celeriac_message", queue=QUEUE, priority=0, frame=frame)
    async with app.connections().broker.subscribe([QUEUE]) as subscription:
        found = [delivery.envelope.raw for delivery in await subscription.take(10)]  # type: ignore[union-attr]
    assert found == ["\u00e9".encode() * 10, b"second", b"3", b"fourth"]
