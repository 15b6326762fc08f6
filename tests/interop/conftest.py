"""Who calls whom: celeriac's client and Celery's, with celeriac's worker and Celery's, on one Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.interop.celeriac_client import CeleriacClient
from tests.interop.celeriac_side import make_app
from tests.interop.celery_client import CeleryClient
from tests.interop.celery_worker import CeleryWorker
from tests.interop.clients import Client, Sent
from tests.interop.record import Record
from tests.servers import RedisServer

Serving = Callable[[str], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Pair:
    """A client, and a worker that takes from ``queue``, and from any other queue inside ``serving(queue)``.

    :param celery: the worker, where it is Celery's; celeriac's has one slot.
    """

    client: Client
    queue: str
    serving: Serving
    celery: CeleryWorker | None = None

    async def order(self, sent: Sequence[Sent], records: Record) -> list[int]:
        """The order in which the worker took these tasks, each of which records its place in ``sent``."""
        ran = [int(place) for place in await records.take(len(sent))]
        if self.celery is None:
            return ran
        # Celery has two processes, and any of them may run some tasks while the other is at one.
        return await asyncio.to_thread(self.celery.received, [task.id for task in sent])


@pytest.fixture(scope="session")
def interop_url(redis_server: RedisServer) -> str:
    return redis_server.url(1)


@pytest.fixture
def records(redis_server: RedisServer, unique: Callable[[str], str]) -> Record:
    return Record(redis_server.url(2), unique("records"))


@pytest.fixture(scope="session")
def celery_worker(interop_url: str) -> Iterator[CeleryWorker]:
    with CeleryWorker(interop_url) as worker:
        yield worker


@pytest.fixture(scope="session")
def celery_client(interop_url: str) -> Iterator[CeleryClient]:
    client = CeleryClient(interop_url)
    yield client
    client.close()


@pytest.fixture
async def celeriac_client(interop_url: str) -> AsyncIterator[CeleriacClient]:
    client = CeleriacClient(interop_url)
    yield client
    await client.close()


@pytest.fixture
def celery_serving(celery_worker: CeleryWorker) -> Serving:
    """Lets the real Celery worker take from a further queue for a while."""

    @asynccontextmanager
    async def serving(queue: str) -> AsyncIterator[None]:
        await asyncio.to_thread(celery_worker.consume, queue)
        yield
        await asyncio.to_thread(celery_worker.cancel, queue)

    return serving


@pytest.fixture
def celeriac_serving(interop_url: str) -> Serving:
    """Lets a celeriac worker take from a queue for a while, one task at a time."""

    @asynccontextmanager
    async def serving(queue: str) -> AsyncIterator[None]:
        app = make_app(interop_url)
        async with app, app.worker(queues=[queue], concurrency=1):
            yield

    return serving


@pytest.fixture(params=["celeriac-calls-celery", "celery-calls-celeriac", "celeriac-calls-celeriac"])
def direction(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Who calls, and who is called."""
    caller, _, called = request.param.split("-")
    return caller, called


@pytest.fixture
def caller(request: pytest.FixtureRequest, direction: tuple[str, str]) -> Client:
    client: Client = request.getfixturevalue(f"{direction[0]}_client")
    return client


@pytest.fixture
async def pair(
    direction: tuple[str, str],
    caller: Client,
    queue: str,
    celery_worker: CeleryWorker,
    celery_serving: Serving,
    celeriac_serving: Serving,
) -> AsyncIterator[Pair]:
    if direction[1] == "celery":
        yield Pair(caller, celery_worker.queue, celery_serving, celery_worker)
    else:
        async with celeriac_serving(queue):
            yield Pair(caller, queue, celeriac_serving)
