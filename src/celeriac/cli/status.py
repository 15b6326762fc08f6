"""``celeriac status``: which workers are online."""

from __future__ import annotations

import click

from celeriac.cli.answers import in_order, show_answers, show_count
from celeriac.cli.asking import Meant, ask, takes_meant
from celeriac.cli.console import say_lines
from celeriac.cli.json_text import as_json
from celeriac.cli.reaching import load_asking
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source


@click.command("status", short_help="List the workers that are online.")
@takes_meant
@takes_source
def status(source: Source, meant: Meant, as_objects: bool) -> None:
    """List the workers that are online, celeriac's and Celery's."""
    asks = load_asking(source)
    answers = in_order(run_with(asks, ask(asks.control, meant, "ping", {})))
    if as_objects:
        say_lines(as_json({answer.node: answer.value for answer in answers}))
        return
    show_answers(answers, bodies=False)
    show_count(len(answers))
