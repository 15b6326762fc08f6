"""``celeriac queues scheduled``: tasks whose time is yet to come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from celeriac.cli.console import say, say_lines
from celeriac.cli.exits import CommandFailed
from celeriac.cli.json_text import as_json
from celeriac.cli.loading import load_existing
from celeriac.cli.messages import SHORTEST, Summary, summary_of, too_short
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source
from celeriac.cli.tables import show_table
from celeriac.client.app import App
from celeriac.client.removing import all_parked, cancel_parked
from celeriac.contracts.broker import Parked
from celeriac.wire.preview import counted


class Entry(msgspec.Struct, frozen=True):
    """A parked message, and what it says."""

    parked: Parked
    summary: Summary


@click.command("scheduled", short_help="List tasks whose time is yet to come; cancel some.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, metavar="N")
@click.option(
    "--cancel", "cancelled", multiple=True, metavar="ID", help="Revoke this one. Any number of times."
)
@click.option("--json", "as_objects", is_flag=True, help="A JSON list of objects.")
@takes_source
def scheduled(source: Source, limit: int, cancelled: Sequence[str], as_objects: bool) -> None:
    """List the tasks that are parked until their time comes, the next one first, or cancel some.

    ID is a task's, or the beginning of it. A program that waits for a cancelled task gets TaskRevoked.
    """
    app = load_existing(source)
    if cancelled:
        gone = run_with(app, _cancel(app, cancelled))
        _show_table(gone, app.clock.now(), err=True)
        say(f"{counted(len(gone), 'task')} cancelled")
    else:
        _show(app, limit, as_objects=as_objects)


def _show(app: App, limit: int, *, as_objects: bool) -> None:
    entries, count = run_with(app, _list(app, limit))
    now = app.clock.now()
    if as_objects:
        say_lines(as_json([_facts(entry, now) for entry in entries]))
    elif entries:
        _show_table(entries, now)
        if count > len(entries):
            say(f"and {count - len(entries)} more: -n {count}", err=True)
    else:
        say("nothing is scheduled")


def _show_table(entries: Sequence[Entry], now: float, *, err: bool = False) -> None:
    show_table(
        ["due in", "task", "id", "queue"],
        [
            [duration(parked.due - now), said.task or "?", said.id or "?", parked.queue]
            for parked, said in ((entry.parked, entry.summary) for entry in entries)
        ],
        numbers=["due in"],
        err=err,
    )


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: ``1 d 2 h``, ``3 min 20 s``, ``4.5 s``."""
    if seconds == math.inf:
        return "never"
    if seconds < 60:
        return "now" if seconds <= 0 else f"{seconds:.1f} s"
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            return f"{whole} {unit} {rest // part} {smaller}"
    raise AssertionError("every duration of a minute or more is at least one minute")


async def _list(app: App, limit: int) -> tuple[list[Entry], int]:
    schedule = app.connections().broker.schedule
    parked = await schedule.list(limit)
    return [Entry(one, summary_of(one.envelope, app)) for one in parked], await schedule.count()


async def _cancel(app: App, ids: Sequence[str]) -> list[Entry]:
    entries = [Entry(parked, summary_of(parked.envelope, app)) async for parked in all_parked(app)]
    chosen = {entry.parked.id: entry for id in ids for entry in _named(id, entries)}
    await cancel_parked(app, [entry.parked for entry in chosen.values()])
    return list(chosen.values())


def _named(id: str, entries: Sequence[Entry]) -> list[Entry]:
    same = [entry for entry in entries if id in (entry.summary.id, entry.parked.id)]
    alike = same or [entry for entry in entries if len(id) >= SHORTEST and entry.summary.id.startswith(id)]
    if not alike:
        raise CommandFailed(
            f"no task {id} is scheduled; celeriac queues scheduled lists them, celeriac revoke takes back any task"
            + too_short(id)
        )
    if len({entry.summary.id for entry in alike}) > 1:
        raise CommandFailed(f"{len(alike)} scheduled tasks begin with {id}: give more of the id")
    return alike


def _facts(entry: Entry, now: float) -> dict[str, Any]:
    parked, said = entry.parked, entry.summary
    return {
        "id": said.id,
        "task": said.task,
        "arguments": said.arguments,
        "queue": parked.queue,
        "due": _date(parked.due),
        "due_in": round(parked.due - now, 3) if math.isfinite(parked.due) else None,
        "retries": said.retries,
    }


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):  # another program may have written the message
        return "never"
