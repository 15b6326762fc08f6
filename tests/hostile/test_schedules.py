"""Whatever stands in the records of periodic tasks, on any server: what is sound is ticked, and all can be listed."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from celeriac import Celeriac
from celeriac.beat.entry import Entry, write_entry
from celeriac.schedule.crontab import Crontab
from celeriac.schedule.interval import Interval, Once
from celeriac.schedule.slots import Schedule
from celeriac.schedule.solar import Solar
from tests.fuzz.schedule_fuzz import check, search, seeds
from tests.hostile.values import VALUES
from tests.servers import PostgresServer, RedisServer

FAR = 9e10
SCHEDULES: list[Schedule] = [
    *(
        Interval(0.01),
        Interval(1e9),
        Interval(-1.0),
        Interval(1e-9),
        Interval(86400.0, True, "../etc/passwd"),
    ),
    *(
        Crontab("x"),
        Crontab("0", "0", "*", "31", "2"),
        Crontab(tz="nowhere/at/all"),
        Crontab("1," * 5000 + "1"),
    ),
    *(Solar("sunrise", 90.0, 0.0), Solar("moonrise", 0.0, 0.0), Solar("sunset", 1e300, -1e300)),
    *(Once(-1e12), Once(1e300), Once(FAR)),
]
FIELDS: dict[str, list[object]] = {
    "name": ["", "a\0b", "\x1b]0;owned\x07\x1b[2J\u202e", "n" * 300],
    "jitter": [-1e10, 1e300],
    "overlap_for": [-1.0, 0.0, 1e300],
    "since": [-1e300, FAR, 1e300],
    "declared": [1e308, FAR],
    "start": [-1e300, 1e300],
    "end": [-1e300, 0.0],
    "window": [-1.0, 1e300],
    "arguments": ["", "[]", "{}", "[1, 2]", "[[], {}, {}]", "[" * 900 + "]" * 900, "NaN"],
    "options": ["[]", '{"headers": 5}', '{"queue": 7}', '{"nosuch": 1}', "null"],
}


def records() -> Iterator[str]:
    sound = Entry(name="forged", task="nosuch", schedule=Interval(3600.0), catch_up="all", overlap="skip")
    yield from VALUES
    for number, schedule in enumerate(SCHEDULES):
        yield write_entry(msgspec.structs.replace(sound, name=f"s{number}", schedule=schedule))
    for field, values in FIELDS.items():
        for number, value in enumerate(values):
            entry = msgspec.structs.replace(sound, name=f"{field} {number}")
            yield write_entry(msgspec.structs.replace(entry, **{field: value}))
    yield write_entry(msgspec.structs.replace(sound, name="sound", declared=1e308))
    yield write_entry(msgspec.structs.replace(sound, name="sound", declared=FAR, seen=FAR))


@pytest.fixture(params=["redis", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, unique: Callable[[str], str]) -> str:
    ask = request.getfixturevalue
    if request.param == "redis":
        server: RedisServer = ask("redis_server")
        return f"{server.url()}?global_keyprefix={unique('beat')}:"
    if request.param == "sqlite":
        return f"sqlite:///{ask('tmp_path')}/beat.db"
    return str(ask("postgres_url"))


async def test_what_is_sound_is_ticked(
    url: str,
    unique: Callable[[str], str],
    queue: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
):
    app = Celeriac(unique("beat"), url, "memory://", default_queue=queue, lease=1.0)
    ran = asyncio.Event()

    @app.periodic(0.05, name="sound")
    @app.task(name="ok")
    async def ok() -> None:
        ran.set()

    async with app:
        board = app.connections().broker.board
        kept = [text for text in records() if len(text) < 2500]  # an index of PostgreSQL holds no more
        paused = ["forged", "\x1b[2J", "x" * 1000]
        await board.sets.add(f"beat.{app.name}", {"entries": kept, "paused": paused}, 3600)
        await board.sets.add(f"beat-alive.{app.name}", {"since": ["x", "-1", "nan", "1e300", "0"]}, 3600)
        forge(url, request, f"{app.name}:sound", f"beat.{app.name}")
        async with app.worker():
            async with asyncio.timeout(60):
                await ran.wait()
            listed = {one.name: one for one in await app.schedules.list()}
            assert "sound" in listed
            assert listed["sound"].declared
            assert "" not in listed
            assert not any("\0" in name or len(name) > 200 for name in listed)
    assert "periodic tasks wait" not in caplog.text
    assert "Traceback" not in caplog.text


def forge(url: str, request: pytest.FixtureRequest, entry: str, lease: str) -> None:
    """Write a last slot that never was, and a lease that never ends."""
    if url.startswith("redis"):
        server: RedisServer = request.getfixturevalue("redis_server")
        prefix = url.partition("global_keyprefix=")[2]
        with server.client() as client:
            client.set(f"{prefix}celeriac.slot.{entry}", "-1e300")
            client.set(f"{prefix}celeriac.lease.{lease}", "ghost", ex=10**9)
    elif url.startswith("sqlite"):
        with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")), isolation_level=None)) as file:
            file.execute("INSERT INTO celeriac_slot VALUES (?, -1e300, 9e9)", [entry])
            file.execute("INSERT INTO celeriac_lease VALUES (?, 'ghost', 1e300)", [lease])
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        with postgres.client(request.getfixturevalue("postgres_schema")) as rows:
            rows.execute("INSERT INTO celeriac_slot VALUES (%s, '-Infinity', 9e9)", [entry])
            rows.execute("INSERT INTO celeriac_lease VALUES (%s, 'ghost', 'Infinity')", [lease])


def test_no_record_breaks_or_holds_up_what_computes_slots():
    assert all(check(seed) for seed in seeds())
    assert search(seed=20261129, seconds=0.5, least=100) >= 100
