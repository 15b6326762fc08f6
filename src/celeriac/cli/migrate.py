"""``celeriac migrate``: the tables of a PostgreSQL database."""

from __future__ import annotations

import click

from celeriac.cli.console import say, say_lines
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.cli.loading import load
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source
from celeriac.client.app import App
from celeriac.contracts.server import Migrating


@click.command(short_help="Make or update the tables in PostgreSQL, or print them.")
@click.option(
    "--print", "printed", is_flag=True, help="Print the SQL for an empty schema, and connect to nothing."
)
@takes_source
def migrate(source: Source, printed: bool) -> None:
    """Make the tables of the broker and the results in PostgreSQL, or bring older ones up to date.

    Workers and clients do so themselves where their role may make tables.
    """
    app = load(source)
    if printed:
        say_lines(run_with(app, _tables(app)).rstrip())
        return
    done = run_with(app, _migrate(app))
    say(f"made: {', '.join(done)}" if done else "all tables are up to date")


async def _migrate(app: App) -> list[str]:
    return [step for each in _migrating(app) for step in await each.migrate()]


async def _tables(app: App) -> str:
    parts = {part: sql for each in _migrating(app) for part, sql in each.tables.items()}
    return "\n".join(parts.values())


def _migrating(app: App) -> list[Migrating]:
    connections = app.connections()
    either: tuple[object, ...] = (connections.broker, connections.backend)
    found = [each for each in either if isinstance(each, Migrating)]
    if not found:
        raise CommandFailed(
            "neither the broker nor the results are in PostgreSQL: no tables to make", Exit.USAGE
        )
    return found
