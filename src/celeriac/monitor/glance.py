"""One look at a fleet: the numbers above all, and the tasks, queues, workers and errors that matter most.

Rules: what is running comes first. A broker that does not answer leaves the rest as it is, and its trouble is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from celeriac.errors import CeleriacError
from celeriac.monitor.filters import Filter
from celeriac.monitor.fleet import WorkerRow
from celeriac.monitor.monitor import Monitor
from celeriac.monitor.queues import QueuesNow
from celeriac.monitor.rows import ENDED, ErrorGroup, MinuteRow, TaskRow

Order: TypeAlias = Literal["newest", "runtime", "age", "name"]
ORDERS: Sequence[Order] = ("newest", "runtime", "age", "name")

MOST = 200
"""Tasks that one look takes of those that run, and of the newest."""

ASKED = 1.0
"""Seconds that workers have to tell what they run."""

_NOTHING = QueuesNow((), 0, 0, 0, 0.0)


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """What one look saw.

    :param ended: tasks that ended within the last minute, and ``failed`` of these.
    :param running: tasks that run, as the workers count them.
    :param tasks: those that run first, then as ordered.
    :param trouble: why the broker tells nothing; empty where it does.
    """

    at: float
    ended: int
    failed: int
    running: int
    queues: QueuesNow
    workers: Sequence[WorkerRow]
    tasks: Sequence[TaskRow]
    errors: Sequence[ErrorGroup]
    trouble: str = ""

    @property
    def alive(self) -> int:
        """How many workers live."""
        return sum(worker.lives(self.at) for worker in self.workers)


async def look(
    monitor: Monitor, wanted: Filter, order: Order = "newest", before: Glance | None = None
) -> Glance:
    """Return what is there now.

    :param wanted: which tasks.
    :param before: the last look, whose queues are shown again where the broker does not answer.
    """
    now, trouble = monitor.clock.now(), monitor.trouble
    try:
        queues = await monitor.queues.now(monitor.app.connections().broker)
    except CeleriacError as error:
        queues, trouble = before.queues if before else _NOTHING, str(error)
    minutes = await monitor.history.minutes(now - 60)
    workers = monitor.fleet.workers(now)
    return Glance(
        at=now,
        ended=_of_a_minute(minutes, now),
        failed=_of_a_minute([row for row in minutes if row.state == "FAILURE"], now),
        running=sum(worker.active or 0 for worker in workers if worker.lives(now)),
        queues=queues,
        workers=workers,
        tasks=await _tasks(monitor, wanted, order, now),
        errors=await monitor.history.groups(limit=MOST),
        trouble=trouble,
    )


async def seed(monitor: Monitor) -> None:
    """Learn from the workers which tasks run already: events tell only of what happens from now on."""
    try:
        asked = await monitor.app.control.ask("active", {"safe": True}, timeout=ASKED)
    except CeleriacError:
        return  # the next look says what is wrong
    events = [
        event
        for node, told in asked.by_node.items()
        if isinstance(told, list)
        for item in told
        if (event := _started(node, item)) is not None
    ]
    await monitor.history.take(events)


def _started(node: str, item: object) -> dict[str, object] | None:
    """Return the event that an entry of the answer to ``active`` stands for."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return None
    told = item.get("delivery_info")
    queue = told.get("routing_key") if isinstance(told, dict) else None
    return {
        "type": "task-started",
        "uuid": item["id"],
        "hostname": node,
        "timestamp": item.get("time_start"),
        "name": item.get("name"),
        "args": item.get("args"),
        "kwargs": item.get("kwargs"),
        "queue": queue,
    }


async def _tasks(monitor: Monitor, wanted: Filter, order: Order, now: float) -> list[TaskRow]:
    newest = (await monitor.history.tasks(wanted, limit=MOST)).tasks
    started: Sequence[TaskRow] = ()
    if not wanted.state:
        begun = msgspec.structs.replace(wanted, state="STARTED")
        started = (await monitor.history.tasks(begun, limit=MOST)).tasks
    known = {task.id: task for task in (*started, *newest)}
    rows = list(known.values())
    if order == "name":
        rows.sort(key=lambda task: task.name)
    elif order == "runtime":
        rows.sort(key=lambda task: -(runtime_of(task, now) or 0.0))
    elif order == "age":
        rows.sort(key=lambda task: task.sent or task.received or task.started or task.changed)
    rows.sort(key=lambda task: task.state != "STARTED")
    return rows


def runtime_of(task: TaskRow, now: float) -> float | None:
    """Return for how many seconds a task ran, or runs by now."""
    if task.state not in ENDED and task.started is not None and task.state == "STARTED":
        return max(0.0, now - task.started)
    return task.runtime


def _of_a_minute(rows: Sequence[MinuteRow], now: float) -> int:
    """Return how many of the counted ended within the last 60 seconds, if they did so evenly."""
    minute, share = int(now // 60), (now % 60) / 60
    this = sum(row.tasks for row in rows if row.minute == minute)
    last = sum(row.tasks for row in rows if row.minute == minute - 1)
    return round(this + last * (1 - share))
