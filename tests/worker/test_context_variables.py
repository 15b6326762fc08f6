"""What a task sets in a context variable is gone with it, and what was set around the worker is seen."""

from contextvars import ContextVar

import pytest

from celeriac import Celeriac
from tests.worker import process_tasks

WAIT = 60.0


@pytest.mark.parametrize("pool", ["threads", "solo"])
async def test_each_task_has_its_own(pool: str):
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    app = Celeriac("variables", broker="memory://", backend="memory://")

    def exchange(name: str) -> str:
        before = tenant.get()
        tenant.set(name)
        return before

    async def exchange_later(name: str) -> str:
        return exchange(name)

    plain = app.register("plain", exchange)
    limited = app.register("limited", exchange, soft_timeout=20)
    coroutine = app.register("coroutine", exchange_later)
    tenant.set("around the worker")
    async with app, app.worker(pool=pool, concurrency=1):
        for task in (plain, limited, coroutine):
            assert [await (await task.send(name)).wait(WAIT) for name in "ab"] == ["around the worker"] * 2


async def test_each_task_in_a_child_process_has_its_own():
    async with process_tasks.app, process_tasks.app.worker(pool="processes", concurrency=1):
        send = process_tasks.exchange.send
        assert [await (await send(name)).wait(WAIT) for name in "ab"] == ["nobody"] * 2
