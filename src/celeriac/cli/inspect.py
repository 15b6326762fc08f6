"""``celeriac inspect``: asks workers what they do."""

from __future__ import annotations

from collections.abc import Sequence

import click

from celeriac.cli.answers import in_order, show_answers, show_count
from celeriac.cli.asking import Meant, ask, takes_meant, takes_method
from celeriac.cli.console import say_lines
from celeriac.cli.json_text import as_json
from celeriac.cli.methods import INSPECT, arguments_of, method_of
from celeriac.cli.reaching import load_asking
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source


@click.command("inspect", short_help="Ask workers what they do.")
@takes_method(INSPECT)
@takes_meant
@takes_source
def inspect(source: Source, meant: Meant, method: str, words: Sequence[str], as_objects: bool) -> None:
    """Ask workers METHOD, such as active, registered, stats, and print what each answers.

    All of Celery's methods work, with their arguments in the same order; --list shows them.
    """
    arguments = arguments_of(method, method_of(method, INSPECT), words)
    asks = load_asking(source)
    answers = in_order(run_with(asks, ask(asks.control, meant, method, arguments)))
    if as_objects:
        say_lines(as_json({answer.node: answer.value for answer in answers}))
        return
    show_answers(answers, bodies=True)
    show_count(len(answers))
