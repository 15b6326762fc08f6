"""The tables of ``celeriac top``: what stands in each line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from celeriac.cli.visible import visible
from celeriac.monitor.fleet import WorkerRow
from celeriac.monitor.glance import Glance, runtime_of
from celeriac.monitor.queues import QueueRow
from celeriac.monitor.rows import ErrorGroup, TaskRow

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))


class Line(msgspec.Struct, frozen=True):
    """One line of a table.

    :param key: names what it shows.
    """

    key: str
    cells: tuple[str, ...]


class Table(msgspec.Struct, frozen=True):
    """A table.

    :param name: its tab.
    :param headings: with how wide each column is at the most.
    :param nothing: what stands there without lines.
    """

    name: str
    headings: tuple[tuple[str, int], ...]
    lines: Callable[[Glance], Sequence[Line]]
    nothing: str


def span(seconds: float | None) -> str:
    """Return a length of time in few characters."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"


def header(glance: Glance, width: int | None = None) -> str:
    """Return the numbers above all.

    :param width: of the screen; what has no room begins another line, since the last number is that of the dead.
    """
    parts = [
        f"ended {glance.ended}/min",
        f"failed {glance.failed}/min",
        f"running {glance.running}",
        f"waiting {glance.queues.waiting}",
        f"oldest {span(glance.queues.oldest) or '-'}",
        f"workers {glance.alive}",
        f"scheduled {glance.queues.parked}",
        f"dead {glance.queues.dead}",
    ]
    lines = [parts[0]]
    for part in parts[1:]:
        if width is not None and len(lines[-1]) + len(part) + 2 > width:
            lines.append(part)
        else:
            lines[-1] += f"  {part}"
    return "\n".join(lines)


def _task(task: TaskRow, now: float) -> Line:
    since = task.sent or task.received or task.started or task.changed
    cells = (
        task.state,
        task.name or "?",
        span(runtime_of(task, now)),
        span(max(0.0, now - since)) if since else "",
        task.queue,
        task.worker,
        task.id,
        task.error or f"{task.args} {task.kwargs}".strip(),
    )
    return Line(task.id, cells)


def _queue(queue: QueueRow) -> Line:
    return Line(
        queue.name, (queue.name, str(queue.waiting), span(queue.oldest), "paused" if queue.paused else "")
    )


def _worker(worker: WorkerRow, now: float) -> Line:
    cells = (
        worker.node,
        "alive" if worker.lives(now) else "gone",
        "" if worker.active is None else str(worker.active),
        "" if worker.processed is None else str(worker.processed),
        " ".join(f"{load:.2f}" for load in worker.loadavg),
        span(max(0.0, now - worker.heard)),
        f"{worker.software} {worker.version}".strip(),
    )
    return Line(worker.node, cells)


def _error(group: ErrorGroup, now: float) -> Line:
    cells = (str(group.times), group.name, group.error, span(max(0.0, now - group.last)), group.place)
    return Line(group.group, cells)


TASKS = Table(
    "Tasks",
    (
        ("State", 9),
        ("Task", 30),
        ("Ran", 6),
        ("Age", 5),
        ("Queue", 12),
        ("Worker", 20),
        ("Id", 36),
        ("Error or arguments", 60),
    ),
    lambda glance: [_task(task, glance.at) for task in glance.tasks],
    "none was heard of yet: workers tell of tasks if started with -E",
)
QUEUES = Table(
    "Queues",
    (("Queue", 40), ("Waiting", 8), ("Oldest", 7), ("Remarks", 20)),
    lambda glance: [_queue(queue) for queue in glance.queues.queues],
    "no queues yet",
)
WORKERS = Table(
    "Workers",
    (("Worker", 40), ("State", 6), ("Running", 8), ("Done", 9), ("Load", 16), ("Heard", 6), ("Version", 20)),
    lambda glance: [_worker(worker, glance.at) for worker in glance.workers],
    "no worker was heard yet",
)
ERRORS = Table(
    "Errors",
    (("Times", 6), ("Task", 30), ("Error", 25), ("Last", 6), ("Where", 50)),
    lambda glance: [_error(group, glance.at) for group in glance.errors],
    "no errors",
)
TABLES = (TASKS, QUEUES, WORKERS, ERRORS)


def fitted(cell: str, width: int) -> str:
    """Return a cell on one line of at most so many characters, without any that a terminal would act on."""
    text = visible(cell)
    return text if len(text) <= width else text[: width - 1] + "…"


def parents_first(tasks: Sequence[TaskRow]) -> Sequence[TaskRow]:
    """Return the tasks in an order in which each comes after the one that sent it, if that is among them."""
    ordered, waiting = list[TaskRow](), {task.id: task for task in tasks}
    while waiting:
        ready = [task for task in waiting.values() if task.parent not in waiting or task.parent == task.id]
        for task in ready or list(waiting.values())[:1]:  # forged parents may go in a circle
            ordered.append(waiting.pop(task.id))
    return ordered
