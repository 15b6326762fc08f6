"""Results: values, endings, waiting; for asyncio code and for code without a loop."""

import asyncio

import pytest

from celeriac import (
    BackendError,
    Celeriac,
    CeleriacError,
    RemoteError,
    ResultMissing,
    ResultTimeout,
    TaskRevoked,
    as_completed,
)
from celeriac.wire.failure import Failure
from celeriac.wire.result import FAILURE, PENDING, REVOKED, STARTED, SUCCESS, ResultRecord


@pytest.fixture
def store(app):
    """Store a record as a worker would."""

    async def store(task_id, status=SUCCESS, result=None, **more):
        backend = app.connections().backend
        record = ResultRecord(task_id=task_id, status=status, result=result, **more)
        await backend.store(backend.encode(record))

    return store


class OwnError(Exception):
    pass


async def test_a_value(app, store):
    await store("i", result=[1, {"a": None}])
    assert await app.result("i") == [1, {"a": None}]


async def test_none_is_a_value(app, store):
    await store("i", result=None)
    assert await app.result("i").wait(timeout=1) is None


async def test_a_value_that_comes_later(app, store):
    waiting = [asyncio.ensure_future(app.result("i").wait(60)) for _ in range(3)]
    await asyncio.sleep(0)
    await store("i", result=5)
    assert await asyncio.gather(*waiting) == [5, 5, 5]


async def test_the_value_has_the_type_of_the_annotation(app, store):
    @app.task
    def pair() -> tuple[int, int]:
        return 1, 2

    result = await pair.send()
    await store(result.id, result=[1, 2])
    assert await result == (1, 2)


async def test_results_can_be_gathered_and_waited_for_by_asyncio(app, store):
    await store("a", result=1)
    await store("b", result=2)
    assert await asyncio.gather(app.result("a"), app.result("b")) == [1, 2]
    assert await asyncio.wait_for(app.result("a"), 1) == 1


async def test_the_tasks_own_exception(app, store):
    await store("i", FAILURE, Failure("OwnError", ["no", 1], __name__), traceback="Traceback: in the worker")
    with pytest.raises(OwnError) as raised:
        await app.result("i")
    assert raised.value.args == ("no", 1)
    assert raised.value.__notes__ == ["In the worker:\nTraceback: in the worker"]


async def test_an_exception_of_an_unknown_class(app, store):
    await store("i", FAILURE, Failure("Strange", ["no"], "not.imported"))
    with pytest.raises(RemoteError, match="Strange: no"):
        await app.result("i")


async def test_every_wait_raises_an_exception_of_its_own(app, store):
    await store("i", FAILURE, Failure("ValueError", ["no"], "builtins"), traceback="t")
    result = app.result("i")
    raised = []
    for _ in range(2):
        with pytest.raises(ValueError, match="no") as caught:
            await result
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert len(raised[1].__notes__) == 1


@pytest.mark.parametrize("stored", [Failure("TaskRevokedError", ["expired"], "celery.exceptions"), None])
async def test_revoked(app, store, stored):
    await store("i", REVOKED, stored)
    with pytest.raises(TaskRevoked):
        await app.result("i")


async def test_a_timeout_says_what_was_waited_for_how_long_and_what_was_seen(app, store):
    task = app.task(name="shop.pay")(lambda: None)
    result = await task.using(task_id="the-id").send()
    with pytest.raises(
        ResultTimeout, match=r"shop\.pay\[the-id\] was not ready within 0\.01 s: last seen PENDING; no worker"
    ):
        await result.wait(0.01)
    await store("the-id", STARTED, {"pid": 1})
    with pytest.raises(TimeoutError, match=r"within 0\.01 s: last seen STARTED$"):
        await result.wait(0.01)


async def test_no_time_at_all_is_one_look(app, store):
    with pytest.raises(ResultTimeout):
        await app.result("i").wait(0)
    await store("i", result=1)
    assert await app.result("i").wait(0) == 1


async def test_info_is_what_is_known_now(app, store):
    result = app.result("i")
    assert (await result.info()).status == PENDING
    await store("i", "PROGRESS", {"current": 1, "total": 2})
    assert (await result.info()).result == {"current": 1, "total": 2}
    await store("i", result=3)
    assert (await result.info()).ready


async def test_watching_ends_with_the_final_record(app, store):
    async def work():
        await store("i", "PROGRESS", {"current": 1})
        await store("i", result=3)

    worker = asyncio.create_task(work())
    seen = [record.status async for record in app.result("i").watch()]
    await worker
    assert seen[-1] == SUCCESS
    assert set(seen) <= {"PROGRESS", SUCCESS}


async def test_as_they_complete(app, store):
    results = [app.result(name) for name in "abc"]
    completed = as_completed([*results, results[0]])
    order = []
    for name in "cab":
        await store(name, result=name)
    async for result in completed:
        order.append(result.id)
        assert await result.wait(0) == result.id
    assert sorted(order) == ["a", "a", "b", "c"]


async def test_as_completed_of_none(app):
    assert [result async for result in as_completed([])] == []


async def test_as_completed_is_of_one_app(app):
    other = Celeriac("other", broker="memory://")
    with pytest.raises(ValueError, match="one app"):
        async for _ in as_completed([app.result("a"), other.result("b")]):
            pass


async def test_an_ignored_result_is_not_waited_for(app):
    task = app.task(ignore_result=True)(lambda: None)
    result = await task.send()
    for ask in (result.wait, result.info):
        with pytest.raises(ResultMissing, match="ignore_result=True"):
            await ask()
    kept = await task.using(ignore_result=False).send()
    with pytest.raises(ResultTimeout):
        await kept.wait(0.01)


async def test_without_a_backend_waiting_ends_at_once_with_a_hint():
    app = Celeriac("shop", broker="memory://", backend="disabled://")
    result = await app.send_task("any")
    with pytest.raises(ResultMissing, match=rf"{result.id}: the app has no backend; give it one"):
        await result
    with pytest.raises(ResultMissing):
        await result.info()


async def test_a_final_record_is_remembered_until_deleted(app, store):
    await store("i", result=1)
    result = app.result("i")
    await result
    await app.connections().backend.forget(["i"])
    assert await result.wait(0) == 1
    await store("i", result=1)
    await result.delete()
    assert (await result.info()).status == PENDING


async def test_children(app, store):
    await store(
        "i", result=1, children=[[["child", None], None], [["group", None], [[["x", None], None]]], [5, None]]
    )
    result = app.result("i")
    await result
    assert [child.id for child in result.children] == ["child", "group"]


async def test_a_store_that_stops_telling_is_an_error(app, store, monkeypatch):
    backend = app.connections().backend
    follow = backend.follow
    monkeypatch.setattr(backend, "follow", lambda ids: follow([]))
    with pytest.raises(BackendError, match="stopped telling"):
        await app.result("i").wait(5)


@pytest.mark.parametrize(
    "ask",
    [
        lambda result: result.get(),
        lambda result: result.get(timeout=1),
        lambda result: result.ready(),
        lambda result: result.successful(),
        lambda result: result.state,
        lambda result: result.children,
        lambda result: result.traceback,
        lambda result: result.forget(),
    ],
)
async def test_blocking_questions_are_refused_in_a_running_loop(app, ask):
    with pytest.raises(CeleriacError, match=r"would block the running event loop; use .*await result"):
        ask(app.result("i"))


async def test_what_is_known_can_be_asked_anywhere(app, store):
    await store("i", FAILURE, Failure("ValueError", ["no"], "builtins"), traceback="t")
    result = app.result("i")
    await result.info()
    assert (result.state, result.ready(), result.failed(), result.successful()) == (
        FAILURE,
        True,
        True,
        False,
    )
    assert result.traceback == "t"
    with pytest.raises(ValueError, match="no"):
        result.get()


def test_it_tells_which_call_it_is_of():
    app = Celeriac("shop", broker="memory://")
    assert str(app.result("i")) == "task[i]"
    assert repr(app.result("i")) == "<Result of task[i]>"
