"""A line that was dropped without a word to anybody is found out, with heartbeats or without."""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any

from celeriac import Celeriac
from tests.amqp.proxy import Proxy
from tests.servers import RabbitServer

SPEED = 10
"""How fast the clock of the loop goes: half a minute is three seconds."""


class _QuickSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout if timeout is None else timeout / SPEED)


class _QuickLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(_QuickSelector())

    def time(self) -> float:
        return time.monotonic() * SPEED


def run_quickly(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=_QuickLoop) as runner:
        runner.run(main())


def app_on(url: str, queue: str, backend: str) -> Celeriac:
    app = Celeriac("idle", broker=url, backend=backend, default_queue=queue, publish_timeout=20.0 * SPEED)

    async def same(value: int) -> int:
        return value

    app.register("same", same)
    return app


def test_a_worker_takes_tasks_again(rabbit_server: RabbitServer, queue: str) -> None:
    async def main() -> None:
        async with Proxy(rabbit_server.port) as proxy:
            sender = app_on(rabbit_server.url(), queue, "rpc://")
            worker_app = app_on(proxy.url("?heartbeat=0"), queue, "rpc://")
            async with sender, worker_app, worker_app.worker():
                assert await (await sender.send_task("same", [1])).wait(timeout=30 * SPEED) == 1
                proxy.drop()
                await asyncio.sleep(0.5 * SPEED)  # else RabbitMQ may push the next task into nowhere first
                dropped = asyncio.get_running_loop().time()
                assert await (await sender.send_task("same", [2])).wait(timeout=60 * SPEED) == 2
                assert asyncio.get_running_loop().time() - dropped < 60 + 20 * SPEED

    run_quickly(main)


def test_a_client_hears_of_its_result(rabbit_server: RabbitServer, queue: str) -> None:
    async def main() -> None:
        async with Proxy(rabbit_server.port) as proxy:
            client = app_on(proxy.url("?heartbeat=60"), queue, "rpc://")
            worker_app = app_on(rabbit_server.url(), queue, "rpc://")
            async with client, worker_app:
                result = await client.send_task("same", [1])
                waiting = asyncio.create_task(result.wait(timeout=90 * SPEED))
                await asyncio.sleep(0.2 * SPEED)
                proxy.drop()
                async with worker_app.worker():
                    assert await waiting == 1

    run_quickly(main)


def test_an_idle_line_that_is_well_stays(rabbit_server: RabbitServer, queue: str) -> None:
    async def main() -> None:
        async with Proxy(rabbit_server.port) as proxy:
            app = app_on(proxy.url("?heartbeat=0"), queue, "rpc://")
            async with app, app.worker():
                assert await (await app.send_task("same", [1])).wait(timeout=30 * SPEED) == 1
                await asyncio.sleep(30)
                assert await (await app.send_task("same", [2])).wait(timeout=30 * SPEED) == 2
                assert proxy.accepted == 1

    run_quickly(main)
