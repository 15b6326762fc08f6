"""``celeriac schedules``: the periodic tasks that the broker keeps for an app."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click

from celeriac.beat.schedules import Scheduled
from celeriac.beat.source import SourceTaken
from celeriac.cli.beat import schedules_of
from celeriac.cli.console import say, say_lines
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.cli.json_text import as_json
from celeriac.cli.loading import load
from celeriac.cli.moments import moment_of
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source
from celeriac.cli.tables import show_table
from celeriac.wire.preview import counted


@click.group(
    "schedules", short_help="List periodic tasks; pause, run or check them.", invoke_without_command=True
)
@click.option("--json", "as_objects", is_flag=True, help="A JSON list of objects.")
@takes_source
@click.pass_context
def schedules(context: click.Context, source: Source, as_objects: bool) -> None:
    """List the periodic tasks of an app as the broker keeps them; pause, run or check them."""
    if context.invoked_subcommand is None:
        _list(source, as_objects=as_objects)


@schedules.command("list")
@click.option("--json", "as_objects", is_flag=True, help="A JSON list of objects.")
@takes_source
def list_command(source: Source, as_objects: bool) -> None:
    """List the periodic tasks with their last and next slot."""
    _list(source, as_objects=as_objects)


@schedules.command("next")
@click.argument("name")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1, max=1000), default=10, show_default=True, metavar="N"
)
@takes_source
def next_command(source: Source, name: str, limit: int) -> None:
    """Show the next slots of a periodic task."""
    app = load(source)
    zone, slots = run_with(app, schedules_of(app).upcoming(name))
    for slot in islice(slots, limit):
        say(_shown(slot, zone))


@schedules.command("pause")
@click.argument("name")
@takes_source
def pause_command(source: Source, name: str) -> None:
    """Tick a periodic task no longer, until it is resumed."""
    app = load(source)
    run_with(app, schedules_of(app).pause(name))
    say(f"{name} is paused")


@schedules.command("resume")
@click.argument("name")
@takes_source
def resume_command(source: Source, name: str) -> None:
    """Tick a paused task again, from its next slot on."""
    app = load(source)
    run_with(app, schedules_of(app).resume(name))
    say(f"{name} is ticked again")


@schedules.command("remove")
@click.argument("name")
@takes_source
def remove_command(source: Source, name: str) -> None:
    """Remove a periodic task; one that code declares is back when such a process starts."""
    app = load(source)
    if not run_with(app, schedules_of(app).remove(name)):
        raise CommandFailed(f"the broker keeps no periodic task {name} of app {app.name}")
    say(f"{name} is removed")


@schedules.command("trigger")
@click.argument("name")
@takes_source
def trigger_command(source: Source, name: str) -> None:
    """Send a periodic task now, besides its slots; print the id."""
    app = load(source)
    say(run_with(app, schedules_of(app).trigger(name)).id)


@schedules.command("backfill")
@click.argument("name")
@click.argument("start")
@click.argument("end")
@takes_source
def backfill_command(source: Source, name: str, start: str, end: str) -> None:
    """Send a periodic task for each slot of a past time.

    START and END are times such as 2026-03-01T06:00; without an offset, in the app's time zone.
    """
    app = load(source)
    moments = [moment_of(app, text) for text in (start, end)]
    sent = run_with(app, schedules_of(app).backfill(name, *moments))
    say(f"{counted(sent, 'slot')} sent")


@schedules.command("check")
@takes_source
def check_command(source: Source) -> int:
    """Say what of an app's crontabs means something else than it seems to; exit code 1 if anything does.

    The crontabs are those of the code, and those that django-celery-beat or RedBeat keeps.
    """
    app = load(source)
    schedules = schedules_of(app)
    entries = {name: declaration.entry for name, declaration in schedules.declared.items()}
    if schedules.source is not None:
        try:
            entries |= run_with(app, schedules.source.read()).entries
        except SourceTaken as error:
            say(f"note: what {schedules.source.name} keeps is not looked at: {error}", err=True)
    found = [f"{name}: {oddity}" for name, entry in entries.items() for oddity in entry.schedule.oddities()]
    for text in found:
        say(text)
    if not found:
        say(f"{counted(len(entries), 'periodic task')}, nothing odd")
    return Exit.FAILED if found else Exit.OK


def _list(source: Source, *, as_objects: bool) -> None:
    app = load(source)
    found = run_with(app, schedules_of(app).list())
    if as_objects:
        say_lines(as_json([_as_object(one) for one in found]))
    elif found:
        zone = ZoneInfo(app.settings.timezone)
        show_table(["name", "task", "schedule", "last", "next"], [_row(one, zone) for one in found])
    else:
        declared = len(schedules_of(app).declared)
        waiting = f"; {counted(declared, 'task')} of its code will be when a worker ticks" if declared else ""
        say(f"no periodic tasks of {app.name} are kept{waiting}")


def _row(one: Scheduled, zone: ZoneInfo) -> Sequence[object]:
    upcoming = "paused" if one.paused else "" if one.next is None else _shown(one.next, zone)
    return one.name, one.task, one.schedule, "" if one.last is None else _shown(one.last, zone), upcoming


def _shown(moment: datetime, zone: tzinfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S%z}"


def _as_object(one: Scheduled) -> dict[str, Any]:
    return {
        "name": one.name,
        "task": one.task,
        "schedule": one.schedule,
        "paused": one.paused,
        "declared": one.declared,
        "last": one.last and one.last.isoformat(),
        "next": one.next and one.next.isoformat(),
        "oddities": list(one.oddities),
    }
