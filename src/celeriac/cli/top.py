"""``celeriac top``: the fleet in a terminal."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec

from celeriac.cli.console import say, say_lines
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.cli.json_text import as_json
from celeriac.cli.loading import load_existing
from celeriac.cli.source import Source, takes_source
from celeriac.cli.tables import show_table
from celeriac.cli.top_tables import TABLES, fitted, header
from celeriac.client.app import App
from celeriac.monitor.filters import Filter
from celeriac.monitor.glance import Glance, look, seed
from celeriac.monitor.monitor import Monitor

PLAIN = 2.0
"""Seconds between two tables of ``--plain``."""

HEARD = 0.5
"""Seconds in which workers tell that they live, before a single look."""


@click.command("top", short_help="Watch and steer the fleet in a terminal.")
@click.option("--plain", is_flag=True, help="Print tables every 2 s; needs nothing further.")
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option("--json", "as_object", is_flag=True, help="With --once: an object.")
@click.option(
    "--history",
    metavar="FILE|URL",
    help="Keeps what became of tasks; else it is forgotten at the end.",
)
@takes_source
def top(source: Source, plain: bool, once: bool, as_object: bool, history: str | None) -> None:
    """Watch tasks, queues, workers and errors; cancel tasks, run them again, pause queues.

    Keys: 1 to 4 or Tab for the tables, / filter, s sort, t or F5 workflow, k cancel, K terminate, r run again, p pause,
    q quit.
    """
    if as_object and not once:
        raise click.UsageError("--json prints one look: give --once, too", click.get_current_context())
    app = load_existing(source)
    with ExitStack() as stack:
        if history is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="celeriac-top-"))
            history = str(Path(folder) / "history.db")
        if once or plain:
            asyncio.run(_print(app, history, once=once, as_object=as_object))
        else:
            asyncio.run(_show(app, history))


async def _show(app: App, history: str) -> None:
    try:
        from celeriac.cli.top_app import TopApp
    except ImportError as error:
        raise CommandFailed(
            f"the screen needs {error.name}: pip install 'celeriac[top]', or use --plain", Exit.USAGE
        ) from error
    async with app, Monitor(app, history) as monitor:
        await TopApp(monitor).run_async()


async def _print(app: App, history: str, *, once: bool, as_object: bool) -> None:
    async with app, Monitor(app, history) as monitor:
        await asyncio.sleep(HEARD)
        await seed(monitor)
        seen: Glance | None = None
        while True:
            seen = await look(monitor, Filter(), before=seen)
            if once and seen.trouble:
                raise CommandFailed(seen.trouble, Exit.UNREACHABLE)
            if as_object:
                say_lines(as_json(_object(seen)))
            else:
                _print_tables(seen)
            if once:
                return
            await asyncio.sleep(PLAIN)


def _print_tables(glance: Glance) -> None:
    say(f"NO BROKER: {glance.trouble}" if glance.trouble else header(glance))
    for table in TABLES:
        lines = table.lines(glance)
        if lines:
            say("")
            widths = [width for _, width in table.headings]
            rows = [
                [fitted(cell, width) for cell, width in zip(line.cells, widths, strict=True)]
                for line in lines[:20]
            ]
            show_table([heading for heading, _ in table.headings], rows)
    say("")


def _object(glance: Glance) -> dict[str, object]:
    told = msgspec.structs.asdict(glance)
    queues = glance.queues
    return {
        **{name: told[name] for name in ("at", "ended", "failed", "running")},
        "waiting": queues.waiting,
        "oldest": queues.oldest,
        "scheduled": queues.parked,
        "dead": queues.dead,
        "failed_kept": queues.failed,
        "queues": [msgspec.to_builtins(queue) for queue in queues.queues],
        "workers": [
            {**msgspec.to_builtins(worker), "alive": worker.lives(glance.at)} for worker in glance.workers
        ],
        "tasks": [msgspec.to_builtins(task) for task in glance.tasks],
        "errors": [group._asdict() for group in glance.errors],
    }
