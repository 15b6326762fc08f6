"""Tasks and results in one SQLite file, without any server."""

import json
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from bench.ground import STALLED, Watch
from bench.measures.consume import LEFT_OUT, POLL
from bench.plan import Plan
from bench.rows import Row, at_least
from bench.workers import Running, celeriac, run_client

RESULTS = "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'"
MESSAGES = "SELECT count(*) FROM celeriac_message"


def measure(plan: Plan) -> list[Row]:
    """Tasks a second, between 5 % and all of the results."""
    rates = plan.in_turns("sqlite", {"celeriac": lambda: consume(plan.sizes.sqlite)})["celeriac"]
    return [Row("SQLite: consume async tasks", "tasks/s", rates, goal=at_least(2000))]


def consume(count: int) -> float:
    """Fill a new file, start the worker, measure, check, stop."""
    with tempfile.TemporaryDirectory(prefix="celeriac-bench-") as directory:
        file = Path(directory, "bench.db")
        env = {"CELERY_BROKER_URL": f"sqlite:///{file}", "CELERY_RESULT_BACKEND": f"sqlite:///{file}"}
        ids = json.loads(run_client("celeriac", "fill", count, env=env))["ids"]
        with celeriac().running(env) as worker, closing(sqlite3.connect(file)) as reader:
            rate = watch(reader, worker, count)
            check(reader, worker, ids)
        return rate


def watch(reader: sqlite3.Connection, worker: Running, count: int) -> float:
    """Measure a worker that is starting on a full queue."""
    keeps_going = Watch(worker)
    while (first := done(reader)) < count * LEFT_OUT:
        keeps_going.saw(first)
        time.sleep(POLL)
    start = time.perf_counter()
    while (now := done(reader)) < count:
        keeps_going.saw(now)
        time.sleep(POLL)
    return (count - first) / (time.perf_counter() - start)


def done(reader: sqlite3.Connection) -> int:
    """How many results there are."""
    try:
        return int(reader.execute(RESULTS).fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # the worker has not made its tables yet


def check(reader: sqlite3.Connection, worker: Running, ids: Sequence[str]) -> None:
    """Raise ``WorkerFailed`` unless every task has its right result and no message is left."""
    rows = dict(reader.execute("SELECT task_id, result FROM celery_taskmeta WHERE status = 'SUCCESS'"))
    wrong = [task_id for task_id in ids if task_id not in rows or json.loads(rows[task_id]) != 5]
    if wrong:
        raise worker.failure(f"has no right result for {len(wrong)} tasks, such as {wrong[0]}")
    deadline = time.perf_counter() + STALLED
    while left := reader.execute(MESSAGES).fetchone()[0]:
        if time.perf_counter() > deadline:
            raise worker.failure(f"left behind {left} messages")
        time.sleep(POLL)
