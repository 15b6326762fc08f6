"""The dashboard: its pages over a full history, a minute of many tasks, and a bulk of failed tasks that run again."""

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import psutil

from bench.ground import Ground
from bench.plan import Plan
from bench.rows import Row, at_least, at_most
from celeriac import Celeriac
from celeriac.contracts.set_aside import Failed
from celeriac.monitor.filters import Filter
from celeriac.monitor.history import History
from celeriac.monitor.masking import Mask
from celeriac.monitor.monitor import Monitor
from celeriac.web.dashboard import Dashboard, Settings
from celeriac.wire.envelope import Envelope, Route

RATE = 5_000
"""Tasks a second of the minute."""

LOOKS = 20
BATCH = 5_000
STEP = 0.25
FAILING = 100
"""Of so many tasks one fails."""


def measure(plan: Plan) -> list[Row]:
    """Pages and a search, a minute at 5,000 tasks a second, and a bulk."""
    rows = []
    with Ground(plan.molds) as ground, TemporaryDirectory() as folder:
        app = Celeriac("bench", ground.env["CELERY_BROKER_URL"], ground.env["CELERY_RESULT_BACKEND"])
        path = Path(folder) / "history.db"
        pages = asyncio.run(_pages(app, path, plan.sizes.history))
        rows += [
            Row(f"dashboard: {name}, {plan.sizes.history:,} tasks, p95", "ms", [value], goal=at_most(300))
            for name, value in pages.items()
        ]
        rows += asyncio.run(_stream(Path(folder) / "stream.db", plan.sizes.stream))
        rows.append(asyncio.run(_bulk(app, Path(folder) / "bulk.db", plan.sizes.bulk)))
    return rows


async def _pages(app: Celeriac, path: Path, tasks: int) -> dict[str, float]:
    """Return the 95th percentile of each page's time, in milliseconds."""
    history = History(path, mask=Mask(), rate=1e9)
    await history.open()
    ids = list[str]()
    for events in _batches(tasks, ids):
        await history.take(events)
    await history.close()
    failed = ids[FAILING * (len(ids) // FAILING // 2)]
    asked = {
        "overview": "/",
        "tasks": "/tasks",
        "tasks that failed": "/tasks?state=FAILURE",
        "search of an argument": f"/tasks?text={quote('order-' + str(tasks // 2))}",
        "one task": f"/tasks/{failed}",
        "errors": "/errors",
    }
    found = {}
    async with app, Monitor(app, path) as monitor:
        dashboard = Dashboard(monitor, Settings(hosts=None))
        for name, url in asked.items():
            times = [await _get(dashboard, url) for _ in range(LOOKS)]
            found[name] = quantiles(times, n=20)[-1] * 1000
    return found


async def _get(dashboard: Dashboard, url: str) -> float:
    """Ask for a page, as a server would; return the seconds it took."""
    path, _, query = url.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost")],
        "scheme": "http",
        "server": ("localhost", 80),
    }
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    start = time.perf_counter()
    # A page alone: the dashboard's own start would listen a second time.
    await dashboard._inner(scope, receive, send)  # type: ignore[arg-type]  # noqa: SLF001
    taken = time.perf_counter() - start
    assert status == 200, f"{url}: {status}"
    return taken


async def _stream(path: Path, seconds: int) -> list[Row]:
    """Take in as many events as a busy fleet sends; return how far behind it was, and how its memory grew."""
    history = History(path, mask=Mask())
    await history.open()
    process, before, behind, failed = psutil.Process(), 0, 0.0, 0
    start = time.perf_counter()
    for number in range(int(seconds / STEP)):
        due = start + number * STEP
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        ids = list[str]()
        await history.take([event for batch in _batches(int(RATE * STEP), ids) for event in batch])
        failed += -(-len(ids) // FAILING)
        behind = max(behind, time.perf_counter() - due)
        if number == int(seconds / STEP) // 3:
            before = process.memory_info().rss
    grown = (process.memory_info().rss - before) / 1e6
    stored = await history.count(Filter(state="FAILURE"), 10**9)
    minutes = sum(row.tasks for row in await history.minutes(0.0))
    await history.close()
    assert stored == failed, f"{stored} of {failed} failures were stored"
    assert minutes == int(seconds / STEP) * int(RATE * STEP), "a minute lacks tasks"
    name = f"dashboard: {seconds} s at {RATE:,} tasks/s"
    return [
        Row(f"{name}, behind at most", "s", [behind], goal=at_most(2)),
        Row(f"{name}, memory grew by", "MB", [max(0.0, grown)], goal=at_most(50)),
    ]


async def _bulk(app: Celeriac, path: Path, tasks: int) -> Row:
    """Run kept tasks again; return how many a second."""
    async with app, Monitor(app, path) as monitor:
        broker, ids = app.connections().broker, [str(uuid.uuid4()) for _ in range(tasks)]
        for start in range(0, tasks, BATCH):
            await asyncio.gather(*(_keep(broker, id) for id in ids[start : start + BATCH]))
        began = time.perf_counter()
        job = await monitor.jobs.run("retry", ids, monitor.actions.retry_failed)
        while job.under_way:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - began
        assert job.done == tasks, job.trouble
        assert await broker.depth("celery") == tasks
        await broker.purge("celery")
    return Row(
        f"dashboard: {tasks:,} failed tasks run again", "tasks/s", [tasks / seconds], goal=at_least(500)
    )


async def _keep(broker: Any, id: str) -> None:
    headers = {"lang": "py", "task": "bench.tasks.add", "id": id, "root_id": id, "retries": 0}
    body = b'[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
    envelope = Envelope(
        body=body,
        content_type="application/json",
        content_encoding="utf-8",
        headers=headers,
        correlation_id=id,
    )
    await broker.failed.add(envelope, Route("celery").routing_key, Failed(id, "ValueError('no')"))


def _batches(tasks: int, ids: list[str]) -> Iterator[Sequence[dict[str, Any]]]:
    """Yield the events of so many tasks, of which one in ``FAILING`` fails; add their ids."""
    for start in range(0, tasks, BATCH):
        events = list[dict[str, Any]]()
        for number in range(start, min(start + BATCH, tasks)):
            id, at = str(uuid.uuid4()), time.time()
            ids.append(id)
            common = {"uuid": id, "hostname": f"w{number % 7}@bench", "timestamp": at}
            events.append(
                {
                    "type": "task-received",
                    "name": f"shop.task_{number % 50}",
                    "args": f"('order-{number}', {number % 97})",
                    "kwargs": "{'currency': 'EUR'}",
                    "queue": "celery",
                    **common,
                }
            )
            events.append({"type": "task-started", **common})
            if number % FAILING:
                events.append({"type": "task-succeeded", "result": str(number), "runtime": 0.01, **common})
            else:
                place = f"shop/task_{number % 50}.py"
                frame = f'  File "{place}", line 3, in pay'
                traceback = f"Traceback (most recent call last):\n{frame}\nValueError: {number}"
                events.append(
                    {
                        "type": "task-failed",
                        "exception": f"ValueError({number})",
                        "traceback": traceback,
                        **common,
                    }
                )
        yield events
