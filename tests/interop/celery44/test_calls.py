"""Where Celery 4.4 differs from Celery 5, or has to be seen apart."""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from celery.exceptions import TaskRevokedError

from tests.interop.celeriac_client import CeleriacClient
from tests.interop.celery44.client import OldCeleryClient
from tests.interop.celery_worker import CeleryWorker
from tests.interop.clients import Client, Sent
from tests.interop.conftest import Serving
from tests.interop.record import Record

EACH = 100


@pytest.mark.parametrize("protocol", [1, 2])
async def test_moments_amounts_and_uuids_arrive_as_what_the_task_asks_for(
    celery_client: OldCeleryClient, celeriac_serving: Serving, queue: str, protocol: int
) -> None:
    """The JSON of Celery 4 has them as text, and shows the value's types as Celery 5 and celeriac write them."""
    arguments = {
        "moment": datetime(2024, 2, 29, 23, 59, 59, 123456, UTC),
        "amount": Decimal("19.990"),
        "uid": UUID("12345678-1234-5678-9234-567812345678"),
    }
    async with celeriac_serving(queue):
        sent = await celery_client.send("interop.kinds", kwargs=arguments, queue=queue, protocol=protocol)
        value = await sent.value()
    assert value == {
        "moment": {"__type__": "datetime", "__value__": "2024-02-29T23:59:59.123456+00:00"},
        "amount": {"__type__": "decimal", "__value__": "19.990"},
        "uid": {
            "__type__": "uuid",
            "__value__": {"hex": "12345678123456789234567812345678"},
        },
    }


async def test_a_wrong_call_is_a_failure_that_the_caller_sees(
    celery_client: OldCeleryClient, celeriac_serving: Serving, queue: str
) -> None:
    """celeriac is not installed where the caller is: its exception is made up there, under the same name."""
    async with celeriac_serving(queue):
        sent = await celery_client.send("interop.add", [1], queue=queue)
        with pytest.raises(RuntimeError, match=r"ArgumentError.*missing the argument 'y'"):
            await sent.value()


async def test_headers_of_the_caller_are_attributes_of_the_request(
    celeriac_client: CeleriacClient, celery_worker: CeleryWorker
) -> None:
    sent = await celeriac_client.send("interop.seen", queue=celery_worker.queue, headers={"tenant": "blue"})
    assert await sent.value() == {
        "id": sent.id,
        "root_id": sent.id,
        "parent_id": None,
        "queue": celery_worker.queue,
        "headers": None,
    }


async def test_the_caller_hears_that_its_task_was_revoked(
    celery_client: OldCeleryClient, celeriac_client: CeleriacClient, celeriac_serving: Serving, queue: str
) -> None:
    async with celeriac_serving(queue):
        sent = await celery_client.send("interop.none", queue=queue, countdown=600)
        await celeriac_client.app.result(sent.id).cancel()
        with pytest.raises(TaskRevokedError, match="revoked"):
            await sent.value()
    assert await sent.state() == "REVOKED"


async def test_tasks_of_both_run_exactly_once_each_on_workers_of_both(
    celery_client: OldCeleryClient,
    celeriac_client: CeleriacClient,
    celery_serving: Serving,
    celeriac_serving: Serving,
    records: Record,
    queue: str,
) -> None:
    async def send(client: Client) -> list[Sent]:
        return [await client.send("interop.note_run", kwargs=records.where, queue=queue) for _ in range(EACH)]

    sent = [*await send(celery_client), *await send(celeriac_client)]
    async with celery_serving(queue), celeriac_serving(queue):
        for task in sent:
            await task.value()
    ran = [line.split() for line in records.all()]
    assert Counter(task_id for task_id, _ in ran) == Counter(task.id for task in sent)
    assert set(Counter(worker for _, worker in ran)) == {"celery", "celeriac"}
