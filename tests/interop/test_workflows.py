"""Workflows sent by either client, with their tasks on workers of either kind, or turn and turn about on both."""

from random import Random

import pytest

from tests.canvas.plans import value
from tests.interop.celeriac_client import CeleriacClient
from tests.interop.celery_client import CeleryClient
from tests.interop.celery_worker import CeleryWorker
from tests.interop.conftest import Serving
from tests.interop.record import Record
from tests.interop.workflows import FAILING, WORKFLOWS, from_plan, random_plan

PLACES = ["celeriac", "celery", "mixed"]


@pytest.fixture(params=["celeriac", "celery"])
def sender(request: pytest.FixtureRequest) -> CeleriacClient | CeleryClient:
    """Who sends."""
    client: CeleriacClient | CeleryClient = request.getfixturevalue(f"{request.param}_client")
    return client


@pytest.fixture(params=PLACES)
def queues(request: pytest.FixtureRequest, celery_worker: CeleryWorker, queue: str) -> list[str]:
    """Where the tasks of a workflow go, one after the other."""
    return {
        "celeriac": [queue],
        "celery": [celery_worker.queue],
        "mixed": [queue, celery_worker.queue, celery_worker.queue, queue, celery_worker.queue],
    }[request.param]


@pytest.mark.parametrize("name", WORKFLOWS)
async def test_the_value_is_the_same_whoever_runs_what(
    name: str,
    sender: CeleriacClient | CeleryClient,
    queues: list[str],
    queue: str,
    celeriac_serving: Serving,
) -> None:
    build, value = WORKFLOWS[name]
    async with celeriac_serving(queue):
        sent = await sender.send_workflow(build, queues)
        assert await sent.value() == value


@pytest.mark.parametrize("name", FAILING)
async def test_a_failure_reaches_the_end(
    name: str,
    sender: CeleriacClient | CeleryClient,
    queues: list[str],
    queue: str,
    celeriac_serving: Serving,
) -> None:
    if name == "chord-in-header":
        # A Celery worker that ends the inner header, as who counts its last part, does not count the body as a part of
        # the chord around it; Celery's own client notices since it looks at every task before the one it waits for.
        if queue not in queues:
            pytest.skip("Celery's workers leave the outer chord unended")
        queues = [queue, queue, *queues[2:]]
    build, says = FAILING[name]
    async with celeriac_serving(queue):
        sent = await sender.send_workflow(build, queues)
        with pytest.raises(Exception, match=says):
            await sent.value()


async def test_the_errback_of_a_chord_is_called_once_when_its_header_fails(
    sender: CeleriacClient | CeleryClient,
    queues: list[str],
    queue: str,
    celeriac_serving: Serving,
    records: Record,
) -> None:
    async with celeriac_serving(queue):
        sent = await sender.send_workflow(
            lambda kit: kit.chord(
                [kit.s("fail", "spoiled"), kit.s("fail", "rotten"), kit.s("add", 1, 1)],
                kit.s("total", link_error=[kit.s_with("note_failure", records.where)]),
            ),
            queues,
        )
        with pytest.raises(Exception, match=r"spoiled|rotten"):
            await sent.value()
        assert await records.next() == sent.id
        assert records.all() == []


@pytest.mark.parametrize("seed", range(10))
async def test_a_random_workflow_gives_what_its_plan_says(
    seed: int,
    celeriac_client: CeleriacClient,
    celery_client: CeleryClient,
    celery_worker: CeleryWorker,
    celeriac_serving: Serving,
    queue: str,
) -> None:
    plan = random_plan(Random(seed))
    both = [queue, celery_worker.queue]
    async with celeriac_serving(queue):
        for client, queues in (
            (celery_client, [celery_worker.queue]),
            (celery_client, both),
            (celeriac_client, [celery_worker.queue]),
            (celeriac_client, both),
        ):
            sent = await client.send_workflow(from_plan(plan), queues)
            assert await sent.value() == value(plan), (type(client).__name__, queues)
