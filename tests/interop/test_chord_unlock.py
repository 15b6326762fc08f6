"""Chords of Celery with results in a database: nobody counts; `celery.chord_unlock` looks until all are there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.celeriac_side import make_app
from tests.interop.celery_client import CeleryClient
from tests.interop.celery_worker import CeleryWorker
from tests.interop.workflows import FAILING, WORKFLOWS


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unlock") / "results.db"


@pytest.fixture(scope="module")
def client(interop_url: str, file: Path) -> Iterator[CeleryClient]:
    client = CeleryClient(interop_url, f"db+sqlite:///{file}")
    yield client
    client.close()


@pytest.fixture(scope="module")
def worker(interop_url: str, file: Path) -> Iterator[CeleryWorker]:
    with CeleryWorker(interop_url, f"db+sqlite:///{file}") as worker:
        yield worker


@pytest.mark.parametrize("name", ["chord", "chain-in-header"])
async def test_a_celeriac_worker_unlocks_a_chord(
    name: str, client: CeleryClient, interop_url: str, file: Path, queue: str
) -> None:
    build, value = WORKFLOWS[name]
    app = make_app(interop_url, f"sqlite:///{file}")
    async with app, app.worker(queues=[queue], concurrency=2):
        sent = await client.send_workflow(build, [queue])
        assert await sent.value() == value


async def test_a_failed_part_fails_the_body(
    client: CeleryClient, interop_url: str, file: Path, queue: str
) -> None:
    build, says = FAILING["header"]
    app = make_app(interop_url, f"sqlite:///{file}")
    async with app, app.worker(queues=[queue], concurrency=2):
        sent = await client.send_workflow(build, [queue])
        with pytest.raises(Exception, match=says):
            await sent.value()


@pytest.mark.parametrize("celery_unlocks", [False, True])
async def test_both_kinds_of_worker_run_the_parts_of_one_chord(
    celery_unlocks: bool, client: CeleryClient, worker: CeleryWorker, interop_url: str, file: Path, queue: str
) -> None:
    build, value = WORKFLOWS["chord"]
    queues = [queue, worker.queue] if celery_unlocks else [worker.queue, queue]
    app = make_app(interop_url, f"sqlite:///{file}")
    async with app, app.worker(queues=[queue], concurrency=2):
        # Its four parts go to both in turn, the body, and what unlocks it, to the first.
        sent = await client.send_workflow(build, queues[::-1])
        assert await sent.value() == value
