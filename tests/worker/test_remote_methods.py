"""The methods of remote control that change how a worker works, and those that tell of it."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import celery
import pytest

from celeriac import Celeriac
from celeriac.errors import TaskRevoked
from celeriac.wire.result import REVOKED
from celeriac.worker import worker as worker_module
from celeriac.worker.panel import ALIASES, CONTROL, INSPECT
from tests.servers import RedisServer
from tests.worker import process_tasks

NODE = "ours@here"
PATIENCE = 60.0

Ask = Callable[..., Awaitable[Any]]


def asking(app: Celeriac) -> Ask:
    async def ask(method: str, **arguments: Any) -> Any:
        asked = await app.control.ask(method, arguments, destination=[NODE], timeout=PATIENCE)
        return asked.by_node[NODE]

    return ask


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Celeriac]:
    async with Celeriac("methods", f"sqlite:///{tmp_path}/tasks.db") as app:
        yield app


def test_no_method_of_celerys_panel_is_missing() -> None:
    from celery.worker.control import Panel

    assert set(Panel.data) - {"setup_logging"} <= {*INSPECT, *CONTROL, *ALIASES}


async def test_children_are_told_and_replaced_when_they_are_free(tmp_path: Path) -> None:
    app = process_tasks.app
    ask = asking(app)
    async with app, app.worker(pool="processes", concurrency=2, name=NODE):
        _, first = await (await process_tasks.square.send(7)).wait(PATIENCE)
        assert first in (await ask("stats"))["pool"]["processes"]
        busy = await process_tasks.meet.send(str(tmp_path), 2)
        async with asyncio.timeout(PATIENCE):
            while not os.listdir(tmp_path):  # noqa: ASYNC110, PTH208 - nobody tells
                await asyncio.sleep(0.01)
        (running,) = await ask("active")
        stats = await ask("stats")
        assert running["worker_pid"] in stats["pool"]["processes"]
        assert running["worker_pid"] != os.getpid()
        assert stats["pool"]["writes"]["inqueues"]["active"] == 1

        old = set(stats["pool"]["processes"])
        assert await ask("pool_restart", modules=None, reload=False, reloader=None) == {
            "ok": "reload started"
        }
        _, new = await (await process_tasks.square.send(7)).wait(PATIENCE)
        assert new not in old
        (tmp_path / "done").touch()
        assert await busy.wait(PATIENCE) == running["worker_pid"]
        again = {(await (await process_tasks.square.send(n)).wait(PATIENCE))[1] for n in range(4)}
        assert not again & old

        assert await ask("pool_grow", n=1) == {"ok": "pool will grow"}
        assert (await ask("stats"))["pool"]["max-concurrency"] == 3
        assert await ask("pool_shrink", n=2) == {"ok": "pool will shrink"}
        assert (await ask("stats"))["pool"]["max-concurrency"] == 1
        assert len((await ask("stats"))["pool"]["processes"]) == 1


async def test_it_scales_between_two_numbers(app: Celeriac) -> None:
    ask, running, go, most = asking(app), 0, asyncio.Event(), asyncio.Event()

    @app.task
    async def task() -> None:
        nonlocal running
        running += 1
        if running == 5:
            most.set()
        await go.wait()

    async with app.worker(concurrency=1, name=NODE) as worker:
        assert "autoscaler" not in await ask("stats")
        assert await ask("autoscale", max=5, min=2) == {"ok": "autoscale now max=5 min=2"}
        assert worker.concurrency == 2
        for method in ("pool_grow", "pool_shrink"):
            assert await ask(method, n=1) == {
                "error": f"{method} is not supported with autoscale. Adjust autoscale range instead."
            }
        for _ in range(9):
            await task.send()
        await asyncio.wait_for(most.wait(), PATIENCE)
        assert (await ask("stats"))["autoscaler"] == {"max": 5, "min": 2, "current": 5, "qty": 5}
        go.set()
        assert await ask("autoscale", max=3, min=1) == {"ok": "autoscale now max=3 min=1"}
        assert worker.concurrency == 3


async def test_what_has_a_stamp_is_revoked(own_redis: RedisServer) -> None:
    url, began, ended = own_redis.url(), asyncio.Event(), asyncio.Event()
    client = celery.Celery("client", broker=url, backend=url)
    async with Celeriac("stamps", url, url) as app:
        ask = asking(app)

        @app.task(name="task")
        async def task() -> None:
            began.set()
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                ended.set()

        def send(who: str, **options: Any) -> str:
            sent = client.send_task("task", stamped_headers=["who"], who=who, **options)
            return str(sent.id)

        async with app.worker(name=NODE, concurrency=1):
            parked = await asyncio.to_thread(send, "you", countdown=600)
            other = await asyncio.to_thread(send, "other", countdown=600)
            while len(await ask("scheduled")) < 2:
                pass
            running = await asyncio.to_thread(send, "me")
            await asyncio.wait_for(began.wait(), PATIENCE)
            waiting = await asyncio.to_thread(send, "you")
            assert await ask("revoke_by_stamped_headers", headers={"who": ["you"]}) == {
                "ok": "headers {'who': ['you']} flagged as revoked, but not terminated"
            }
            assert await ask("revoke_by_stamped_headers", headers=["who=nobody"], terminate=True) == {
                "ok": "headers {'who': 'nobody'} were not terminated"
            }
            assert await ask("revoke_by_stamped_headers", headers={"who": "me"}, terminate=True) == {
                "ok": "headers {'who': ['me']} revoked"
            }
            await asyncio.wait_for(ended.wait(), PATIENCE)
            for id in (running, waiting, parked):
                with pytest.raises(TaskRevoked):
                    await app.result(id).wait(PATIENCE)
            assert [entry["request"]["id"] for entry in await ask("scheduled")] == [other]
        # It is kept with the broker: a worker that starts later knows it.
        late = await asyncio.to_thread(send, "you")
        async with app.worker():
            with pytest.raises(TaskRevoked):
                await app.result(late).wait(PATIENCE)
    client.close()


async def test_it_takes_over_what_a_starting_worker_of_celery_has_revoked(app: Celeriac) -> None:
    ask, ran = asking(app), []

    @app.task
    async def task(number: int) -> None:
        ran.append(number)

    async with app.worker(name=NODE):
        for revoked in (["one", 5, None], {"two": 1.0}):
            told = await ask("hello", from_node="celery@other", revoked=revoked)
            assert set(told["revoked"]) >= {id for id in revoked if isinstance(id, str)}
        assert await ask("hello", from_node=NODE, revoked=["three"]) is None
        for number, id in enumerate(("one", "two", "three")):
            await task.using(task_id=id).send(number)
        await app.result("three").wait(PATIENCE)
        for id in ("one", "two"):
            with pytest.raises(TaskRevoked):
                await app.result(id).wait(PATIENCE)
    assert ran == [2]


async def test_what_was_taken_and_has_no_slot_is_reserved(app: Celeriac) -> None:
    ask, ended = asking(app), 0

    @app.task(ignore_result=True)
    async def task(number: int) -> None:
        nonlocal ended
        await asyncio.sleep(0.001)
        ended += 1

    await app.send_many([task.call(number) for number in range(5000)])
    async with app.worker(name=NODE, concurrency=1):
        found: list[dict[str, Any]] = []
        while not found and ended < 5000:
            found = await ask("reserved")
        assert found, "5,000 tasks ran one after another, and at no time was one held"
        assert (found[0]["type"], found[0]["time_start"], found[0]["worker_pid"]) == (task.name, None, None)
        await app.connections().broker.purge("celery")


async def test_large_answers_are_cut_and_counted(tmp_path: Path) -> None:
    async with Celeriac("methods", f"sqlite:///{tmp_path}/tasks.db", control_reply_limit=2000) as app:
        ask = asking(app)
        for number in range(200):
            app.task(name=f"task.{number:03}")(lambda: None)
        async with app.worker(name=NODE):
            names = await ask("registered")
            assert 10 < len(names) <= 100
            assert names[0] == "task.000"
            assert (await ask("stats"))["celeriac"]["control"]["cut"] == 200 - len(names)


async def test_the_process_is_described(app: Celeriac) -> None:
    ask = asking(app)
    async with app.worker(name=NODE):
        samples = [await ask("memsample") for _ in range(2)]
        assert all(sample.endswith("MB") and float(sample[:-2]) > 5 for sample in samples)
        dump = await ask("memdump")
        assert dump.splitlines()[:-1] == ["- rss (sample):", *(f"-    > {sample}," for sample in samples)]
        assert [line.split(":")[0] for line in (await ask("memdump")).splitlines()] == ["- rss (end)"]
        conf = await ask("conf")
        assert {"broker_url", "result_backend", "deprecated_settings", "include"} <= set(conf)
        await app.send_task("nobody knows this")
        while (stats := await ask("stats"))["celeriac"]["dead"] == 0:
            pass
        assert (stats["celeriac"]["dead"], stats["celeriac"]["refused"]) == (1, 1)
        assert 0 <= stats["celeriac"]["lag_ms"] < 10_000
        assert stats["pool"]["processes"] == [os.getpid()]
        assert stats["celeriac"]["control"]["answered"] >= 4
        assert stats["celeriac"]["loop"] in ("asyncio", "uvloop")


async def test_a_parked_message_is_declined_when_it_is_revoked(app: Celeriac) -> None:
    ask = asking(app)

    @app.task
    async def task() -> None: ...

    async with app.worker(name=NODE):
        parked = await task.using(countdown=600).send()
        while not await ask("scheduled"):
            pass
        # A client that has stored it already tells it so, and Celery's workers too.
        await parked.cancel()
        async with asyncio.timeout(PATIENCE):
            while await ask("scheduled"):
                pass
        assert (await parked.info()).status == REVOKED
        assert await app.connections().broker.schedule.count() == 0


async def test_it_answers_from_when_it_takes_messages(app: Celeriac, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's answers once its children are up, so that ``inspect ping`` serves as a probe."""
    prepare, begins, may_begin = worker_module._prepare, asyncio.Event(), asyncio.Event()

    async def prepare_later(*given: Any) -> None:
        begins.set()
        await may_begin.wait()
        await prepare(*given)

    monkeypatch.setattr(worker_module, "_prepare", prepare_later)
    worker = app.worker()
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(worker.__aenter__())
        await begins.wait()
        asked = await app.control.ask("ping", destination=[worker.name], timeout=0.3)
        assert asked.by_node == {}
        may_begin.set()
        await starting
        asked = await app.control.ask("ping", destination=[worker.name], timeout=PATIENCE)
        assert asked.by_node == {worker.name: {"ok": "pong"}}
        await worker.__aexit__(None, None, None)
