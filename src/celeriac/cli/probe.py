"""``celeriac probe``: asks a worker of this machine whether it lives, is ready, has started."""

from __future__ import annotations

import click

from celeriac_probe import main as ask


@click.command("probe", short_help="Ask a worker of this machine whether it lives.")
@click.argument("what", type=click.Choice(["live", "ready", "started"]))
@click.option("--file", metavar="PATH", help="The --heartbeat-file of the worker; for live alone.")
@click.option("--max-age", type=float, metavar="SECONDS", help="How old its last touch may be. [default: 10]")
@click.option("--port", type=int, metavar="PORT", help="The --probe-port of the worker.")
@click.option("--socket", metavar="PATH", help="The --probe-socket of the worker.")
@click.option("--timeout", type=float, metavar="SECONDS", help="How long to wait. [default: 1]")
def probe(what: str, **options: str | float | None) -> int:
    """Ask a worker of this machine whether it lives, is ready, or has started: 0 if so, 1 if not.

    No app is imported, and no broker is asked. The program celeriac-probe does the same, and starts faster.
    """
    given = [
        (f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None
    ]
    return ask([what, *(part for pair in given for part in pair)])
