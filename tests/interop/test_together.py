"""A Celery worker and a celeriac worker on one queue."""

import asyncio
from collections import Counter
from contextlib import closing

from tests.interop.celeriac_client import CeleriacClient
from tests.interop.celery_client import CeleryClient
from tests.interop.clients import Client
from tests.interop.conftest import Serving
from tests.interop.record import Record
from tests.servers import RedisServer

EACH = 1000


async def test_two_thousand_tasks_run_exactly_once_each(
    redis_server: RedisServer,
    celery_client: CeleryClient,
    celeriac_client: CeleriacClient,
    celery_serving: Serving,
    celeriac_serving: Serving,
    records: Record,
    queue: str,
) -> None:
    async def send_and_wait(client: Client) -> list[str]:
        sent = [await client.send("interop.note_run", kwargs=records.where, queue=queue) for _ in range(EACH)]
        for task in sent:
            await task.value()
        return [task.id for task in sent]

    async with celery_serving(queue), celeriac_serving(queue):
        ids = await asyncio.gather(send_and_wait(celery_client), send_and_wait(celeriac_client))

    ran = [line.split() for line in records.all()]
    assert Counter(task_id for task_id, _ in ran) == Counter([*ids[0], *ids[1]])
    assert set(Counter(worker for _, worker in ran)) == {"celery", "celeriac"}
    with closing(redis_server.client(1)) as client:
        assert client.llen(queue) == 0
        assert not [entry for entry in client.hvals("unacked") if queue.encode() in entry]
