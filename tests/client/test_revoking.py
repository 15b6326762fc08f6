"""Tasks are taken back: nobody runs them, and who waits for them is told."""

import asyncio
import time

import pytest

from celeriac import Celeriac
from celeriac.errors import CeleriacError, ConfigError, TaskRevoked
from celeriac.wire.failure import Failure
from celeriac.wire.result import FAILURE, RETRY, REVOKED, STARTED, SUCCESS, ResultRecord
from tests.servers import RedisServer


async def store(app, task_id, status, result=None):
    backend = app.connections().backend
    await backend.store(
        backend.encode(ResultRecord(task_id=task_id, status=status, result=result, children=[]))
    )


@pytest.fixture(params=["redis", "sqlite"])
def apart(request, tmp_path, redis_server: RedisServer, unique):
    """An app whose broker and results outlive it."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/shop.db"
        return Celeriac("shop", broker=url, backend=url)
    url = f"{redis_server.url()}?global_keyprefix={unique('shop')}:"
    return Celeriac("shop", broker=url, backend=url)


async def test_one_that_no_worker_knows_ends_at_once(apart):
    async with apart as app:
        result = await app.send_task("shop.add", [1, 2])
        waiting = asyncio.create_task(result.wait(60))
        began = time.monotonic()
        await result.cancel()
        with pytest.raises(TaskRevoked, match="revoked"):
            await waiting
        assert time.monotonic() - began < 5
        assert (await app.result(result.id).info()).status == REVOKED
        assert (await app.connections().revocations.load()).ids == {result.id}


def test_the_same_for_code_without_a_loop(tmp_path):
    app = Celeriac("shop", broker=f"sqlite:///{tmp_path}/shop.db")
    result = app.delay("shop.add", 1, 2)
    result.revoke()
    assert app.result(result.id).state == REVOKED
    with pytest.raises(TaskRevoked):
        result.get(timeout=1)
    other = app.delay("shop.add", 3, 4)
    app.revoke(other.id)
    assert other.state == REVOKED


async def test_a_result_in_place_of_its_id_is_named(app):
    with pytest.raises(ConfigError, match=r"<Result of .*> is no task's id; give text, such as result\.id"):
        await app.cancel([app.result("one")])


async def test_revoke_does_not_block_a_running_loop(app):
    with pytest.raises(CeleriacError, match=r"await result.cancel\(\)"):
        app.result("one").revoke()


async def test_one_that_is_to_be_tried_again_keeps_its_record(app):
    await store(app, "one", RETRY, Failure("ValueError", ["boom"], "builtins"))
    await app.result("one").cancel()
    record = await app.result("one").info()
    assert (record.status, record.traceback, record.children) == (REVOKED, None, [])
    assert isinstance(record.result, Failure)
    assert (record.result.exc_type, record.result.exc_module) == ("TaskRevokedError", "celery.exceptions")


@pytest.mark.parametrize("state", [STARTED, SUCCESS, FAILURE, "PROGRESS"])
async def test_what_a_worker_has_or_had_is_left_to_it(app, state):
    await store(app, "one", state)
    await app.cancel("one")
    assert (await app.result("one").info()).status == state
    assert (await app.connections().revocations.load()).ids == {"one"}


async def test_a_workflow_by_its_root(app):
    await app.cancel(roots="flow", terminate=True)
    revoked = await app.connections().revocations.load()
    assert (revoked.ids, revoked.roots, revoked.terminate) == (set(), {"flow"}, {"flow"})
    assert await app.connections().backend.load(["flow"]) == [None]


async def test_many_at_once(app):
    results = await app.send_many([app.call("shop.add", [number]) for number in range(500)])
    await app.cancel([result.id for result in results])
    states = [record.status for result in results if (record := await result.info())]
    assert states == [REVOKED] * 500


async def test_how_long_it_is_kept(app):
    await app.cancel(["brief"], keep=0.01)
    async with asyncio.timeout(5):
        while True:
            if not (await app.connections().revocations.load()).ids:
                break
            await asyncio.sleep(0.01)


async def test_without_results_it_does_not_run_either(redis_server: RedisServer, unique):
    app = Celeriac("shop", broker=f"{redis_server.url()}?global_keyprefix={unique('shop')}:")
    async with app:
        await app.cancel(["one"])
        assert (await app.connections().revocations.load()).ids == {"one"}


async def test_a_revoked_task_does_not_run_in_a_worker_started_later(apart):
    ran = []

    @apart.task(name="shop.note")
    async def note(what: str) -> str:
        ran.append(what)
        return what

    async with apart as app:
        parked = await note.using(countdown=0.3).send("parked")
        queued = await note.send("queued")
        root = await note.using(root_id="flow").send("of the workflow")
        await app.cancel([parked.id, queued.id], roots=["flow"])
        kept = await note.send("kept")
        later = await note.using(countdown=0.5).send("last")
        async with app.worker(concurrency=2):
            assert await kept.wait(60) == "kept"
            with pytest.raises(TaskRevoked):
                await root.wait(60)
            assert await later.wait(60) == "last"
        assert ran == ["kept", "last"]
        assert (await parked.info()).status == (await queued.info()).status == REVOKED
