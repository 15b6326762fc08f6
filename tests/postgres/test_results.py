"""What the PostgreSQL result store shares with Celery's own: read both ways, by the real Celery, and from captures."""

import asyncio
import json
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import celery
import pytest
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult
from celery.signals import setup_logging

from celeriac.clock import SystemClock
from celeriac.errors import BackendError, BackendUnavailable, ContentRefused, MalformedMessage
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.servers.postgres.url import parse_postgres_url
from celeriac.wire.content import Codecs
from celeriac.wire.failure import Failure
from celeriac.wire.result import FAILURE, RETRY, REVOKED, STARTED, SUCCESS, ResultRecord
from tests.servers import PostgresServer

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def backend(open_results) -> PostgresBackend:
    return open_results()


@pytest.fixture(params=["UTC", "Asia/Tokyo"])
def zone(request, postgres_server: PostgresServer) -> Iterator[str]:
    """The time zone of the sessions of new connections of role postgres."""
    with postgres_server.client() as connection:
        connection.execute(f"ALTER ROLE postgres SET timezone = '{request.param}'")
        yield request.param
        connection.execute("ALTER ROLE postgres RESET timezone")


@contextmanager
def celery_app(server: PostgresServer, schema: str, **settings) -> Iterator[celery.Celery]:
    url = server.url(scheme="db+postgresql+psycopg") + f"?options=-csearch_path%3D{schema}"
    app = celery.Celery("shop", broker="memory://", backend=url, set_as_current=False)
    app.conf.update(settings)
    yield app
    app.backend.ResultSession().get_bind().dispose()


@pytest.fixture
def app(postgres_server, postgres_schema) -> Iterator[celery.Celery]:
    with celery_app(postgres_server, postgres_schema) as app:
        yield app


async def store(backend, task_id, status, result=None, **fields):
    await backend.store(backend.encode(ResultRecord(task_id=task_id, status=status, result=result, **fields)))


async def load(backend, task_id):
    (record,) = await backend.load([task_id])
    return record


def capture(server: PostgresServer, schema: str, name: str) -> None:
    """Make the tables and rows that were captured from Celery."""
    raw = json.loads((FIXTURES / name).read_text())["raw"]
    with server.client(schema) as connection:
        for statement in raw["ddl"]:
            connection.execute(statement)
        for table, rows in raw["rows"].items():
            for row in rows:
                values = [bytes.fromhex(v["$hex"]) if isinstance(v, dict) else v for v in row.values()]
                connection.execute(
                    f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})", values
                )


class TestCaptures:
    @pytest.mark.parametrize("kind", ["json", "json.extended", "pickle", "pickle.extended"])
    async def test_every_row_of_celery_is_read_without_accepting_pickle(
        self, postgres_server, postgres_schema, backend, kind
    ):
        capture(postgres_server, postgres_schema, f"db.postgresql.{kind}.json")
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
        assert fail.traceback.startswith("Traceback")
        assert retry.date_done is None
        if kind.endswith("extended"):
            assert (ok.name, ok.args, ok.kwargs) == ("tasks.add", [2, 3], {"k": 1})
            assert (ok.worker, ok.retries, ok.queue, ok.stamps) == ("celery@host", 0, "celery", {"s": "v"})

    async def test_our_tables_are_celerys(self, postgres_server, postgres_schema, backend):
        def schema():
            with postgres_server.client(postgres_schema) as connection:
                columns = connection.execute(
                    "SELECT table_name, column_name, data_type, character_maximum_length, column_default, is_nullable"
                    " FROM information_schema.columns WHERE table_schema = %s AND table_name LIKE 'celery_%%'"
                    " ORDER BY table_name, ordinal_position",
                    (postgres_schema,),
                ).fetchall()
                indexes = connection.execute(
                    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = %s AND tablename LIKE 'celery_%%'"
                    " ORDER BY 1",
                    (postgres_schema,),
                ).fetchall()
                sequences = connection.execute(
                    "SELECT sequencename, data_type, start_value, last_value FROM pg_sequences WHERE schemaname = %s"
                    " ORDER BY 1",
                    (postgres_schema,),
                ).fetchall()
            return columns, indexes, sequences

        await backend.ping()
        ours = schema()
        with postgres_server.client(postgres_schema) as connection:
            connection.execute(
                "DROP TABLE celery_taskmeta, celery_tasksetmeta; DROP SEQUENCE task_id_sequence, taskset_id_sequence"
            )
        raw = json.loads((FIXTURES / "db.postgresql.json.json").read_text())["raw"]
        with postgres_server.client(postgres_schema) as connection:
            for statement in raw["ddl"]:
                connection.execute(statement)
        assert schema() == ours


@contextmanager
def logging_is_set_up() -> Iterator[None]:
    """Celery's worker sets up the logging of its process, here pytest's, unless somebody else did."""

    def done(**_: object) -> None:
        pass

    setup_logging.connect(done)
    try:
        yield
    finally:
        setup_logging.disconnect(done)


class TestWithCelery:
    async def test_celery_reads_what_we_stored(self, zone, app, backend):
        await store(backend, "ok", SUCCESS, {"a": [1, None, "hé"]}, children=[])
        await store(
            backend, "fail", FAILURE, Failure("ValueError", ["boom", 2], "builtins"), traceback="Traceback"
        )
        await store(backend, "again", RETRY, Failure("KeyError", ["k"], "builtins"))
        await store(backend, "step", "PROGRESS", {"current": 3})

        def read():
            assert AsyncResult("ok", app=app).get(timeout=60) == {"a": [1, None, "hé"]}
            assert AsyncResult("step", app=app).info == {"current": 3}
            assert AsyncResult("again", app=app).state == RETRY
            failed = AsyncResult("fail", app=app)
            with pytest.raises(ValueError, match="boom"):
                failed.get(timeout=60)
            assert failed.traceback == "Traceback"

        await asyncio.to_thread(read)
        age = datetime.now(UTC) - (await load(backend, "fail")).date_done
        assert timedelta(minutes=-1) < age < timedelta(minutes=1)

    @pytest.mark.parametrize("zone", ["Asia/Tokyo"], indirect=True)
    async def test_we_read_what_a_celery_worker_stored(self, zone, app, backend):
        app.conf.task_track_started = True

        @app.task(name="ok", bind=True, shared=False)
        def ok(self):
            self.update_state(state="PROGRESS", meta={"current": 1})
            return [1, None, "hé"]

        @app.task(name="fail", shared=False)
        def fail():
            raise KeyError("k")

        @app.task(name="again", bind=True, shared=False)
        def again(self):
            raise self.retry(exc=ValueError("later"), countdown=3600)

        @app.task(name="parent", bind=True, shared=False)
        def parent(self):
            return ok.delay().id

        def work() -> list[str]:
            with (
                logging_is_set_up(),
                start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30),
            ):
                results = [task.delay() for task in (ok, fail, parent)]
                for result in results:
                    result.get(timeout=60, propagate=False, interval=0.02)
                retried = again.delay()
                while AsyncResult(retried.id, app=app).state != RETRY:
                    pass
                return [result.id for result in [*results, retried]]

        ids = await asyncio.to_thread(work)
        done, failed, with_child, retried = await backend.load(ids)
        assert (done.status, done.result) == (SUCCESS, [1, None, "hé"])
        assert (failed.status, failed.result) == (FAILURE, Failure("KeyError", ["k"], "builtins"))
        assert "raise KeyError" in failed.traceback
        assert with_child.children[0][0][0] == with_child.result
        assert (retried.status, retried.result) == (RETRY, Failure("ValueError", ["later"], "builtins"))
        age = datetime.now(UTC) - done.date_done
        assert timedelta(minutes=-1) < age < timedelta(minutes=1)

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

    async def test_extended_records_are_celerys(self, postgres_server, postgres_schema, open_results):
        await store(
            open_results(extended=True), "one", SUCCESS, 1, name="t", args=[2], kwargs={"k": 3}, worker="w",
            retries=1, queue="q", stamps={"s": "v"},
        )  # fmt: skip
        with celery_app(postgres_server, postgres_schema, result_extended=True) as app:
            meta = await asyncio.to_thread(app.backend.get_task_meta, "one")
        wanted = {"name": "t", "args": [2], "kwargs": {"k": 3}, "worker": "w", "retries": 1, "queue": "q"}
        assert {key: meta[key] for key in wanted} == wanted
        assert (meta["stamped_headers"], meta["s"]) == (["s"], "v")

    async def test_cleaning_up_deletes_the_same_rows_by_either(self, zone, app, open_results):
        now = datetime.now(UTC)
        keeper = open_results(expires=None)
        app.conf.result_expires = 3600
        await store(keeper, "celery-half", SUCCESS, date_done=now - timedelta(minutes=30))
        await store(keeper, "celery-old", SUCCESS, date_done=now - timedelta(minutes=90))
        if zone == "UTC":  # elsewhere Celery itself deletes hours too early or too late
            await asyncio.to_thread(app.backend.cleanup)
            assert [r is None for r in await keeper.load(["celery-half", "celery-old"])] == [False, True]
        await store(keeper, "half", SUCCESS, date_done=now - timedelta(minutes=30))
        await store(keeper, "old", SUCCESS, date_done=now - timedelta(minutes=90))
        cleaner = open_results(expires=3600.0)
        await store(cleaner, "new", SUCCESS)
        async with asyncio.timeout(60):
            await cleaner._cleanup._running
        assert await load(keeper, "half") is not None


class TestTables:
    async def test_columns_that_an_old_celery_did_not_make_are_added(
        self, postgres_server, postgres_schema, backend
    ):
        with postgres_server.client(postgres_schema) as connection:
            connection.execute(
                "CREATE SEQUENCE task_id_sequence;"
                "CREATE TABLE celery_taskmeta (id INTEGER NOT NULL PRIMARY KEY, task_id VARCHAR(155) UNIQUE,"
                " status VARCHAR(50), result BYTEA, date_done TIMESTAMP, traceback TEXT)"
            )
            connection.execute(
                "INSERT INTO celery_taskmeta (id, task_id, status, result)"
                " VALUES (nextval('task_id_sequence'), 'old', 'SUCCESS', %s)",
                (pickle.dumps([1, "two"], protocol=2),),
            )
        await store(backend, "new", SUCCESS, 1, children=[])
        old, new = await backend.load(["old", "new"])
        assert (old.result, new.result, new.children) == ([1, "two"], 1, [])

    async def test_a_role_that_may_make_none_is_told_how(self, open_results):
        with pytest.raises(BackendError, match=r"role 'guest' may not .* `celeriac migrate`"):
            await store(open_results("guest"), "one", SUCCESS)

    async def test_ten_who_begin_at_once_make_them_once(self, open_results):
        backends = [open_results() for _ in range(10)]
        await asyncio.gather(
            *[store(backend, f"n{number}", SUCCESS) for number, backend in enumerate(backends)]
        )
        assert None not in await backends[0].load([f"n{number}" for number in range(10)])

    async def test_pickled_objects_are_never_made(self, backend, postgres_server, postgres_schema, tmp_path):
        class Bomb:
            def __reduce__(self):
                return Path.touch, (tmp_path / "exploded",)

        await backend.ping()
        self.insert(postgres_server, postgres_schema, "bomb", pickle.dumps([Bomb()]))
        self.insert(postgres_server, postgres_schema, "junk", b"\x80\x04junk")
        for task_id, error in [("bomb", ContentRefused), ("junk", MalformedMessage)]:
            with pytest.raises(error):
                await backend.load([task_id])
        assert not (tmp_path / "exploded").exists()

    async def test_pickle_is_read_where_it_is_accepted(self, open_results, postgres_server, postgres_schema):
        trusting = open_results(codecs=Codecs(["json", "pickle"]))
        moment = datetime.now(UTC)
        await trusting.ping()
        self.insert(postgres_server, postgres_schema, "date", pickle.dumps([moment]))
        assert (await load(trusting, "date")).result == [moment]

    def insert(self, server, schema, task_id, result):
        with server.client(schema) as connection:
            connection.execute(
                "INSERT INTO celery_taskmeta (id, task_id, status, result)"
                " VALUES (nextval('task_id_sequence'), %s, 'SUCCESS', %s)",
                (task_id, result),
            )


class TestOddValues:
    async def test_what_has_no_room_is_refused_alone(self, backend):
        for task_id, status in [
            ("x" * 156, SUCCESS),
            ("nul\0", SUCCESS),
            ("one", "S" * 51),
            ("\ud800", SUCCESS),
        ]:
            with pytest.raises(BackendError):
                await store(backend, task_id, status)
        await store(
            backend, "one", SUCCESS, traceback="\0 \ud800", name="n" * 500, worker="w\0", retries=2**40
        )
        assert (await load(backend, "one")).status == SUCCESS

    async def test_a_time_that_python_has_not_is_none(self, backend, postgres_server, postgres_schema):
        await store(backend, "one", SUCCESS)
        with postgres_server.client(postgres_schema) as connection:
            for moment in ("infinity", "-infinity", "99999-01-01", "0044-03-15 BC"):
                connection.execute("UPDATE celery_taskmeta SET date_done = %s::timestamp", (moment,))
                assert (await load(backend, "one")).date_done is None

    async def test_ids_that_run_out_are_told_of(self, backend, postgres_server, postgres_schema):
        await store(backend, "one", SUCCESS)
        with postgres_server.client(postgres_schema) as connection:
            connection.execute("SELECT setval('task_id_sequence', 1500000000)")
            [finding] = await backend.examine()
            assert "bigint" in finding.fix
            connection.execute(finding.fix.partition(";")[0])
        await store(backend, "two", SUCCESS)
        assert list(await backend.examine()) == []


class TestOutages:
    async def test_an_outage_is_worth_another_try(self, open_results):
        backend = open_results()
        await backend.ping()
        backend.connections.target = parse_postgres_url("postgresql://postgres@127.0.0.1:1/postgres")
        await drop_idle(backend)
        with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1"):
            await store(backend, "one", SUCCESS)

    async def test_a_wait_outlasts_the_end_of_every_connection(
        self, open_results, postgres_server, postgres_schema
    ):
        waiting, storing = open_results(), open_results()
        async with waiting.follow(["one"]) as records, asyncio.timeout(60):
            end_connections(postgres_server)
            await asyncio.sleep(0)
            while True:
                try:
                    await store(storing, "one", SUCCESS, 1)
                    break
                except BackendUnavailable:
                    pass
            assert [record.result async for record in records] == [1]

    async def test_a_store_that_began_before_the_wait_ends_it_soon(
        self, open_results, postgres_server, postgres_schema
    ):
        """It knows of no waiter, and is not seen yet: its commit is on its way to the disk."""
        await store(open_results(), "other", SUCCESS, 1)
        times: list[float] = []
        for trial in range(3):
            task_id = f"{trial}"
            with postgres_server.client(postgres_schema) as connection:
                connection.execute("BEGIN")
                connection.execute(
                    "INSERT INTO celery_taskmeta (id, task_id, status, result)"
                    " SELECT nextval('task_id_sequence'), %s, status, result FROM celery_taskmeta"
                    " WHERE task_id = 'other'",
                    (task_id,),
                )
                async with open_results().follow([task_id]) as records, asyncio.timeout(60):
                    began = time.perf_counter()
                    connection.execute("COMMIT")
                    assert [record.result async for record in records] == [1]
                    times.append(time.perf_counter() - began)
        assert min(times) < 0.3, times  # else it is seen after half a second, as what Celery stored

    async def test_a_look_that_failed_late_is_made_again_soon(
        self, app, open_results, postgres_server, postgres_schema
    ):
        """As where a connection hangs: the look fails after half a minute, and nobody tells of the result."""
        clock = Jumping()
        backend = open_results(clock=clock)
        async with backend.follow(["one"]) as records, asyncio.timeout(60):
            with postgres_server.client(postgres_schema) as connection, connection.transaction():
                connection.execute("LOCK TABLE celery_taskmeta IN ACCESS EXCLUSIVE MODE")
                while not (blocked := blocked_by(connection)):  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)
                clock.ahead += 1000
                for pid, _ in blocked:
                    connection.execute("SELECT pg_cancel_backend(%s)", [pid])
                while blocked & blocked_by(connection):  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(app.backend.store_result, "one", 42, SUCCESS)
            assert [record.result async for record in records] == [42]


class Jumping(SystemClock):
    """A clock that time passes on when it is told."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def blocked_by(connection) -> set:
    """The statements that wait for a lock of this connection: process, and when it began."""
    query = "SELECT pid, query_start FROM pg_stat_activity WHERE %s::int = ANY(pg_blocking_pids(pid))"
    return set(connection.execute(query, [connection.info.backend_pid]).fetchall())


async def drop_idle(backend):
    for connection in backend.connections._idle:
        await connection.close()


def end_connections(server: PostgresServer) -> None:
    """Let the server end every connection of celeriac's."""
    with server.client() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'celeriac%'"
        )
