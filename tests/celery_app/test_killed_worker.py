"""A worker that is killed with its children: they store results and acknowledge messages themselves."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.celery_app import killed_app
from tests.celery_app.conftest import ROOT, START
from tests.celery_connections import disconnect
from tests.servers import LoggedProcess, RedisServer

COUNT, CHILDREN = 4000, 2


def test_it_loses_what_its_children_ran_and_repeats_nothing(own_redis: RedisServer, tmp_path: Path):
    url, file, client, kills = own_redis.url(), tmp_path / "runs", own_redis.client(), 0
    file.touch()
    killed_app.app.conf.update(broker_url=url, result_backend=url)
    try:
        ids = [killed_app.noted.delay(str(file), number).id for number in range(COUNT)]
    finally:
        disconnect(killed_app.app)

    def is_over() -> bool:
        return client.llen("celery") == client.hlen("unacked") == 0

    while not is_over():
        enough = len(runs(file)) + 800
        run_some(url, lambda enough=enough: is_over() or len(runs(file)) > enough)
        kills += 1
    assert kills >= 4
    ran = Counter(runs(file))
    assert max(ran.values()) == 1, "repeated"
    assert COUNT - len(ran) <= kills * CHILDREN, "acknowledged, and not begun"
    without = sum(stored is None for stored in client.mget([f"celery-task-meta-{one}" for one in ids]))
    assert without <= kills * CHILDREN * 2, "acknowledged, and without a result"


def runs(file: Path) -> list[str]:
    return file.read_text().split()


def run_some(url: str, is_enough: Callable[[], bool]) -> None:
    """Let a worker run tasks until it is enough, and kill it."""
    options = ("-A", "tests.celery_app.killed_app", "-P", "processes", "-c", str(CHILDREN))
    process = LoggedProcess(
        (sys.executable, "-m", "celeriac", "worker", *options),
        env={**os.environ, "KILLED_URL": url},
        cwd=ROOT,
    )
    try:
        until = time.monotonic() + START
        while not is_enough():
            assert time.monotonic() < until, process.output
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.kill()
