"""``celeriac status``: which workers are online."""

from __future__ import annotations

import click

from celeriac.cli.answers import in_order, show_answers, show_count
from celeriac.cli.asking import Meant, ask, takes_meant
from celeriac.cli.console import say_lines
from celeriac.cli.loading import load_existing, run_with
from celeriac.cli.outcome import as_json
from celeriac.cli.source import Source, takes_source


@click.command("status", short_help="List the workers that are online.")
@takes_meant
@takes_source
def status(source: Source, meant: Meant, as_objects: bool) -> None:
    """List the workers that are online, celeriac's and Celery's."""
    app = load_existing(source)
    answers = in_order(run_with(app, ask(app, meant, "ping", {})))
    if as_objects:
        say_lines(as_json({answer.node: answer.value for answer in answers}))
        return
    show_answers(answers, bodies=False)
    show_count(len(answers))
