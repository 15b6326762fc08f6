"""What Celery's client sends with ``expires`` to RabbitMQ, which drops it unless a worker has taken it before."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError

from tests.celery_app.conftest import TIMEOUT, StartShop
from tests.celery_connections import disconnect
from tests.servers import RabbitServer, RedisServer

ADD, PROGRESS = "tests.celery_app.shop.add", "tests.celery_app.shop.progress"
EXPIRES = 1.0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_what_expires_behind_long_tasks_is_told_of(
    pool: str, rabbit_server: RabbitServer, redis_server: RedisServer, start_shop: StartShop, tmp_path: Path
) -> None:
    """After short tasks too: a child process then has calls ahead, which are taken back from behind a long one."""
    urls = {"broker": rabbit_server.url(), "backend": redis_server.url()}
    client = Celery("sender", set_as_current=False, **urls)
    client.conf.task_default_queue = f"expiring-{uuid4()}"
    start_shop("-P", pool, "-c", "1", **urls, SHOP_QUEUE=client.conf.task_default_queue)
    for result in [client.send_task(ADD, (number, 1)) for number in range(20)]:
        result.get(timeout=TIMEOUT)
    go_on = tmp_path / "go on"
    long = [client.send_task(PROGRESS, (str(go_on),)) for _ in range(3)]
    late = client.send_task(ADD, (1, 1), expires=EXPIRES)
    time.sleep(EXPIRES + 0.2)  # by RabbitMQ's clock it is over then
    go_on.touch()
    with pytest.raises(TaskRevokedError):
        late.get(timeout=TIMEOUT)
    for result in long:
        result.get(timeout=TIMEOUT)
    disconnect(client)
