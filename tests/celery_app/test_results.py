"""Results in stores that only Celery knows: by celeriac and by Celery's own client."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery import VERSION as CELERY
from celery import Celery
from sqlalchemy.exc import OperationalError

from celeriac.celery_app.results import CeleryResults
from celeriac.errors import BackendError, BackendUnavailable, EncodeError
from celeriac.wire.failure import Failure
from celeriac.wire.result import FAILURE, PENDING, SUCCESS, ResultRecord
from tests.celery_app.conftest import StartShop


def celery_app(backend: str, **conf: Any) -> Celery:
    app = Celery("results", backend=backend, broker="memory://", set_as_current=False)
    app.conf.update(conf)
    return app


@pytest.fixture(scope="module", params=["db", "file"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Celery:
    """A database with tables of its own names, and a directory."""
    place = tmp_path_factory.mktemp("results")
    names = {"task": "own_tasks", "group": "own_groups"}
    if request.param == "file":
        return celery_app(f"file://{place}")
    return celery_app(f"db+sqlite:///{place}/results.db", database_table_names=names)


@pytest.fixture
async def results(app: Celery) -> AsyncIterator[CeleryResults]:
    made = CeleryResults(app)
    yield made
    await made.close()


@pytest.fixture
def task_id() -> str:
    return str(uuid.uuid4())


async def store(results: CeleryResults, task_id: str, status: str, result: Any, **more: Any) -> None:
    await results.store(results.encode(ResultRecord(task_id=task_id, status=status, result=result, **more)))


async def test_what_celeriac_stores_celery_reads(results: CeleryResults, app: Celery, task_id: str) -> None:
    children = [[["child", None], None]]
    await store(results, task_id, SUCCESS, {"a": [1, "grüße"]}, children=children)
    assert app.AsyncResult(task_id).get(timeout=60) == {"a": [1, "grüße"]}
    [record, missing] = await results.load([task_id, "missing"])
    assert missing is None
    assert record is not None
    assert (record.task_id, record.status, record.result) == (task_id, SUCCESS, {"a": [1, "grüße"]})
    if not (
        CELERY < (5, 4) and app.conf.result_backend.startswith("db")
    ):  # whose tables had no column for them
        assert record.children == children
    assert record.date_done is not None
    await results.forget([task_id])
    assert app.AsyncResult(task_id).state == PENDING


async def test_failures(results: CeleryResults, app: Celery, task_id: str) -> None:
    failure = Failure("ValueError", ["boom", 2], "builtins")
    await store(results, task_id, FAILURE, failure, traceback="Traceback …")
    with pytest.raises(ValueError, match="boom"):
        app.AsyncResult(task_id).get(timeout=60)
    [record] = await results.load([task_id])
    assert record is not None
    assert (record.result, record.traceback) == (failure, "Traceback …")


async def test_states_are_followed_to_the_end(results: CeleryResults, app: Celery, task_id: str) -> None:
    ids = [task_id, f"{task_id}-2"]
    seen: list[tuple[str, str]] = []
    async with results.follow(ids) as records:
        app.backend.store_result(task_id, {"at": 1}, "PROGRESS")
        async with asyncio.timeout(60):
            async for record in records:
                seen.append((record.task_id, record.status))
                if record.status == "PROGRESS":
                    for name in ids:
                        await store(results, name, SUCCESS, 1)
    assert sorted(seen) == sorted([(task_id, "PROGRESS"), *((name, SUCCESS) for name in ids)])


async def test_what_cannot_be_written_is_said_before(results: CeleryResults, task_id: str) -> None:
    with pytest.raises(EncodeError, match="object"):
        results.encode(ResultRecord(task_id=task_id, status=SUCCESS, result=object()))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError("refused"), BackendUnavailable),
        (OperationalError("SELECT 1", {}, Exception("gone away")), BackendUnavailable),
        (ValueError("no such option"), BackendError),
    ],
)
async def test_an_outage_is_told_from_a_refusal(
    results: CeleryResults, error: Exception, kind: type[Exception]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(kind, match=type(error).__name__) as caught:
        await results.call(fail)
    assert type(caught.value) is kind


async def test_a_url_that_celery_cannot_read_is_shown_without_its_password() -> None:
    results = CeleryResults(celery_app("couchbase://me:S3CRET/x@nowhere/bucket"))

    def cannot_be_read() -> None:
        raise ValueError("Port could not be cast to integer value as 'S3CRET'")

    with pytest.raises(BackendError, match=r"couchbase://\*\*\*@nowhere/bucket: in user, password") as raised:
        await results.call(cannot_be_read)
    assert "S3CRET" not in str(raised.value)
    await results.close()


async def test_a_store_that_is_not_there() -> None:
    unknown = CeleryResults(celery_app("nonsense://host"))
    with pytest.raises(BackendError, match="nonsense"):
        await unknown.ping()
    await unknown.close()


@pytest.mark.parametrize("pool", ["processes", "threads"])
@pytest.mark.parametrize("store", ["db+sqlite", "file"])
def test_what_a_worker_stores_where_the_value_has_a_place_of_its_own(
    client: Any, start_shop: StartShop, tmp_path: Path, store: str, pool: str
) -> None:
    url = f"db+sqlite:///{tmp_path}/results" if store == "db+sqlite" else f"file://{tmp_path}"
    worker = start_shop("-P", pool, "-c", "1", backend=url)

    def stored(task_id: str) -> dict[str, Any]:
        worker.process.wait_for(f"[{task_id}] succeeded", timeout=60)
        deadline = time.monotonic() + 60
        while (found := look(task_id)) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert found is not None
        return found

    def look(task_id: str) -> dict[str, Any] | None:
        if store == "file":
            file = tmp_path / f"celery-task-meta-{task_id}"
            try:
                return json.loads(file.read_text())
            except (FileNotFoundError, ValueError):  # it is written at this moment
                return None
        with closing(sqlite3.connect(tmp_path / "results")) as database:
            query = "SELECT result, args, kwargs, children FROM celery_taskmeta WHERE task_id = ?"
            row = database.execute(query, [task_id]).fetchone()
        names = "result", "args", "kwargs", "children"
        return None if row is None else dict(zip(names, map(json.loads, row), strict=True))

    added = stored(client.add.delay(1, y=2).id)
    assert (added["result"], added["args"], added["kwargs"]) == (3, [1], {"y": 2})
    parent = stored(client.parent.delay().id)
    assert parent["children"] == [[[parent["result"], None], None]]
    worker.process.stop()
