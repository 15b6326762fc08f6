"""A chain that Celery's client sends, its steps with workers of both kinds."""

import pytest

from tests.interop.celery_client import CeleryClient
from tests.interop.celery_worker import CeleryWorker
from tests.interop.conftest import Serving


async def test_the_value_goes_through_both_kinds_of_worker(
    celery_client: CeleryClient, celery_worker: CeleryWorker, celeriac_serving: Serving, queue: str
) -> None:
    async with celeriac_serving(queue):
        steps = await celery_client.send_chain(
            ("interop.add", [1, 10], queue),
            ("interop.add", [100], celery_worker.queue),
            ("interop.add", [1000], queue),
            ("interop.add", [10000], celery_worker.queue),
        )
        assert [await step.value() for step in reversed(steps)] == [11111, 1111, 111, 11]


@pytest.mark.parametrize("failing", ["celery", "celeriac"])
async def test_a_failed_step_fails_the_steps_after_it(
    failing: str,
    celery_client: CeleryClient,
    celery_worker: CeleryWorker,
    celeriac_serving: Serving,
    queue: str,
) -> None:
    queues = {"celery": celery_worker.queue, "celeriac": queue}
    async with celeriac_serving(queue):
        steps = await celery_client.send_chain(
            ("interop.add", [1, 10], queue),
            ("interop.run_out", [3], queues[failing]),
            ("interop.add", [100], celery_worker.queue),
            ("interop.add", [1000], queue),
        )
        for step in reversed(steps[1:]):
            with pytest.raises(Exception, match=r"^\(?11, 3\)?$") as raised:
                await step.value()
            assert type(raised.value).__name__ == "OutOfStock"
        assert await steps[0].value() == 11
