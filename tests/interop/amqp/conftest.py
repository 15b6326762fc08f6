"""Who calls whom, on one RabbitMQ, with results as messages."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.interop.celeriac_client import CeleriacClient
from tests.interop.celeriac_side import make_app
from tests.interop.celery_client import CeleryClient
from tests.interop.celery_worker import CeleryWorker
from tests.interop.conftest import Serving

RESULTS = "rpc://"


@pytest.fixture(scope="session")
def celery_worker(rabbit_url: str) -> Iterator[CeleryWorker]:
    with CeleryWorker(rabbit_url, RESULTS) as worker:
        yield worker


@pytest.fixture(scope="session")
def celery_client(rabbit_url: str) -> Iterator[CeleryClient]:
    client = CeleryClient(rabbit_url, RESULTS)
    yield client
    client.close()


@pytest.fixture
async def celeriac_client(rabbit_url: str) -> AsyncIterator[CeleriacClient]:
    client = CeleriacClient(rabbit_url, RESULTS)
    yield client
    await client.close()


@pytest.fixture
def celery_serving(celery_worker: CeleryWorker) -> Serving:
    @asynccontextmanager
    async def serving(queue: str) -> AsyncIterator[None]:
        await asyncio.to_thread(celery_worker.consume, queue)
        yield
        await asyncio.to_thread(celery_worker.cancel, queue)

    return serving


@pytest.fixture
def celeriac_serving(rabbit_url: str) -> Serving:
    @asynccontextmanager
    async def serving(queue: str) -> AsyncIterator[None]:
        app = make_app(rabbit_url, RESULTS)
        async with app, app.worker(queues=[queue], concurrency=1):
            yield

    return serving
