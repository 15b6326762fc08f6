"""What the SQL result store shares with Celery's own: read both ways, with the real Celery, and from captures."""

import asyncio
import json
import pickle
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import celery
import pytest
from celery.result import AsyncResult

from celeriac.errors import BackendUnavailable, ConfigError, ContentRefused, MalformedMessage
from celeriac.servers.sqlite import SqlBackend
from celeriac.servers.sqlite.limits import FileLimits
from celeriac.wire.content import Codecs
from celeriac.wire.failure import Failure
from celeriac.wire.result import FAILURE, RETRY, REVOKED, STARTED, SUCCESS, ResultRecord

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
async def backend(file) -> AsyncIterator[SqlBackend]:
    backend = SqlBackend(f"sqlite:///{file}", Codecs())
    yield backend
    await backend.close()


@pytest.fixture
def app(file):
    app = celery.Celery("shop", backend=f"db+sqlite:///{file}", set_as_current=False)
    yield app
    app.backend.ResultSession().get_bind().dispose()


async def store(backend, task_id, status, result=None, **fields):
    await backend.store(backend.encode(ResultRecord(task_id=task_id, status=status, result=result, **fields)))


async def load(backend, task_id):
    (record,) = await backend.load([task_id])
    return record


def capture(file: Path, name: str) -> None:
    """Make the tables and rows that were captured from Celery."""
    raw = json.loads((FIXTURES / name).read_text())["raw"]
    connection = sqlite3.connect(file)
    with connection:
        for statement in raw["ddl"]:
            connection.execute(statement)
        for table, rows in raw["rows"].items():
            for row in rows:
                values = [bytes.fromhex(v["$hex"]) if isinstance(v, dict) else v for v in row.values()]
                connection.execute(
                    f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", values
                )
    connection.close()


class TestCaptures:
    @pytest.mark.parametrize("kind", ["json", "json.extended", "pickle", "pickle.extended"])
    async def test_every_row_of_celery_is_read_without_accepting_pickle(self, file, backend, kind):
        capture(file, f"db.sqlite.{kind}.json")
        names = ["ok", "fail", "retry", "started", "progress", "revoked", "null"]
        ids = [f"{number:08}-{name}" for number, name in enumerate(names, 1)]
        assert [(record.status, record.result) for record in await backend.load(ids)] == [
            (SUCCESS, {"a": [1, None, "hé"]}),
            (FAILURE, Failure("ValueError", ["boom", 2], "builtins")),
            (RETRY, Failure("KeyError", ["k"], "builtins")),
            (STARTED, {"pid": 1, "hostname": "celery@host"}),
            ("PROGRESS", {"done": 1}),
            (REVOKED, Failure("TaskRevokedError", ["revoked"], "celery.exceptions")),
            (SUCCESS, None),
        ]
        ok, fail, retry = await backend.load(ids[:3])
        assert ok.date_done.tzinfo is UTC
        assert ok.date_done.date().isoformat() == "2026-11-22"
        assert fail.traceback.startswith("Traceback")
        assert retry.date_done is None
        if kind.endswith("extended"):
            assert (ok.name, ok.args, ok.kwargs) == ("tasks.add", [2, 3], {"k": 1})
            assert (ok.worker, ok.retries, ok.queue, ok.stamps) == ("celery@host", 0, "celery", {"s": "v"})

    async def test_our_tables_are_celerys(self, file, backend, tmp_path):
        await backend.ping()
        capture(tmp_path / "celerys.db", "db.sqlite.json.json")

        def schema(path):
            connection = sqlite3.connect(path)
            columns = {
                table: connection.execute(f"SELECT name, type FROM pragma_table_info('{table}')").fetchall()
                for table in ("celery_taskmeta", "celery_tasksetmeta")
            }
            indexes = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '%ON celery_%'"
            ).fetchall()
            connection.close()
            return columns, sorted(indexes)

        assert schema(file) == schema(tmp_path / "celerys.db")


class TestWithCelery:
    async def test_celery_reads_what_we_stored(self, app, backend):
        await store(backend, "ok", SUCCESS, {"a": [1, None, "hé"]}, children=[])
        await store(
            backend, "fail", FAILURE, Failure("ValueError", ["boom", 2], "builtins"), traceback="Traceback"
        )
        await store(backend, "step", "PROGRESS", {"current": 3})

        def read():
            assert AsyncResult("ok", app=app).get(timeout=60) == {"a": [1, None, "hé"]}
            assert AsyncResult("step", app=app).info == {"current": 3}
            failed = AsyncResult("fail", app=app)
            with pytest.raises(ValueError, match="boom"):
                failed.get(timeout=60)
            assert failed.traceback == "Traceback"
            age = datetime.now(UTC) - failed.date_done.replace(tzinfo=UTC)
            assert timedelta(0) <= age < timedelta(minutes=1)

        await asyncio.to_thread(read)

    async def test_we_read_what_celery_stored(self, app, backend):
        await asyncio.to_thread(app.backend.store_result, "ok", [1, None, "hé"], SUCCESS)
        await asyncio.to_thread(
            app.backend.store_result, "fail", KeyError("k"), FAILURE, traceback="Traceback"
        )
        ok, fail = await backend.load(["ok", "fail"])
        assert (ok.status, ok.result) == (SUCCESS, [1, None, "hé"])
        assert (fail.result, fail.traceback) == (Failure("KeyError", ["k"], "builtins"), "Traceback")

    async def test_what_celery_stores_ends_a_wait(self, app, backend):
        async with backend.follow(["one"]) as records, asyncio.timeout(60):
            await asyncio.to_thread(app.backend.store_result, "one", {"done": 1}, "PROGRESS")
            assert (await anext(records)).result == {"done": 1}
            await asyncio.to_thread(app.backend.store_result, "one", 42, SUCCESS)
            assert [record.result async for record in records] == [42]

    async def test_neither_overwrites_the_others_success(self, app, backend):
        await store(backend, "ours", SUCCESS, 1)
        await asyncio.to_thread(app.backend.store_result, "ours", None, STARTED)
        await asyncio.to_thread(app.backend.store_result, "theirs", 2, SUCCESS)
        await store(backend, "theirs", STARTED)
        assert [(r.status, r.result) for r in await backend.load(["ours", "theirs"])] == [
            (SUCCESS, 1),
            (SUCCESS, 2),
        ]

    async def test_extended_records_are_celerys(self, file):
        app = celery.Celery("shop", backend=f"db+sqlite:///{file}", set_as_current=False)
        app.conf.result_extended = True
        backend = SqlBackend(f"sqlite:///{file}", Codecs(), extended=True)
        await store(
            backend, "one", SUCCESS, 1, name="t", args=[2], kwargs={"k": 3}, worker="w", retries=1, queue="q",
            stamps={"s": "v"},
        )  # fmt: skip
        await backend.close()
        meta = await asyncio.to_thread(app.backend.get_task_meta, "one")
        wanted = {"name": "t", "args": [2], "kwargs": {"k": 3}, "worker": "w", "retries": 1, "queue": "q"}
        assert {key: meta[key] for key in wanted} == wanted
        assert (meta["stamped_headers"], meta["s"]) == (["s"], "v")
        app.backend.ResultSession().get_bind().dispose()


class TestOldTables:
    async def test_results_of_one_batch_keep_their_values_and_their_order(self, file):
        backend = SqlBackend(f"sqlite:///{file}", Codecs(), extended=True)
        try:
            ids = [f"task {number}" for number in range(87)]  # one statement of each number of rows
            await asyncio.gather(*(store(backend, own, SUCCESS, own, retries=1) for own in ids))
            again = [(own, FAILURE) for own in ids[:20]] + [("late", STARTED), ("late", SUCCESS)]
            await asyncio.gather(*(store(backend, own, status, "again") for own, status in again))
            records = await backend.load([*ids, "late"])
        finally:
            await backend.close()
        assert [record.result for record in records] == [*ids, "again"]
        assert {record.status for record in records} == {SUCCESS}

    async def test_a_count_of_retries_that_sqlite_has_no_integer_for_is_kept_roughly(self, file):
        backend = SqlBackend(f"sqlite:///{file}", Codecs(), extended=True)
        try:
            await store(backend, "often", SUCCESS, 1, retries=10**30)
            record = await load(backend, "often")
        finally:
            await backend.close()
        assert (record.result, record.retries) == (1, pytest.approx(10**30))

    async def test_columns_that_an_old_celery_did_not_make_are_added(self, file, backend):
        connection = sqlite3.connect(file)
        with connection:
            connection.execute(
                "CREATE TABLE celery_taskmeta (id INTEGER NOT NULL PRIMARY KEY, task_id VARCHAR(155) UNIQUE,"
                " status VARCHAR(50), result BLOB, date_done DATETIME, traceback TEXT)"
            )
            connection.execute(
                "INSERT INTO celery_taskmeta (task_id, status, result) VALUES ('old', 'SUCCESS', ?)",
                (pickle.dumps([1, "two"], protocol=2),),
            )
        connection.close()
        await store(backend, "new", SUCCESS, 1, children=[])
        old, new = await backend.load(["old", "new"])
        assert (old.result, new.result, new.children) == ([1, "two"], 1, [])

    async def test_pickled_objects_are_never_made(self, file, backend):
        class Bomb:
            def __reduce__(self):
                return Path.touch, (file.with_name("exploded"),)

        await self.insert(file, backend, "bomb", SUCCESS, pickle.dumps([Bomb()]))
        await self.insert(file, backend, "date", SUCCESS, pickle.dumps([datetime.now(UTC)]))
        await self.insert(file, backend, "junk", SUCCESS, b"\x80\x04junk")
        for task_id, error in [
            ("bomb", ContentRefused),
            ("date", ContentRefused),
            ("junk", MalformedMessage),
        ]:
            with pytest.raises(error):
                await backend.load([task_id])
        assert not file.with_name("exploded").exists()

    async def test_what_cannot_be_read_fails_its_own_follower_alone(self, file, backend):
        async with backend.follow(["bad"]) as bad, backend.follow(["good"]) as good, asyncio.timeout(60):
            await self.insert(file, backend, "bad", SUCCESS, b"{")
            await store(backend, "good", SUCCESS, 1)
            assert [record.result async for record in good] == [1]
            with pytest.raises(MalformedMessage):
                await anext(bad)

    async def test_pickle_is_read_where_it_is_accepted(self, file, backend):
        trusting = SqlBackend(f"sqlite:///{file}", Codecs(["json", "pickle"]))
        moment = datetime.now(UTC)
        await self.insert(file, backend, "date", SUCCESS, pickle.dumps([moment]))
        assert (await load(trusting, "date")).result == [moment]
        await trusting.close()

    async def insert(self, file, backend, task_id, status, result):
        await backend.ping()
        connection = sqlite3.connect(file)
        with connection:
            connection.execute(
                "INSERT INTO celery_taskmeta (task_id, status, result) VALUES (?, ?, ?)",
                (task_id, status, result),
            )
        connection.close()


class TestKeeping:
    async def test_expired_results_are_deleted_now_and_then(self, file, backend):
        keeper = SqlBackend(f"sqlite:///{file}", Codecs(), expires=None)
        long_ago = datetime.now(UTC) - timedelta(days=2)
        await store(keeper, "old", SUCCESS, date_done=long_ago)
        await store(keeper, "young", SUCCESS)
        assert await load(keeper, "old") is not None
        await store(backend, "new", SUCCESS)
        kept = await keeper.load(["old", "young", "new"])
        assert [record is None for record in kept] == [True, False, False]
        await keeper.close()

    async def test_nobody_is_poked_once_nobody_follows(self, file, backend):
        other = SqlBackend(f"sqlite:///{file}", Codecs())
        for _ in range(2):
            async with backend.follow(["one"]) as records, asyncio.timeout(60):
                await store(other, "one", SUCCESS, 1)
                assert [record.result async for record in records] == [1]
            watch = backend._watch
            await asyncio.wait([watch], timeout=60)
            assert watch.done()
            connection = sqlite3.connect(file)
            assert connection.execute("SELECT * FROM celeriac_listener").fetchall() == []
            connection.close()
            await other.forget(["one"])
        await other.close()

    async def test_a_locked_file_is_worth_another_try(self, file):
        backend = SqlBackend(f"sqlite:///{file}", Codecs(), limits=FileLimits(busy=0.05))
        await backend.ping()
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailable, match=r"shop\.db.*lock"):
            await store(backend, "one", SUCCESS)
        other.execute("ROLLBACK")
        other.close()
        await store(backend, "one", SUCCESS)
        assert (await load(backend, "one")).status == SUCCESS
        await backend.close()

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "no url", ""])
    def test_urls_that_name_no_file(self, url):
        with pytest.raises(ConfigError, match="sqlite:///"):
            SqlBackend(url, Codecs())
