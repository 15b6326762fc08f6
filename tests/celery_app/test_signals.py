"""Celery's signals come in Celery's order, with what they are about; those after the ending find it stored."""

import os
from collections.abc import Iterator
from signal import SIGTERM
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError

from tests.celery_app.conftest import TIMEOUT, Shop, StartShop


@pytest.fixture(scope="module", params=["threads", "processes"])
def watched(client: Any, start_shop: StartShop, request: pytest.FixtureRequest) -> Iterator[tuple[str, Shop]]:
    shop = start_shop("-P", request.param, "-c", "2", SHOP_SIGNALS="yes")
    yield request.param, shop
    shop.process.stop()


def about(shop: Shop, task_id: str, last: str) -> list[list[Any]]:
    """What was noted of one task until this signal came."""
    shop.noted(last, task_id)
    return [note for note in shop.notes() if note[1:2] == [task_id]]


def test_processes_are_there_before_messages_are_taken(client: Any, watched: tuple[str, Shop]):
    pool, shop = watched
    names = [note[0] for note in shop.notes()]
    begun = names.index("worker_ready")
    assert names[:begun].count("worker_process_init") == (2 if pool == "processes" else 1)


def test_signals_of_tasks(client: Any, watched: tuple[str, Shop]):
    _pool, shop = watched
    done = client.add.delay(1, 2)
    assert done.get(timeout=TIMEOUT) == 3
    received, *rest = about(shop, done.id, "task_postrun")
    assert received[0] == "task_received"
    assert [note[0] for note in rest] == ["task_prerun", "task_success", "task_postrun"]
    assert [note[3] for note in rest] == ["PENDING", "SUCCESS", "SUCCESS"]
    assert rest[-1][2] == "SUCCESS"
    assert len({note[4] for note in rest}) == 1
    failed = client.fail.delay()
    failed.get(timeout=TIMEOUT, propagate=False)
    rest = about(shop, failed.id, "task_postrun")[1:]
    assert [note[0] for note in rest] == ["task_prerun", "task_failure", "task_postrun"]
    assert [note[3] for note in rest] == ["PENDING", "FAILURE", "FAILURE"]
    again = client.flaky.delay(1)
    assert again.get(timeout=TIMEOUT) == 1
    shop.noted("task_postrun", again.id, count=2)
    assert "task_retry" in [note[0] for note in shop.notes() if note[1:2] == [again.id]]


def test_a_lost_process(client: Any, watched: tuple[str, Shop], tmp_path):
    pool, shop = watched
    if pool == "threads":
        return  # it would be the worker itself
    lost = client.die.delay()
    with pytest.raises(WorkerLostError):
        lost.get(timeout=TIMEOUT)
    assert about(shop, lost.id, "task_failure")
    assert client.die_once.delay(str(tmp_path / "mark")).get(timeout=TIMEOUT) == "survived"


def test_signals_of_the_worker(client: Any, watched: tuple[str, Shop]):
    pool, shop = watched
    os.kill(shop.process.pid, SIGTERM)
    shop.process.wait()
    names = [note[0] for note in shop.notes() if note[0].startswith(("worker", "celeryd"))]
    lives = [name for name in names if not name.startswith("worker_process")]
    assert lives == [
        "celeryd_init",
        "worker_init",
        "celeryd_after_setup",
        "worker_ready",
        "worker_shutting_down",
        "worker_shutdown",
    ]
    processes = {note[2] for note in shop.notes() if note[0] == "worker_process_init"}
    if pool == "threads":
        assert processes == {shop.process.pid}
    else:
        assert shop.process.pid not in processes
        assert shop.noted("worker_process_shutdown")
