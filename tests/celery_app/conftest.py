"""A celeriac worker of a Celery app, started as its users start it, and Celery's own client of that app."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import celery
import pytest

from tests.celery_app import shop
from tests.celery_connections import disconnect
from tests.lines import whole_lines
from tests.servers import LoggedProcess, RedisServer

WITH_PYDANTIC = pytest.mark.skipif(celery.VERSION < (5, 5), reason="Celery has models from 5.5 on")

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 60
START = 90
"""Seconds until a worker is ready: its app is imported twice, once for its child processes."""


class Shop:
    """A worker of the shop app, and what its tasks noted.

    :param before: how many of the notes are of no concern.
    """

    def __init__(self, process: LoggedProcess, notes: Path, before: int = 0) -> None:
        self.process = process
        self._notes = notes
        self._before = before

    def anew(self) -> "Shop":
        """The same worker without what was noted so far: a test counts its own notes, also when it runs again."""
        return Shop(self.process, self._notes, self._before + len(self.notes()))

    def notes(self) -> list[list[Any]]:
        """Everything that was noted so far."""
        return [json.loads(line) for line in whole_lines(self._notes)[self._before :]]

    def noted(self, *start: Any, count: int = 1) -> list[list[Any]]:
        """The notes that begin so, as soon as there are that many."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            found = [note for note in self.notes() if note[: len(start)] == list(start)]
            if len(found) >= count or time.monotonic() > deadline:
                assert len(found) >= count, (start, self.notes(), self.process.output)
                return found
            time.sleep(0.01)


StartShop = Callable[..., Shop]


@pytest.fixture(scope="module")
def start_shop(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartShop]:
    """Starts workers of the shop app; all are stopped at the end."""
    started: list[LoggedProcess] = []

    def start(*options: str, broker: str = "", backend: str = "", **environment: str) -> Shop:
        notes = tmp_path_factory.mktemp("shop") / "notes"
        url = broker or shop.app.conf.broker_url
        variables = {
            **os.environ,
            "SHOP_BROKER": url,
            "SHOP_BACKEND": backend or url,
            "SHOP_QUEUE": shop.app.conf.task_default_queue,
            "SHOP_NOTES": str(notes),
            **environment,
        }
        command = [sys.executable, "-m", "celeriac", "worker", "-A", "tests.celery_app.shop", *options]
        process = LoggedProcess(command, env=variables, cwd=ROOT)
        started.append(process)
        process.wait_for(" ready", timeout=START)
        return Shop(process, notes)

    yield start
    for process in started:
        process.stop()


@pytest.fixture(scope="module")
def client(redis_server: RedisServer) -> Iterator[Any]:
    """The shop app as a client of the session's Redis, with a queue of the module's own."""
    url = redis_server.url()
    queue = f"shop-{os.getpid()}-{time.monotonic_ns()}"
    shop.app.conf.update(broker_url=url, result_backend=url, task_default_queue=queue)
    yield shop
    disconnect(shop.app)
