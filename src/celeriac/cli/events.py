"""``celeriac events``: what workers do, as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import click

from celeriac.cli.completing import complete_queues
from celeriac.cli.console import say, say_lines
from celeriac.cli.event_lines import Filter, Lines, Wanted
from celeriac.cli.loading import load_existing
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source
from celeriac.cli.visible import visible_json
from celeriac.client.app import App
from celeriac.errors import EncodeError
from celeriac.wire.event import Event
from celeriac.wire.extended_json import encode_json
from celeriac.wire.preview import counted, preview

_REFUSED = {
    "-c": "there are no cameras here: read `celeriac events --json`, or app.events.listen() in Python",
    "-F": "there are no cameras, and so no frequency of theirs: read `celeriac events --json`",
    "-r": "events come as fast as they are sent; there is no rate to limit",
}
BETWEEN_NOTES = 1.0
"""Seconds between two notes: under load the share of each worker changes with nearly every heartbeat."""

_CELERYS = (("-c", "--camera"), ("-F", "--frequency", "--freq"), ("-r", "--maxrate"))


def _refuse(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(f"celeriac has no {option.opts[-1]}: {_REFUSED[option.opts[0]]}", context)


def _refuses_cameras(function: Callable[..., Any]) -> Callable[..., Any]:
    for names in _CELERYS:
        function = click.option(*names, hidden=True, expose_value=False, callback=_refuse)(function)
    return function


@click.command("events", short_help="Watch what workers do, as it happens.")
@click.option("--json", "as_objects", is_flag=True, help="One JSON object a line.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only these: task-failed, or failed.")
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME", help="Only these tasks; * stands for anything."
)
@click.option(
    "-Q",
    "--queue",
    "queues",
    multiple=True,
    metavar="QUEUE",
    help="Only tasks of these.",
    shell_complete=complete_queues,
)
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only these tasks.")
@click.option("--failed", is_flag=True, help="Only what failed, will be retried, or was rejected.")
@click.option("--follow", metavar="ID", help="A task and all that was sent from it.")
@click.option("--enable", is_flag=True, help="Ask the workers for events of tasks first, as if they had -E.")
@click.option("-d", "--dump", is_flag=True, hidden=True, expose_value=False)
@_refuses_cameras
@takes_source
def events(
    source: Source,
    as_objects: bool,
    types: tuple[str, ...],
    tasks: tuple[str, ...],
    queues: tuple[str, ...],
    ids: tuple[str, ...],
    failed: bool,
    follow: str | None,
    enable: bool,
) -> None:
    """Print what workers tell, celeriac's and Celery's, until Ctrl-C.

    Workers tell of tasks when they were started with -E, or a monitor asked for it.
    """
    wanted = Wanted(types=types, tasks=tasks, queues=queues, ids=ids, failed=failed, follow=follow)
    app = load_existing(source)
    with suppress(KeyboardInterrupt):
        run_with(app, _watch(app, Filter(wanted), as_objects=as_objects, enable=enable))


async def _watch(app: App, chosen: Filter, *, as_objects: bool, enable: bool) -> None:
    lines, notes = Lines(), Notes()
    async with app.events.listen(enable=enable) as stream:
        if not as_objects:
            say("-> evdump: starting capture...")
        async for event in stream:
            notes.look(stream.cuts, stream.dropped, event)
            if as_objects and chosen.takes(event):
                say_lines(visible_json(written(event.fields)))
            elif not as_objects:
                line = lines.line(event, time.time())
                if chosen.takes(event):
                    say_lines(line)


def written(fields: Mapping[str, Any]) -> str:
    """Return the fields as JSON; a value that JSON cannot carry back, such as one that nests deeply, as text."""
    try:
        return encode_json(fields, "event").decode()
    except EncodeError:
        return encode_json({name: _or_text(value) for name, value in fields.items()}, "event").decode()


def _or_text(value: Any) -> Any:
    try:
        encode_json([value, "__type__"])
    except EncodeError:
        return preview(value)
    return value


class Notes:
    """Says what is not shown: on stderr, so that it is no part of what another program reads.

    Rules: there is at most one note in ``BETWEEN_NOTES`` seconds. Of what changes more often the latest is said.

    :param now: seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._next = now()
        self._waiting: dict[tuple[str, str], str] = {}
        self._cuts = self._dropped = 0
        self._by_node: dict[str, tuple[Any, Any]] = {}

    def look(self, cuts: int, dropped: int, event: Event) -> None:
        """Say what has changed.

        :param cuts: how often the connection was lost so far.
        :param dropped: messages that came and were dropped so far.
        """
        if cuts != self._cuts:
            self._cuts = cuts
            lost = "-> Connection lost, and made again; the events of the time between are not shown"
            self._waiting["cut", ""] = lost
        if dropped != self._dropped:
            self._dropped = dropped
            count = counted(dropped, "message")
            slow = f"-> {count} dropped so far: the output is taken more slowly than events come"
            self._waiting["dropped", ""] = slow
        if event.type == "worker-heartbeat":
            self._look_at_worker(event)
        if self._waiting and self._now() >= self._next:
            self._say_one()

    def _look_at_worker(self, event: Event) -> None:
        dropped, share = event.fields.get("dropped", 0), event.fields.get("sampled", 1)
        before = self._by_node.get(
            event.node, (dropped, 1)
        )  # what it dropped before is no loss of this reader
        self._by_node[event.node] = dropped, share
        if dropped != before[0]:
            away = f"-> {event.node} dropped events while its broker was away: {dropped} so far"
            self._waiting["dropped by", event.node] = away
        if share != before[1]:
            sends = f"-> {event.node} sends events of this share of its tasks, and of all that fail: {share}"
            self._waiting["share of", event.node] = sends

    def _say_one(self) -> None:
        """Say what waits longest."""
        self._next = self._now() + BETWEEN_NOTES
        say(self._waiting.pop(next(iter(self._waiting))), err=True)
