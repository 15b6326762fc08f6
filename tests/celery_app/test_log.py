"""Lines of the log that filters and alerts of Celery's users go by are Celery's; so are the facts of its signals."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from signal import SIGKILL, SIGQUIT, SIGTERM
from typing import Any

import pytest
from celery.exceptions import NotRegistered, TaskRevokedError

from tests.celery_app.conftest import TIMEOUT, Shop, StartShop
from tests.celery_app.test_stopping import running

NAME = "tests.celery_app.shop"


@pytest.fixture(scope="module", params=["threads", "processes"])
def shop(client: Any, start_shop: StartShop, request: pytest.FixtureRequest) -> Iterator[tuple[str, Shop]]:
    started = start_shop("-P", request.param, "-c", "3", SHOP_SIGNALS="yes")
    yield request.param, started
    started.process.stop()


def test_time_limits(client: Any, shop: tuple[str, Shop]):
    _, worker = shop
    soft = client.sleep.apply_async((60,), soft_time_limit=0.5)
    worker.process.wait_for(
        f"WARNING/MainProcess] Soft time limit (0.5s) exceeded for {NAME}.sleep[{soft.id}]", timeout=TIMEOUT
    )
    whole = client.sleep.apply_async((60,), soft_time_limit=1)
    worker.process.wait_for(f"Soft time limit (1s) exceeded for {NAME}.sleep[{whole.id}]", timeout=TIMEOUT)
    hard = client.sleep.apply_async((60,), time_limit=0.5)
    worker.process.wait_for(
        f"ERROR/MainProcess] Hard time limit (0.5s) exceeded for {NAME}.sleep[{hard.id}]", timeout=TIMEOUT
    )
    assert worker.process.output.count(f"Soft time limit (0.5s) exceeded for {NAME}.sleep[{soft.id}]") == 1


@pytest.mark.parametrize(("signal", "number"), [("SIGKILL", SIGKILL), (None, SIGTERM)])
def test_a_task_that_is_terminated(
    client: Any, shop: tuple[str, Shop], tmp_path: Any, signal: str | None, number: int
):
    pool, worker = shop
    if pool == "threads":
        pytest.skip("a thread cannot be stopped")
    result, _ = running(client, tmp_path)
    client.app.control.revoke(result.id, terminate=True, **({} if signal is None else {"signal": signal}))
    with pytest.raises(TaskRevokedError):
        result.get(timeout=TIMEOUT)
    assert worker.noted("task_revoked", result.id) == [["task_revoked", result.id, True, number, False]]
    worker.process.wait_for(f"INFO/MainProcess] Terminating {result.id} ({number})", timeout=TIMEOUT)
    # The process that ran it announces its end, with the exit code of one that SIGTERM ends in Celery's pool.
    before = len(worker.noted("worker_process_shutdown"))
    assert [note[5] for note in worker.noted("worker_process_shutdown")] == [-241] * before


def test_tasks_that_do_not_run(client: Any, shop: tuple[str, Shop]):
    _, worker = shop
    expired = client.add.apply_async((1, 1), expires=datetime.now(UTC) - timedelta(1))
    with pytest.raises(TaskRevokedError):
        expired.get(timeout=TIMEOUT)
    assert worker.noted("task_revoked", expired.id) == [["task_revoked", expired.id, False, None, True]]
    worker.process.wait_for(
        f"INFO/MainProcess] Discarding revoked task: {NAME}.add[{expired.id}]", timeout=TIMEOUT
    )
    assert f"Task {NAME}.add[{expired.id}] received" in worker.process.output
    errbacks = [client.call_back.s(), client.told.si("x")]
    unknown = client.app.send_task("nowhere.nothing", link_error=errbacks)
    with pytest.raises(NotRegistered):
        unknown.get(timeout=TIMEOUT)
    worker.process.wait_for(
        "ERROR/MainProcess] Received unregistered task of type 'nowhere.nothing'.", timeout=TIMEOUT
    )
    # Nor does Celery call the errbacks of a task that it does not know.
    assert client.add.delay(1, 1).get(timeout=TIMEOUT) == 2
    worker.noted("task_success")
    assert not [note for note in worker.notes() if note[0] in ("errback", "told")]


def test_what_is_told_of_a_running_task(client: Any, shop: tuple[str, Shop], tmp_path: Any):
    go_on = tmp_path / "go-on"
    result = client.progress.apply_async((str(go_on),), priority=5)
    while result.state == "PENDING":
        time.sleep(0.05)
    (tasks,) = client.app.control.inspect(timeout=10, limit=1).active().values()
    go_on.touch()
    assert [told["delivery_info"]["priority"] for told in tasks if told["id"] == result.id] == [5]


def test_a_worker_that_stops(client: Any, start_shop: StartShop, tmp_path: Any):
    """Celery's worker prints these, beside its log."""
    worker = start_shop("-P", "threads", "-c", "1", SHOP_SOFT_SHUTDOWN="60")
    _, go_on = running(client, tmp_path)
    os.kill(worker.process.pid, SIGTERM)
    worker.process.wait_for("worker: Warm shutdown (MainProcess)", timeout=TIMEOUT)
    os.kill(worker.process.pid, SIGQUIT)
    worker.process.wait_for("worker: Cold shutdown (MainProcess)", timeout=TIMEOUT)
    worker.process.wait_for("Initiating Soft Shutdown, terminating in 60 seconds", timeout=TIMEOUT)
    go_on.touch()
    worker.process.wait(timeout=TIMEOUT)
