"""What each page shows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request

from celeriac.celeriac import Celeriac
from celeriac.client.app import App
from celeriac.client.removing import waiting_of
from celeriac.contracts.broker import Parked, Surveyed
from celeriac.contracts.removal import Removing
from celeriac.contracts.set_aside import DeadLetter
from celeriac.errors import CeleriacError
from celeriac.monitor.filters import Filter, read_filter
from celeriac.monitor.fleet import WorkerRow
from celeriac.monitor.masking import Mask
from celeriac.monitor.monitor import Monitor
from celeriac.monitor.queues import QueuesNow
from celeriac.monitor.rows import TaskRow
from celeriac.servers.url_parts import masked
from celeriac.web.rendering import Page, Rendered
from celeriac.web.showing import call_of, per_minute
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.failure import Failure
from celeriac.wire.preview import preview
from celeriac.wire.result import ResultRecord
from celeriac.wire.task import Malformed, decode

HOUR = 3600.0
DAY = 24
PEEKED = 50
LISTED = 100
LIMITS = ["rate_limit", "soft_time_limit", "time_limit"]
"""What a worker is asked to tell of each of its tasks."""

_ROW = re.compile(r"[0-9]{1,18}")
ASKED = 1.0
"""Seconds that a worker has for its answers."""


class Line(msgspec.Struct, frozen=True):
    """One message in a list.

    :param key: names the entry for actions; empty where there are none.
    """

    key: str
    id: str
    task: str
    arguments: str
    queue: str
    at: float | None = None
    reason: str = ""


async def overview(monitor: Monitor, request: Request) -> Rendered:
    """Show what goes on, and what is wrong."""
    now = monitor.clock.now()
    queues, silence = await _queues_now(monitor)
    minutes = await monitor.history.minutes(now - HOUR)
    workers = monitor.fleet.alive(now)
    groups = await monitor.history.groups(now - HOUR, limit=5)
    counts = per_minute(minutes, now)
    data = {
        "queues": queues,
        "workers": workers,
        "counts": counts,
        "ended": sum(map(sum, counts)),
        "failed": sum(failed for _, failed in counts),
        "running": sum(worker.active or 0 for worker in workers),
        "groups": groups,
        "wrong": _what_is_wrong(monitor, queues, silence, workers),
        "known": not silence,
    }
    return Rendered("overview.html", "Overview", data)


async def tasks(monitor: Monitor, request: Request) -> Rendered:
    """Show tasks, the newest first."""
    query = request.query_params
    wanted = read_filter(query, monitor.clock.now())
    before = int(query["before"]) if _ROW.fullmatch(query.get("before", "")) else None
    page = await monitor.history.tasks(wanted, before=before)
    given = {name: value for name, value in query.items() if value and name not in ("before", "said")}
    data = {
        "page": page,
        "wanted": wanted,
        "names": await monitor.history.names(),
        "number": await monitor.history.count(wanted),
        "given": given,
        "next": urlencode({**given, "before": page.next}) if page.next else "",
        "filtered": wanted != Filter(),
        "share": monitor.history.share,
        "left_out": monitor.left_out,
    }
    return Rendered("tasks.html", "Tasks", data)


async def task(monitor: Monitor, request: Request) -> Rendered:
    """Show one task: its arguments, attempts, workflow."""
    id = request.path_params["id"]
    row = await monitor.history.task(id)
    record = await _record(monitor, id, needed=row is None)
    if row is None:
        if record is None:
            return Rendered("unknown.html", f"Task {id}", {"text": f"Nothing is known of task {id}."}, 404)
        row = _of_record(record, monitor.mask)
    attempts = await monitor.history.attempts(id)
    family = await monitor.history.of_root(row.root or row.id)
    stored = None if record is None else record.status
    kept = None
    if row.state == "FAILURE":
        with suppress(CeleriacError):  # the history is there without the broker
            kept = await monitor.kept.of(monitor.app.connections().broker, id, monitor.app.codecs)
    try:
        arguments = kept or await monitor.actions.arguments(row)
        known = (preview(arguments.args, 4000), preview(arguments.kwargs, 4000))
        command = call_of(row, arguments.args, arguments.kwargs)
    except CeleriacError:
        known, command = (row.args, row.kwargs), ""
    data = {
        "task": row,
        "attempts": attempts,
        "family": family if len(family) > 1 else [],
        "stored": stored,
        "kept": kept,
        "headers": monitor.mask(preview(kept.headers, 4000)) if kept is not None and kept.headers else "",
        "command": command if monitor.mask(command) == command else "",
        "args": monitor.mask(known[0]),
        "kwargs": monitor.mask(known[1]),
    }
    return Rendered("task.html", f"{row.name or 'Task'} {id}", data)


async def errors(monitor: Monitor, request: Request) -> Rendered:
    """Show errors, grouped by task, class and place."""
    queues, _ = await _queues_now(monitor)
    data = {
        "groups": await monitor.history.groups(),
        "hours": await monitor.history.by_hour(DAY),
        "quiet": [0] * DAY,
        "kept": queues.failed,
    }
    return Rendered("errors.html", "Errors", data)


async def queues(monitor: Monitor, request: Request) -> Rendered:
    """Show the queues with what waits in each."""
    now = await monitor.queues.now(monitor.app.connections().broker)
    return Rendered("queues.html", "Queues", {"queues": now})


async def queue(monitor: Monitor, request: Request) -> Rendered:
    """Show what one queue would hand out next."""
    broker, name = monitor.app.connections().broker, request.path_params["name"]
    if name not in await monitor.queues.names(broker):
        return Rendered("unknown.html", f"Queue {name}", {"text": f"There is no queue {name}."}, 404)
    depth, messages, paused = await asyncio.gather(
        broker.depth(name), broker.peek(name, PEEKED), monitor.app.control.paused()
    )
    lines = [
        _line(waiting_of(message, monitor.app.codecs).key, message, name, monitor.app, monitor.mask)
        for message in messages
    ]
    data = {
        "name": name,
        "depth": depth,
        "lines": lines,
        "paused": name in paused,
        "names": sorted({line.task for line in lines if line.task}),
        "removes": isinstance(broker, Removing),
        "reach": broker.removal_reach if isinstance(broker, Removing) else None,
        "followed": not isinstance(broker, Surveyed) or broker.shows_heads,
    }
    return Rendered("queue.html", f"Queue {name}", data)


async def workers(monitor: Monitor, request: Request) -> Rendered:
    """Show the workers that were heard."""
    now = monitor.clock.now()
    rows = [(worker, worker.lives(now)) for worker in monitor.fleet.workers(now)]
    return Rendered("workers.html", "Workers", {"workers": rows})


async def worker(monitor: Monitor, request: Request) -> Rendered:
    """Show one worker, by its own answers."""
    node = request.path_params["node"]
    answers = await asyncio.gather(
        *(
            monitor.app.control.ask(method, destination=[node], timeout=ASKED)
            for method in ("stats", "active", "active_queues")
        ),
        monitor.app.control.ask("registered", {"taskinfoitems": LIMITS}, destination=[node], timeout=ASKED),
    )
    stats, active, held, known = (answer.by_node.get(node) for answer in answers)
    heard = next((row for row in monitor.fleet.workers(monitor.clock.now()) if row.node == node), None)
    if heard is None and stats is None:
        return Rendered("unknown.html", f"Worker {node}", {"text": f"No worker {node} was heard."}, 404)
    data = {
        "node": node,
        "heard": heard,
        "stats": _flat(stats if isinstance(stats, dict) else {}),
        "active": [_running(item, monitor.mask) for item in active] if isinstance(active, list) else [],
        "held": [str(item.get("name")) for item in held if isinstance(item, dict)]
        if isinstance(held, list)
        else [],
        "limits": _limits(known),
        "answers": stats is not None,
    }
    return Rendered("worker.html", f"Worker {node}", data)


async def scheduled(monitor: Monitor, request: Request) -> Rendered:
    """Show periodic tasks, and tasks that have their time yet to come."""
    schedule = monitor.app.connections().broker.schedule
    number, entries = await asyncio.gather(schedule.count(), schedule.list(LISTED))
    lines = [_entry(entry, monitor.app, monitor.mask) for entry in entries]
    periodic = await monitor.app.schedules.list() if isinstance(monitor.app, Celeriac) else []
    data = {"lines": lines, "number": number, "periodic": periodic}
    return Rendered("scheduled.html", "Scheduled", data)


async def dead(monitor: Monitor, request: Request) -> Rendered:
    """Show messages that were set aside, and those of tasks that failed for good, the latest first."""
    broker = monitor.app.connections().broker
    number, entries, kept = await asyncio.gather(
        broker.dead.count(), broker.dead.list(LISTED), broker.failed.count()
    )
    failed = await broker.failed.list(LISTED, max(0, kept - LISTED))
    data = {
        "lines": [_entry(entry, monitor.app, monitor.mask) for entry in entries],
        "number": number,
        "failed": [_entry(entry, monitor.app, monitor.mask) for entry in reversed(failed)],
        "kept": kept,
    }
    return Rendered("dead.html", "Dead and failed", data)


async def about(monitor: Monitor, request: Request) -> Rendered:
    """Show what the dashboard is connected to, and what was done by it."""
    app = monitor.app
    data = {
        "broker": masked(app.broker_url or ""),
        "backend": masked(app.backend_url or ""),
        "actions": await monitor.history.actions(),
        "jobs": monitor.jobs.all(),
        "share": monitor.history.share,
        "left_out": monitor.left_out,
    }
    return Rendered("about.html", "About", data)


PAGES: Mapping[str, Page] = {
    "/": overview,
    "/tasks": tasks,
    "/tasks/{id:path}": task,
    "/errors": errors,
    "/queues": queues,
    "/queues/{name:path}": queue,
    "/workers": workers,
    "/workers/{node:path}": worker,
    "/scheduled": scheduled,
    "/dead": dead,
    "/about": about,
}
"""The pages by path."""


def _of_record(record: ResultRecord, mask: Mask) -> TaskRow:
    """Return what the result store holds of a task of which no event came."""
    failed = isinstance(record.result, Failure)
    return TaskRow(
        record.task_id,
        name=record.name or "",
        state=record.status,
        queue=record.queue or "",
        worker=record.worker or "",
        args=mask(preview(record.args, 4000)) if record.args is not None else "",
        kwargs=mask(preview(record.kwargs, 4000)) if record.kwargs is not None else "",
        result="" if failed else mask(preview(record.result, 4000)),
        error=mask(preview(record.result, 4000)) if failed else "",
        retries=record.retries or 0,
        ended=record.date_done.timestamp() if record.date_done is not None else None,
    )


async def _record(monitor: Monitor, id: str, *, needed: bool) -> ResultRecord | None:
    """Return the result of a task; an outage of the result store is an error only where it is needed."""
    try:
        return (await monitor.app.connections().backend.load([id]))[0]
    except CeleriacError:
        if needed:
            raise
        return None


async def _queues_now(monitor: Monitor) -> tuple[QueuesNow, str]:
    """Return what waits, or nothing and why the broker does not answer: the history is there without it."""
    try:
        return await monitor.queues.now(monitor.app.connections().broker), ""
    except CeleriacError as error:
        return QueuesNow((), 0, 0, 0, monitor.clock.now()), str(error)


def _what_is_wrong(
    monitor: Monitor, queues: QueuesNow, silence: str, workers: Sequence[WorkerRow]
) -> list[str]:
    wrong = [f"The broker does not answer, so what waits is not known: {silence}"] if silence else []
    if monitor.trouble:
        wrong.append(f"No events come from the broker: {monitor.trouble}")
    if queues.waiting and not workers:
        wrong.append(f"{queues.waiting} tasks wait, and no worker was heard.")
    if queues.dead:
        wrong.append(f"{queues.dead} messages were set aside.")
    if monitor.left_out:
        wrong.append(f"{monitor.left_out} events were left out: more came than could be written.")
    return wrong


def _entry(entry: Parked | DeadLetter, app: App, mask: Mask) -> Line:
    line = _line(entry.id, entry.envelope, entry.queue, app, mask)
    if isinstance(entry, DeadLetter):
        return msgspec.structs.replace(line, at=entry.died_at, reason=mask(entry.reason))
    return msgspec.structs.replace(line, at=entry.due)


def _line(key: str, message: Envelope | Unreadable, queue: str, app: App, mask: Mask) -> Line:
    if isinstance(message, Unreadable):
        return Line(key, "", "", "", queue, reason=f"unreadable: {message.reason}")
    content = decode(message, app.codecs)
    if isinstance(content, Malformed):
        return Line(
            key, content.id or "", content.task or "", "", queue, reason=f"malformed: {content.reason}"
        )
    arguments = ", ".join(
        [
            *(preview(value, 200) for value in content.args),
            *(f"{name}={preview(value, 200)}" for name, value in content.kwargs.items()),
        ]
    )
    return Line(key, content.id, content.task, mask(arguments)[:400], queue)


def _running(item: object, mask: Mask) -> dict[str, str]:
    fields = item if isinstance(item, dict) else {}
    arguments = " ".join(str(fields.get(name, "")) for name in ("args", "kwargs"))
    return {
        "id": str(fields.get("id", "")),
        "name": str(fields.get("name", "")),
        "arguments": mask(arguments)[:400],
        "pid": str(fields.get("worker_pid", "")),
    }


def _limits(answer: object) -> list[tuple[str, dict[str, str]]]:
    """Return the tasks of a worker that have limits, with these: ``name [rate_limit=10/m time_limit=30]``."""
    found = []
    for item in answer if isinstance(answer, list) else []:
        name, _, told = str(item).partition(" [")
        pairs = [part.partition("=") for part in told.rstrip("]").split()]
        limits = {key: value for key, _, value in pairs if key in LIMITS and value != "None"}
        if limits:
            found.append((name, limits))
    return found[:LISTED]


def _flat(fields: Mapping[str, object], path: str = "") -> list[tuple[str, str]]:
    """Return nested answers as lines of a table."""
    lines = []
    for name, value in fields.items():
        label = f"{path}{name}"
        if isinstance(value, dict) and value and len(label) < 60:
            lines += _flat(value, f"{label}.")
        else:
            lines.append((label, preview(value, 200)))
    return lines[:200]
