"""An asyncio program sends the tasks of a Celery app without blocking its loop, by Celery's own code."""

import asyncio
from typing import Any

import pytest
from celery import Celery, signals
from kombu.exceptions import OperationalError
from pydantic import BaseModel

from tests.celery_app.conftest import WITH_PYDANTIC
from tests.celery_connections import disconnect
from tests.servers import RedisServer
from tests.servers.redis import free_port

ASYNC = "celeriac.celery_app.async_task:AsyncTask"


class Model(BaseModel):
    x: int


def app_at(url: str, queue: str) -> tuple[Celery, Any]:
    app = Celery("web", broker=url, set_as_current=False, task_cls=ASYNC)
    app.conf.task_default_queue = queue

    @app.task(shared=False, name=f"add-{queue}")
    def add(x: int, y: int) -> int:
        return x + y

    return app, add


async def test_it_sends_as_celery_does(redis_server: RedisServer, queue: str):
    (app, add), seen = app_at(redis_server.url(), queue), []

    @signals.before_task_publish.connect(weak=False, dispatch_uid=queue)
    def look(sender: str, body: object, headers: dict, **_: object) -> None:
        seen.append((sender, headers["argsrepr"], headers["kwargsrepr"], headers["id"]))

    try:
        first = await add.asend(1, y=2)
        second = await add.aapply_async((3, 4), task_id="given")
    finally:
        signals.before_task_publish.disconnect(dispatch_uid=queue)
        disconnect(app)
    assert seen == [(add.name, "(1,)", "{'y': 2}", first.id), (add.name, "(3, 4)", "{}", second.id)]
    assert second.id == "given"
    with redis_server.client() as client:
        assert client.llen(queue) == 2


async def test_the_loop_goes_on_while_the_broker_is_away(queue: str):
    app, add = app_at(f"redis://127.0.0.1:{free_port()}", queue)
    app.conf.task_publish_retry_policy = {"max_retries": 2, "interval_start": 0.1}
    sending = asyncio.create_task(add.asend(1, 2))
    turns = 0
    while not sending.done():
        turns += 1
        await asyncio.sleep(0.005)
    with pytest.raises(OperationalError):
        await sending
    assert turns > 10
    disconnect(app)


def test_a_coroutine_that_is_applied_gives_its_value():
    app = Celery("web", broker="memory://", set_as_current=False, task_cls=ASYNC)
    app.conf.task_always_eager = True

    @app.task(shared=False, bind=True, autoretry_for=(LookupError,), max_retries=1, default_retry_delay=0)
    async def double(self: Any, x: int) -> list[Any]:
        await asyncio.sleep(0)
        if not self.request.retries:
            raise LookupError
        return [x * 2, self.request.id]

    result = double.delay(2)
    assert (result.state, result.get()) == ("SUCCESS", [4, result.id])
    called = double(2)
    assert asyncio.iscoroutine(called)  # a function that is called stays what it is
    called.close()


@WITH_PYDANTIC
def test_a_coroutine_with_models_that_is_applied():
    app = Celery("web", broker="memory://", set_as_current=False, task_cls=ASYNC)

    @app.task(shared=False, pydantic=True)
    async def model(x: Model) -> Model:
        return Model(x=x.x + 1)

    assert model.apply(({"x": 1},)).get() == {"x": 2}


async def test_a_coroutine_that_is_applied_where_a_loop_runs():
    app = Celery("web", broker="memory://", set_as_current=False, task_cls=ASYNC)
    app.conf.task_always_eager = True

    @app.task(shared=False, name="looped")
    async def double(x: int) -> int:
        return x * 2

    assert (await double.asend(2)).get() == 4
    assert double.delay(3).get() == 6


def test_coroutines_that_apply_coroutines():
    app = Celery("web", broker="memory://", set_as_current=False, task_cls=ASYNC)

    @app.task(shared=False, name="nested")
    async def nested(depth: int) -> int:
        await asyncio.sleep(0)
        return nested.apply((depth - 1,)).get(disable_sync_subtasks=False) + 1 if depth else 0

    assert nested.apply((3,)).get() == 3
    assert nested.apply((2,)).get() == 2
