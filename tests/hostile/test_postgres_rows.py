"""Whatever stands in the rows of a PostgreSQL database, a worker goes on with what is sound."""

import math
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from celeriac import Celeriac
from celeriac.canvas.nodes import chord
from celeriac.errors import CeleriacError
from tests.hostile.check import make_app, runs, until
from tests.hostile.texts import TEXTS
from tests.servers import PostgresServer

QUEUE = "hostile"
INF, NAN = float("inf"), float("nan")
MOMENTS = [NAN, INF, -INF, -1.0, 0.0, 1e300, 253402300800.0]
COUNTS = [-(2**31), -5, 2**31 - 1]
NAMES = ["", "x", "\x1b[2J\n", "y" * 2000, "celeriac_'; DROP TABLE celeriac_message; --", "\u202e"]


@pytest.fixture
def app(postgres_url: str) -> Celeriac:
    app = make_app(postgres_url, QUEUE, postgres_url)

    @app.task(name="add_up")
    async def add_up(numbers: list[int]) -> int:
        return sum(numbers)

    return app


@pytest.fixture
async def rows(
    app: Celeriac, postgres_server: PostgresServer, postgres_schema: str
) -> AsyncIterator[psycopg.Connection[Any]]:
    """A connection to the app's schema, which has its tables."""
    async with app:
        await app.connections().broker.depth(QUEUE)
        await app.connections().backend.load(["none"])
        with postgres_server.client(postgres_schema) as connection:
            yield connection


def insert(rows: psycopg.Connection[Any], table: str, **values: object) -> None:
    marks = ", ".join(["%s"] * len(values))
    given = f"INSERT INTO {table} ({', '.join(values)}) OVERRIDING SYSTEM VALUE VALUES ({marks})"
    rows.execute(given, list(values.values()))


async def test_rows_of_messages(
    app: Celeriac, rows: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
):
    values: dict[str, list[Any]] = {
        "frame": list(TEXTS.values()),
        "due_at": MOMENTS,
        "deliveries": COUNTS,
        "owner": [*COUNTS, 0, 7, 8],
        "priority": [0, 9],
    }
    sound = {"queue": QUEUE, "priority": 0, "frame": b"{}"}
    for name, forged in values.items():
        for value in forged:
            insert(rows, "celeriac_message", **{**sound, name: value})
    for deliveries in COUNTS:
        insert(rows, "celeriac_message", **sound, owner=9, deliveries=deliveries)
    for owner in (7, 8, 9, -(2**31), 0):
        insert(rows, "celeriac_owner", id=owner)
    for name in NAMES:
        insert(rows, "celeriac_message", **{**sound, "queue": name})
    sent = sum(map(len, values.values())) + len(COUNTS) - 3
    async with app.worker():
        assert await runs(app)
        broker = app.connections().broker

        async def all_are_dead() -> bool:
            return await broker.dead.count() == sent

        await until(all_are_dead)
        assert [parked.due for parked in await broker.schedule.list()] == [253402300800.0, 1e300, INF]
        assert await broker.schedule.horizon() == 0
        assert set(NAMES) <= set(await broker.queues())
    assert "cannot take messages" not in caplog.text


async def test_counts_of_deliveries_that_are_none_are_not_believed(
    app: Celeriac, rows: psycopg.Connection[Any]
):
    for count in COUNTS:
        insert(rows, "celeriac_message", queue=QUEUE, priority=0, deliveries=count, frame=b"{}")
    async with app.connections().broker.subscribe([QUEUE]) as subscription:
        assert {delivery.deliveries for delivery in await subscription.take(10)} == {1}


async def test_rows_of_everything_else(app: Celeriac, rows: psycopg.Connection[Any]):
    far = [NAN, INF, 1e300]
    for number, moment in enumerate(far):
        for name in NAMES:
            process = f"{number} {name}"
            insert(rows, "celeriac_sleeper", queue=QUEUE, process=process, channel=name, until=moment)
            binding = {"listener": process, "key": name, "expires": moment}
            insert(rows, "celeriac_binding", exchange="celery.pidbox", **binding)
            broadcast = {"id": 2**62 + number * 100 + NAMES.index(name), "key": name, "expires": moment}
            insert(rows, "celeriac_broadcast", exchange="celery.pidbox", frame=b"{", **broadcast)
        insert(rows, "celeriac_lease", name=f"lead {number}", holder="ghost", expires=moment)
        insert(rows, "celeriac_member", name="revoked", kind="ids", member=f"m{number}", expires=moment)
        insert(rows, "celeriac_mark", key=f"k{number}", name="n", value="v", expires=moment)
        insert(rows, "celeriac_turn", name="line", at=moment, expires=moment)
        insert(rows, "celeriac_once", key=f"o{number}", expires=moment)
        insert(rows, "celeriac_slot", entry=f"s{number}", last=moment, expires=moment)
        dead = {"queue": QUEUE, "priority": 32767 - number, "reason": NAMES[2], "frame": TEXTS["nothing"]}
        insert(rows, "celeriac_dead", died_at=moment, **dead)
    for name in ("sweep", "vacuum"):
        rows.execute(
            "INSERT INTO celeriac_round VALUES (%s, 'NaN') ON CONFLICT (name) DO UPDATE SET at = 'NaN'",
            [name],
        )
    rows.execute("INSERT INTO celeriac_revision VALUES ('revoked', %s)", [2**63 - 1])
    rows.execute("INSERT INTO celeriac_owner SELECT generate_series(-20000, -1)")
    async with app.worker(name="hostile@here"):
        assert await runs(app)
        assert (await app.control.ask("ping", destination=["hostile@here"], timeout=30)).by_node
        broker = app.connections().broker
        board = broker.board
        task = await app.send_task("ok", [1], countdown=0.3)
        await task.cancel()
        before = await app.connections().revocations.load()
        assert task.id in before.ids
        await (await app.send_task("ok", [1], countdown=0.3)).cancel()
        assert 0 < before.revision != (await app.connections().revocations.load()).revision
        assert board.leases is not None
        assert board.windows is not None
        assert board.slots is not None
        for number in range(len(far)):
            assert (await board.leases.hold(f"lead {number}", "me", 60)).held
        assert await board.windows.turn("line", 1, 60) == 0
        assert await board.slots.last([f"s{number}" for number in range(len(far))]) == {}
        letters = await broker.dead.list(limit=1000)
        assert await broker.dead.retry([letter.id for letter in letters]) == len(far)

        async def the_forged_owners_are_gone() -> bool:
            (left,) = rows.execute("SELECT count(*) FROM celeriac_owner WHERE id < 0").fetchone() or (1,)
            return bool(left < 20000)

        await until(the_forged_owners_are_gone)


async def test_who_waits_for_a_result_holds_up_no_worker(app: Celeriac, rows: psycopg.Connection[Any]):
    for name in NAMES:
        insert(rows, "celeriac_waiting", task_id="known", channel=name)
    async with app.worker():
        task = await app.send_task("ok", [7], task_id="known")
        assert await task.wait(timeout=60) == 7


@pytest.mark.parametrize(
    "forged",
    [
        "claimed_until = 'Infinity', token = 'ghost'",
        "claimed_until = 'NaN', token = 'ghost'",
        "ended = 2147483647, size = -1",
        "joined = 2147483647",
    ],
)
async def test_a_chord_of_forged_numbers_holds_up_nobody_else(
    app: Celeriac, rows: psycopg.Connection[Any], forged: str
):
    header = [app.tasks["ok"].s(number) for number in (1, 2, 3)]
    task = await chord(header, app.tasks["add_up"].s()).send()
    rows.execute(f"UPDATE celeriac_chord SET {forged}")
    async with app.worker():
        assert await runs(app)
        if "claimed" in forged:
            assert await task.wait(timeout=60) == 6


async def test_rows_of_results(app: Celeriac, rows: psycopg.Connection[Any]):
    values: dict[str, list[Any]] = {
        "status": [None, "", "x" * 50, "FAILURE", "SUCCESS\n"],
        "result": [None, *TEXTS.values(), b"\x80\x04N.", b"\x80"],
        "date_done": ["-infinity", "infinity", "4713-01-01 BC", "9999-12-31"],
        "traceback": ["\x1b[2J"],
        "children": list(TEXTS.values()),
        "args": list(TEXTS.values()),
        "stamps": list(TEXTS.values()),
        "retries": COUNTS,
    }
    number = 0
    for name, forged in values.items():
        for value in forged:
            number += 1
            sound = {"task_id": f"t{number}", "status": "SUCCESS", "result": b"1"}
            insert(rows, "celery_taskmeta", id=number + 10**6, **{**sound, name: value})
    began = time.monotonic()
    for one in range(1, number + 1):
        result = app.result(f"t{one}")
        with suppress(CeleriacError):
            record = (await app.connections().backend.load([result.id]))[0]
            assert record is None or record.date_done is None or math.isfinite(record.date_done.timestamp())
    assert time.monotonic() - began < 20
    async with app.worker():
        assert await runs(app)
