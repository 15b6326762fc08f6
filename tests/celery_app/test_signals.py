"""Celery's signals come in Celery's order, with what they are about; those after the ending find it stored."""

import os
from collections.abc import Iterator
from signal import SIGTERM
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError
from celery import signals

from tests.celery_app.conftest import TIMEOUT, Shop, StartShop


@pytest.fixture(scope="module", params=["threads", "processes", "observed processes"])
def kept(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[Shop]]]:
    """Which worker, and those that were started."""
    shops: list[Shop] = []
    yield request.param, shops
    for shop in shops:
        shop.process.stop()


@pytest.fixture
def watched(
    client: Any,
    start_shop: StartShop,
    kept: tuple[str, list[Shop]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Shop]:
    """Workers of both pools; what observes a worker, and what ticks in it, changes nothing of its signals.

    A test that ends the module's worker and runs again gets another.
    """
    which, shops = kept
    *observed, pool = which.split()
    if not shops or not shops[-1].process.running:
        options = (
            ["-B", "--heartbeat-file", str(tmp_path_factory.mktemp("alive") / "file")] if observed else []
        )
        shops.append(start_shop("-P", pool, "-c", "2", *options, SHOP_SIGNALS="yes"))
    return pool, shops[-1]


def about(shop: Shop, task_id: str, last: str) -> list[list[Any]]:
    """What was noted of one task until this signal came."""
    shop.noted(last, task_id)
    return [note for note in shop.notes() if note[1:2] == [task_id]]


def test_processes_are_there_before_messages_are_taken(client: Any, watched: tuple[str, Shop]):
    pool, shop = watched
    names = [note[0] for note in shop.notes()]
    begun = names.index("worker_ready")
    assert names[:begun].count("worker_process_init") == (2 if pool == "processes" else 1)
    assert names[:begun].count("worker_before_create_process") == (2 if pool == "processes" else 0)


def test_heartbeats(client: Any, watched: tuple[str, Shop]):
    """Many a container's liveness probe looks at a file that a receiver of this signal touches."""
    _pool, shop = watched
    assert shop.noted("heartbeat_sent", count=2)


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
    assert rest[1][6] == "traceback"
    rejected = client.rejected.delay()
    rejected.get(timeout=TIMEOUT, propagate=False)
    told = about(shop, rejected.id, "task_failure")[-1]
    assert "Reject" in told[5]
    assert told[6] == "str"  # as from Celery's main process
    again = client.flaky.delay(1)
    assert again.get(timeout=TIMEOUT) == 1
    shop.noted("task_postrun", again.id, count=2)
    assert "task_retry" in [note[0] for note in shop.notes() if note[1:2] == [again.id]]


def test_every_signal_of_the_installed_celery_is_known() -> None:
    """Which are sent, and by whom; a newer Celery may have others."""
    sent = {
        "the worker": {
            "celeryd_init", "worker_init", "celeryd_after_setup", "worker_ready", "heartbeat_sent",
            "worker_shutting_down", "worker_shutdown", "task_received", "task_revoked", "task_unknown", "task_rejected",
        },
        "its processes": {"worker_before_create_process", "worker_process_init", "worker_process_shutdown"},
        "celeriac beat": {"beat_init", "beat_embedded_init"},
        "Celery's own code": {
            "before_task_publish", "after_task_publish", "task_prerun", "task_postrun", "task_success", "task_failure",
            "task_retry", "task_internal_error", "import_modules", "setup_logging", "after_setup_logger",
            "after_setup_task_logger",
        },
        "nobody: options of the app's own are named in a warning": {"user_preload_options"},
        "nobody: these pools are refused": {
            "eventlet_pool_started", "eventlet_pool_preshutdown", "eventlet_pool_postshutdown", "eventlet_pool_apply",
        },
        "nobody: Celery itself has forgotten it": {"task_sent"},
    }  # fmt: skip
    there = {name for name, found in vars(signals).items() if isinstance(found, signals.Signal)}
    assert there <= set().union(*sent.values())


def test_a_lost_process(client: Any, watched: tuple[str, Shop], tmp_path):
    pool, shop = watched
    if pool == "threads":
        return  # it would be the worker itself
    lost = client.die.delay()
    with pytest.raises(WorkerLostError, match=r"^Worker exited prematurely: .* signal 9 \(SIGKILL\)$"):
        lost.get(timeout=TIMEOUT)
    shop.process.wait_for(
        "Task handler raised error: WorkerLostError('Worker exited prematurely", timeout=TIMEOUT
    )
    told = about(shop, lost.id, "task_failure")[-1]
    assert "WorkerLostError" in told[5]
    assert told[6] == "str"
    assert client.die_once.delay(str(tmp_path / "mark")).get(timeout=TIMEOUT) == "survived"


def test_signals_of_the_worker(client: Any, watched: tuple[str, Shop]):
    pool, shop = watched
    os.kill(shop.process.pid, SIGTERM)
    shop.process.wait()
    names = [note[0] for note in shop.notes() if note[0].startswith(("worker", "celeryd"))]
    lives = [name for name in names if not name.startswith(("worker_process", "worker_before"))]
    assert lives == [
        "celeryd_init",
        "worker_init",
        "celeryd_after_setup",
        "worker_ready",
        "worker_shutting_down",
        "worker_shutdown",
    ]
    (stopping,) = shop.noted("worker_shutting_down")
    assert stopping[3:] == ["SIGTERM", "Warm", 0]
    processes = {note[2] for note in shop.notes() if note[0] == "worker_process_init"}
    if pool == "threads":
        assert processes == {shop.process.pid}
    else:
        assert shop.process.pid not in processes
        assert shop.noted("worker_process_shutdown")
