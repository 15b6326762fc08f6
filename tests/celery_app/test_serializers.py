"""Serializers that an app registered with kombu itself: a worker reads and writes with them as Celery's does."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, chain, chord, group, signals
from kombu.serialization import register, unregister

from celeriac.celery_app.app import CeleryApp
from celeriac.celery_app.found import settings_of
from celeriac.errors import ConfigError
from tests.celery_connections import disconnect
from tests.servers import RedisServer

TIMEOUT = 60


def encoded(value: Any) -> str:
    def other(found: Any) -> Any:
        return {"complex": [found.real, found.imag]}

    return json.dumps(value, default=other)


def decoded(text: str) -> Any:
    return json.loads(
        text, object_hook=lambda found: complex(*found["complex"]) if "complex" in found else found
    )


@pytest.fixture
def serializer() -> Iterator[str]:
    name = f"own-{uuid4()}"
    register(name, encoded, decoded, content_type=f"application/x-{name}", content_encoding="utf-8")
    yield name
    gc.collect()  # an app's results ask its backend as they go, which wants the serializer
    unregister(name)


def app_with(serializer: str, url: str) -> tuple[Celery, Any]:
    app = Celery(serializer, broker=url, backend=url, set_as_current=False)
    app.conf.update(
        task_default_queue=serializer,
        task_serializer=serializer,
        result_serializer=serializer,
        accept_content=[serializer],
    )

    @app.task(name=f"add-{serializer}", shared=False, bind=True, max_retries=1)
    def add(self: Any, x: complex, y: complex) -> complex:
        if not self.request.retries:
            raise self.retry(countdown=0)
        return x + y

    @app.task(name=f"total-{serializer}", shared=False)
    def total(values: list[complex]) -> complex:
        return sum(values)

    return app, (add, total)


@pytest.mark.parametrize("pool", ["threads", "solo"])
async def test_values_that_only_the_apps_own_serializer_knows(
    redis_server: RedisServer, serializer: str, pool: str
) -> None:
    celery, (add, total) = app_with(serializer, redis_server.url())
    app = CeleryApp(celery, "tests.celery_app.test_serializers")
    assert app.remarks == []

    def use() -> list[complex]:
        try:
            sent = [
                add.delay(1j, 2),
                chain(add.s(1j, 1), add.s(1)).apply_async(),
                chord([add.s(1j, i) for i in range(2)])(total.s()),
            ]
            # The worker in this process forbids it, as one may block itself; this thread is not the worker's.
            return [result.get(timeout=TIMEOUT, disable_sync_subtasks=False) for result in sent]
        finally:
            disconnect(celery)

    async with app.worker(pool=pool, concurrency=2):
        assert await asyncio.to_thread(use) == [2 + 1j, 2 + 1j, 1 + 2j]
    await app.close()


async def test_a_task_that_returns_a_result_with_pickle(redis_server: RedisServer, unique: Any) -> None:
    unique = unique("pickled")
    celery = Celery(unique, broker=redis_server.url(), backend=redis_server.url(), set_as_current=False)
    celery.conf.update(
        task_default_queue=unique, result_serializer="pickle", accept_content=["json", "pickle"]
    )

    @celery.task(name=f"one-{unique}", shared=False)
    def one() -> int:
        return 1

    @celery.task(name=f"several-{unique}", shared=False)
    def several() -> Any:
        return group(one.s(), one.s()).delay()

    def use() -> Any:
        try:
            return several.delay().get(timeout=TIMEOUT, disable_sync_subtasks=False)
        finally:
            disconnect(celery)

    app = CeleryApp(celery, "tests.celery_app.test_serializers")
    async with app.worker(pool="threads", concurrency=2):
        found = await asyncio.to_thread(use)
        assert (type(found).__name__, len(found)) == ("GroupResult", 2)
    await app.close()


async def test_arguments_are_the_list_or_tuple_that_was_pickled(
    redis_server: RedisServer, unique: Any
) -> None:
    unique = unique("pickled")
    celery = Celery(unique, broker=redis_server.url(), backend=redis_server.url(), set_as_current=False)
    celery.conf.update(task_default_queue=unique, accept_content=["json", "pickle"])

    @celery.task(name=f"kinds-{unique}", shared=False, bind=True)
    def kinds(self: Any, *_: Any) -> Any:
        return [type(self.request.args).__name__, told[self.request.id]]

    told: dict[str, str] = {}

    def receive(task_id: str, args: Any, **_: Any) -> None:
        told[task_id] = type(args).__name__

    signals.task_prerun.connect(receive, sender=kinds)

    def use() -> Any:
        try:
            found = [
                kinds.apply_async(args, serializer=serializer).get(
                    timeout=TIMEOUT, disable_sync_subtasks=False
                )
                for serializer, args in (("pickle", (1,)), ("pickle", [1]), ("json", (1,)))
            ]
        finally:
            disconnect(celery)
        return found

    app = CeleryApp(celery, "tests.celery_app.test_serializers")
    async with app.worker(pool="threads", concurrency=2):
        assert await asyncio.to_thread(use) == [["tuple"] * 2, ["list"] * 2, ["list"] * 2]
    await app.close()


def test_what_is_refused(serializer: str) -> None:
    app, _ = app_with(serializer, "redis://")
    assert settings_of(app).content_types == (f"application/x-{serializer}",)
    app.conf.result_backend = "rpc://"
    with pytest.raises(ConfigError, match=r"result_serializer: with rpc:// use json"):
        CeleryApp(app, "tests.celery_app.test_serializers").require_runnable()
    app.conf.update(result_backend="redis://", task_serializer=f"{serializer}-unknown")
    with pytest.raises(ConfigError, match=r"task_serializer: .* celeriac does not know it"):
        CeleryApp(app, "tests.celery_app.test_serializers").require_runnable()
