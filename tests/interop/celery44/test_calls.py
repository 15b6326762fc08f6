"""Where Celery 4.4 differs from Celery 5, or has to be seen apart."""

from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from celery.exceptions import TaskRevokedError

from tests.interop.celeriac_client import CeleriacClient, CeleriacKit
from tests.interop.celery44.client import OldCeleryClient
from tests.interop.celery_worker import CeleryWorker
from tests.interop.clients import Client, Sent
from tests.interop.conftest import Serving
from tests.interop.record import Record

EACH = 20


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
    """Celery 5 has them in ``request.headers``."""
    for name, value in (("tenant", "blue"), ("headers", None)):
        sent = await celeriac_client.send(
            "interop.requested", [name], queue=celery_worker.queue, headers={"tenant": "blue"}
        )
        assert await sent.value() == value


async def test_types_are_in_the_open_for_a_task(
    celeriac_client: CeleriacClient, celery_worker: CeleryWorker
) -> None:
    """Its JSON does not know them: the task gets what is on the wire."""
    sent = await celeriac_client.send("interop.str", [date(2024, 2, 29)], queue=celery_worker.queue)
    assert await sent.value() == "{'__type__': 'date', '__value__': '2024-02-29'}"


async def test_a_failure_in_a_chain_on_its_worker_is_seen_at_the_step_that_failed(
    celeriac_client: CeleriacClient, celery_worker: CeleryWorker
) -> None:
    """Celery 5 stores it for the steps after it too."""
    kit = CeleriacKit(celeriac_client.app, [celery_worker.queue])
    result = await kit.chain(kit.s("fail", "spoiled"), kit.s("add", 1)).send()
    with pytest.raises(ValueError, match="spoiled"):
        await result.parent.wait(timeout=60)
    assert (await result.info()).status == "PENDING"


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

    sent: list[Sent] = []
    ran: list[list[str]] = []
    async with celery_serving(queue), celeriac_serving(queue):
        # On a busy machine one of them may not get to it before the other has run what there is.
        while {worker for _, worker in ran} != {"celery", "celeriac"}:
            batch = [*await send(celery_client), *await send(celeriac_client)]
            for task in batch:
                await task.value()
            sent += batch
            ran = [line.split() for line in records.all()]
    ran = [line.split() for line in records.all()]
    assert Counter(task_id for task_id, _ in ran) == Counter(task.id for task in sent)
