"""A fleet of nothing but Celery's workers, on Redis and on a RabbitMQ without its management plugin."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from tests.interop.celery_worker import CeleryWorker
from tests.web.site import Site


@pytest.fixture(params=["redis", "rabbit"])
def worker(request: pytest.FixtureRequest, redis_url: str) -> Iterator[CeleryWorker]:
    """A worker of Celery's with a queue of its own, which tells of its tasks as Celery's do."""
    url = request.getfixturevalue(f"{request.param}_url")
    with CeleryWorker(url, redis_url, ["-E", "--heartbeat-interval", "1"], sociable=True) as worker:
        yield worker


@pytest.fixture
def client(worker: CeleryWorker) -> Iterator[Celery]:
    with Celery("client", broker=worker.url, backend=worker.backend, set_as_current=False) as client:
        yield client


def test_its_workers_queues_and_tasks_are_seen_and_its_tasks_run_again(
    worker: CeleryWorker, client: Celery, tmp_path: Path
):
    queue, node = worker.queue, worker.name
    with Site(worker.url, tmp_path, backend=worker.backend) as site:
        site.shows("workers", node)
        site.shows("queues", queue)
        page = site.shows(f"workers/{node}", "Its own figures")
        assert queue in page
        assert "prefetch_count" in page

        added = client.send_task("interop.add", [20, 22], queue=queue)
        assert "<code>42</code>" in site.told(added.id, "SUCCESS")
        failed = client.send_task("interop.fail", ["no such order"], queue=queue)
        page = site.told(failed.id, "FAILURE")
        assert "raise ValueError(text)" in page
        assert "interop.fail" in site.page("errors")

        # No event of Celery's names the queue, and nobody takes from the one that is usual.
        said = site.post("do/tasks", action="retry", id=failed.id, back="tasks")
        assert "1%20task%20sent%20again" in said
        site.when(
            "tasks?name=interop.fail", lambda page: page.count("FAILURE</span>") == 2, "two tasks that failed"
        )
        site.post("do/change", id=failed.id, args="['another']", kwargs="{}", back="tasks")
        site.shows("tasks?text=another", "FAILURE</span>")


def test_what_waits_in_its_queue_is_counted_shown_and_deleted(
    worker: CeleryWorker, client: Celery, tmp_path: Path
):
    queue = worker.queue
    with Site(worker.url, tmp_path, backend=worker.backend) as site:
        site.shows("queues", queue)
        assert "1%20worker%20took%20from%20it" in site.post(
            "do/queues", action="pause", queue=queue, back="queues"
        )
        ids = [client.send_task("interop.add", [number, 1], queue=queue).id for number in range(3)]
        page = site.shows(f"queues/{queue}", "3 tasks wait")
        assert [id in page for id in ids] == 3 * [True]
        said = site.post("do/queues", action="delete", queue=queue, key=ids[1], back="queues")
        assert "1%20waiting%20task%20of%20queue" in said
        site.shows(f"queues/{queue}", "2 tasks wait")
        assert "goes%20on" in site.post("do/queues", action="resume", queue=queue, back="queues")
        for id in (ids[0], ids[2]):
            site.told(id, "SUCCESS")
        site.shows(f"queues/{queue}", "0 tasks wait")
