"""A task of a celeriac application whose code runs elsewhere, with a real Celery worker."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from celeriac.client.blocking import BACKGROUND
from celeriac.client.task import Task
from celeriac.errors import ArgumentError, ResultTimeout
from tests.interop.celeriac_client import CeleriacClient
from tests.interop.celery_worker import CeleryWorker

Add = Task[[int, int], int]


@pytest.fixture
def add(celeriac_client: CeleriacClient, celery_worker: CeleryWorker) -> Add:
    @celeriac_client.app.task(name="interop.add", queue=celery_worker.queue)
    async def add(x: int, y: int) -> int:
        raise AssertionError("this is run elsewhere")

    return add


@pytest.fixture
def closing_background(celeriac_client: CeleriacClient) -> Iterator[None]:
    """Close what blocking calls opened: they have an event loop of their own, which outlives the test."""
    yield
    BACKGROUND.run(celeriac_client.app.close())


async def test_send_and_await(add: Add) -> None:
    result = await add.send(2, 3)
    assert await result == 5


async def test_a_wrong_argument_is_refused_before_it_is_sent(add: Add) -> None:
    with pytest.raises(ArgumentError, match="y"):
        await add.send(2, "three")  # type: ignore[arg-type]


async def test_many_at_once(add: Add, celeriac_client: CeleriacClient) -> None:
    results = await celeriac_client.app.send_many([add.call(n, n) for n in range(200)])
    assert await asyncio.gather(*results) == [2 * n for n in range(200)]


def test_blocking_code(add: Add, closing_background: None) -> None:
    assert add.delay(2, 3).get(timeout=60) == 5
    assert add.using(countdown=0.1).delay(2, 3).get(timeout=60) == 5
    assert add.apply_async((2, 3)).get(timeout=60) == 5


async def test_a_timeout_says_what_was_waited_for(add: Add, unique: Callable[[str], str]) -> None:
    result = await add.using(queue=unique("nobody")).send(2, 3)
    with pytest.raises(ResultTimeout, match=result.id):
        await result.wait(timeout=0.05)
