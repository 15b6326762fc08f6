"""What the history keeps, finds and forgets."""

import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import CeleriacError
from celeriac.monitor.filters import Filter, read_filter
from celeriac.monitor.history import History
from celeriac.monitor.masking import HIDDEN, Mask
from tests.servers import PostgresServer

NOW = 1_800_000_000.0


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture(params=["sqlite", "postgres"])
async def history(tmp_path: Path, hands: Hands, request: pytest.FixtureRequest) -> AsyncIterator[History]:
    place: Path | str = tmp_path / "history.db"
    if request.param == "postgres":
        place = request.getfixturevalue("postgres_url")
    history = History(place, mask=Mask(), rate=100.0, now=hands)
    await history.open()
    yield history
    await history.close()


def events_of(
    id: str, end: str | None = "task-succeeded", at: float = NOW, **fields: Any
) -> list[dict[str, Any]]:
    told = [
        {
            "type": "task-received",
            "uuid": id,
            "hostname": "w@a",
            "timestamp": at,
            "name": "shop.pay",
            **fields,
        },
        {"type": "task-started", "uuid": id, "hostname": "w@a", "timestamp": at + 1},
    ]
    if end is not None:
        told.append({"type": end, "uuid": id, "hostname": "w@a", "timestamp": at + 2, "runtime": 0.5})
    if end in ("task-failed", "task-retried"):
        told[-1] |= {
            "exception": "ValueError('no')",
            "traceback": '  File "/srv/shop.py", line 1, in pay\nValueError: no',
        }
    return told


async def test_pages_from_the_newest(history: History):
    for number in range(120):
        await history.take(events_of(f"t{number}"))
    first = await history.tasks(Filter())
    second = await history.tasks(Filter(), before=first.next)
    third = await history.tasks(Filter(), before=second.next)
    seen = [task.id for page in (first, second, third) for task in page.tasks]
    assert seen == [f"t{number}" for number in reversed(range(120))]
    assert third.next is None


async def test_filters(history: History):
    await history.take(events_of("a", queue="mail", args="('ann@example.com',)"))
    await history.take(events_of("b", "task-failed", root_id="r"))
    await history.take(events_of("c", None))

    async def found(**given: Any) -> list[str]:
        return await history.ids(Filter(**given), 10)

    assert await found(state="FAILURE") == ["b"]
    assert await found(queue="mail") == ["a"]
    assert await found(root="r") == ["b"]
    assert await found(text="ann@example") == ["a"]
    assert await found(text="ValueError") == ["b"]
    assert await found(text="pay") == ["c", "b", "a"]
    assert await found(text="c") == ["c"]
    assert await found(name="shop.pay", state="STARTED") == ["c"]
    assert await history.count(Filter()) == 3


async def test_postgresql_that_is_away_is_told(unique: Callable[[str], str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    history = History(f"postgresql://nobody@127.0.0.1:{port}/none", mask=Mask())
    with pytest.raises(CeleriacError, match=f"the history at 127.0.0.1:{port}/none cannot be used"):
        await history.open()
    await history.close()


async def test_the_schema_of_postgresql_is_made_and_kept(
    postgres_server: PostgresServer, unique: Callable[[str], str]
):
    schema = unique("history").replace("-", "_")
    for known in (False, True):
        history = History(postgres_server.url(schema), mask=Mask(), now=lambda: NOW)
        await history.open()
        assert (await history.task("a") is not None) is known
        await history.take(events_of("a", "task-failed", args="('nul \x00 and half \ud800',)"))
        (found,) = await history.ids(Filter(text="nul \\x00 and"), 10)
        assert found == "a"
        await history.close()
    with postgres_server.client(schema) as connection:
        connection.execute("UPDATE version SET number = 99")
    history = History(postgres_server.url(schema), mask=Mask())
    with pytest.raises(CeleriacError, match="is of version 99"):
        await history.open()
    await history.close()
    with postgres_server.client(schema) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


async def test_text_that_looks_like_a_query_is_only_text(history: History):
    await history.take(events_of("a", args="""('" OR 1=1 --', '%')"""))
    assert await history.ids(Filter(text='" OR 1=1'), 10) == ["a"]
    assert await history.ids(Filter(text="x* NOT y"), 10) == []
    assert await history.ids(Filter(name="' OR 1 --"), 10) == []


async def test_errors_are_grouped_and_their_tracebacks_kept_once(history: History):
    for number in range(30):
        await history.take(events_of(f"t{number}", "task-failed", at=NOW + number))
    (group,) = await history.groups()
    assert (group.name, group.error, group.place, group.times) == (
        "shop.pay",
        "ValueError",
        "/srv/shop.py:pay",
        30,
    )
    assert await history.count(Filter(group=group.group)) == 30
    (attempt,) = await history.attempts("t7")
    assert "ValueError: no" in attempt.traceback
    rows = await history._store.fetch("SELECT count(*) FROM traceback", [])
    assert rows == [(1,)]


async def test_an_event_that_comes_twice_counts_once(history: History):
    told = events_of("t", "task-failed")
    await history.take(told)
    await history.take(told)
    assert [group.times for group in await history.groups()] == [1]
    assert [(row.state, row.tasks) for row in await history.minutes(NOW - 60)] == [("FAILURE", 1)]


async def test_minutes(history: History):
    await history.take([*events_of("a"), *events_of("b"), *events_of("c", "task-failed")])
    rows = {row.state: row for row in await history.minutes(NOW - 60)}
    assert (rows["SUCCESS"].tasks, rows["SUCCESS"].runtime, rows["SUCCESS"].longest) == (2, 1.0, 0.5)
    assert (rows["FAILURE"].tasks, rows["SUCCESS"].wait) == (1, 2.0)


async def test_successes_above_the_rate_are_counted_but_not_kept(history: History, hands: Hands):
    hands.at += 1
    told = [event for number in range(400) for event in events_of(f"t{number}")]
    told += [event for number in range(50) for event in events_of(f"f{number}", "task-failed")]
    await history.take(told)
    assert await history.count(Filter(state="SUCCESS")) == 100
    assert await history.count(Filter(state="FAILURE")) == 50
    assert history.share == 0.25
    assert sum(row.tasks for row in await history.minutes(NOW - 60)) == 450


async def test_secrets_are_hidden_in_the_file_itself(tmp_path: Path):
    history = History(tmp_path / "history.db", mask=Mask())
    await history.open()
    await history.take(events_of("t", "task-failed", kwargs="{'password': 'hunter2'}"))
    await history.note("ann", "retry t with password='hunter2'", "done")
    row = await history.task("t")
    assert row is not None
    assert row.kwargs == f"{{'password': '{HIDDEN}'}}"
    await history.close()
    assert _holding(tmp_path, b"hunter2") == []
    assert _holding(tmp_path, b"shop.pay") != []


async def test_what_was_kept_is_there_again(tmp_path: Path):
    for _ in range(2):
        history = History(tmp_path / "history.db", mask=Mask())
        await history.open()
        known = await history.task("t")
        await history.take(events_of("t", None) if known is None else events_of("t")[2:])
        await history.close()
    history = History(tmp_path / "history.db", mask=Mask())
    await history.open()
    row = await history.task("t")
    await history.close()
    assert row is not None
    assert (row.state, row.name) == ("SUCCESS", "shop.pay")


async def test_old_tasks_are_swept(history: History, hands: Hands):
    await history.take(events_of("old", "task-failed", at=NOW - 8 * 86400))
    await history.take(events_of("new"))
    assert await history.sweep() == 1
    assert await history.ids(Filter(), 10) == ["new"]
    assert await history.ids(Filter(text="ValueError"), 10) == []
    assert (await history.attempts("old"), await history.groups()) == ([], [])


async def test_no_more_than_so_many_tasks_are_kept(tmp_path: Path):
    history = History(tmp_path / "history.db", mask=Mask(), most=10, now=lambda: NOW)
    await history.open()
    for number in range(25):
        await history.take(events_of(f"t{number}"))
    assert await history.sweep() == 15
    assert await history.ids(Filter(), 50) == [f"t{number}" for number in reversed(range(15, 25))]
    await history.close()


def test_a_filter_from_a_url():
    assert read_filter({"state": " FAILURE ", "since": "12.5", "until": "soon", "odd": "x"}) == Filter(
        state="FAILURE", since=12.5
    )


def _holding(folder: Path, text: bytes) -> list[Path]:
    return [path for path in folder.iterdir() if text in path.read_bytes()]


async def test_what_was_run_again_is_left_out_until_it_fails_anew(history: History):
    for id in ("a", "b"):
        await history.take(events_of(id, "task-failed"))
    fresh = Filter(state="FAILURE", again=False)
    await history.note_again(["a", "unknown"])
    await history.note_again(["a"])
    assert await history.ids(fresh, 10) == ["b"]
    assert sorted(await history.ids(Filter(state="FAILURE"), 10)) == ["a", "b"]
    await history.take(events_of("a", "task-failed", at=NOW + 100))
    assert sorted(await history.ids(fresh, 10)) == ["a", "b"]


async def test_an_error_is_forgotten_with_the_last_task_that_had_it(history: History):
    for id in ("a", "b"):
        await history.take(events_of(id, "task-failed"))
    [group] = await history.groups()
    assert await history.forget(["a"]) == 1
    assert [one.group for one in await history.groups()] == [group.group]
    assert await history.forget(["b"]) == 1
    assert await history.groups() == []


async def test_errors_are_counted_by_the_hour(history: History, hands: Hands):
    for id, hours_ago in (("a", 0), ("b", 2), ("c", 2), ("d", 30)):
        await history.take(events_of(id, "task-failed", at=NOW - 3600 * hours_ago))
    [group] = await history.groups()
    assert await history.by_hour(4) == {group.group: [0, 2, 0, 1]}
    hands.at += 3600
    assert await history.by_hour(4) == {group.group: [2, 0, 1, 0]}
    await history.forget(["a", "b", "c", "d"])
    assert await history.by_hour(4) == {}
