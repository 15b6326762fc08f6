"""A Celery app's own commands of remote control, asked by Celery's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.worker.control import Panel, control_command, inspect_command

from celeriac.celery_app.app import CeleryApp
from tests.servers import RedisServer


@pytest.fixture
def commands() -> Iterator[None]:
    """The commands of an app; Celery keeps them for the whole process."""
    data, meta = dict(Panel.data), dict(Panel.meta)

    @inspect_command(name="own_facts")
    def facts(state: Any, more: int = 0) -> dict[str, Any]:
        controller = state.consumer.controller
        return {
            "node": state.hostname,
            "app": state.app.main,
            "at_once": controller.concurrency,
            "more": more,
        }

    @control_command(name="own_queue")
    def queue(state: Any, name: str) -> dict[str, str]:
        state.consumer.add_task_queue(name)
        return {"ok": name}

    @inspect_command(name="own_failure")
    def failure(state: Any) -> int:
        return state.consumer.qos.value

    yield
    Panel.data.clear()
    Panel.data.update(data)
    Panel.meta.clear()
    Panel.meta.update(meta)


async def test_commands_of_the_app(commands: None, redis_server: RedisServer) -> None:
    queue, node = f"own-{uuid4()}", f"own-{uuid4()}@host"
    celery = Celery("owner", broker=redis_server.url(), set_as_current=False)
    celery.conf.task_default_queue = queue
    celery.conf.redis_password = "a secret"
    app = CeleryApp(celery, "tests.celery_app.test_commands")
    worker = app.worker(pool="threads", concurrency=2, name=node)

    async def ask(method: str, **arguments: Any) -> Any:
        broadcast = celery.control.broadcast
        answers = await asyncio.to_thread(
            broadcast, method, arguments=arguments, destination=[node], reply=True, timeout=20, limit=1
        )
        return answers[0][node]

    async with worker:
        assert await ask("own_facts", more=3) == {"node": node, "app": "owner", "at_once": 2, "more": 3}
        assert await ask("own_queue", name=f"{queue}-2") == {"ok": f"{queue}-2"}
        assert f"{queue}-2" in worker.queues
        assert "has no 'qos'" in (await ask("own_failure"))["error"]
        assert (await ask("ping")) == {"ok": "pong"}
        conf = await ask("conf")
        assert conf["task_default_queue"] == queue
        assert "secret" not in str(conf)
    await app.close()
    assert set(app.control_methods(worker, inspect_only=True)) >= {"own_facts", "own_failure"}
    assert "own_queue" not in app.control_methods(worker, inspect_only=True)
