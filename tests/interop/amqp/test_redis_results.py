"""RabbitMQ as broker with results in Redis, where chords are counted; both workers take turns in a workflow."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.interop.celeriac_client import CeleriacClient
from tests.interop.celeriac_side import make_app
from tests.interop.celery_client import CeleryClient
from tests.interop.celery_worker import CeleryWorker
from tests.interop.conftest import Serving
from tests.interop.test_calls import test_an_ignored_result_is_not_stored
from tests.interop.test_workflows import sender, test_the_value_is_the_same_whoever_runs_what

__all__ = ["sender", "test_an_ignored_result_is_not_stored", "test_the_value_is_the_same_whoever_runs_what"]


@pytest.fixture(scope="module")
def celery_worker(rabbit_url: str, interop_url: str) -> Iterator[CeleryWorker]:
    with CeleryWorker(rabbit_url, interop_url) as worker:
        yield worker


@pytest.fixture(scope="module")
def celery_client(rabbit_url: str, interop_url: str) -> Iterator[CeleryClient]:
    client = CeleryClient(rabbit_url, interop_url)
    yield client
    client.close()


@pytest.fixture
async def celeriac_client(rabbit_url: str, interop_url: str) -> AsyncIterator[CeleriacClient]:
    client = CeleriacClient(rabbit_url, interop_url)
    yield client
    await client.close()


@pytest.fixture
def celeriac_serving(rabbit_url: str, interop_url: str) -> Serving:
    @asynccontextmanager
    async def serving(queue: str) -> AsyncIterator[None]:
        app = make_app(rabbit_url, interop_url)
        async with app, app.worker(queues=[queue], concurrency=5):
            yield

    return serving


@pytest.fixture
def queues(celery_worker: CeleryWorker, queue: str) -> list[str]:
    return [queue, celery_worker.queue, celery_worker.queue, queue, celery_worker.queue]
