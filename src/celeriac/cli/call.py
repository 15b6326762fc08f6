"""``celeriac call``: sends one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import click
import msgspec

from celeriac.cli.completing import complete_queues
from celeriac.cli.console import say
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.cli.loading import load, note_alone
from celeriac.cli.moments import moment_of
from celeriac.cli.outcome import show_outcome
from celeriac.cli.places import absolute_file
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source, typed
from celeriac.cli.takers import what_it_waits_for
from celeriac.cli.watching import watch
from celeriac.client.app import App
from celeriac.errors import ConfigError
from celeriac.quantities import patience
from celeriac.routing import route

T = TypeVar("T")

AFTER_DASHES = "celeriac.after_dashes"
"""Where the context keeps how many arguments stand after ``--``."""

SEND_OPTIONS = (
    click.option(
        "-Q", "--queue", metavar="NAME", shell_complete=complete_queues, help="Send it to this queue."
    ),
    click.option("--exchange", metavar="NAME", help="Send it to this exchange."),
    click.option("--routing-key", metavar="KEY", help="With this routing key."),
    click.option("--countdown", type=float, metavar="SECONDS", help="Run it this much later."),
    click.option(
        "--eta", metavar="TIME", help="Run it at this time: 2026-03-01T06:00, or with a zone +01:00."
    ),
    click.option("--expires", type=float, metavar="SECONDS", help="Do not run it after this time."),
    click.option(
        "--priority",
        type=click.IntRange(0, 255),
        metavar="N",
        help="0 to 9; 0 goes first on Redis and SQLite, 9 on RabbitMQ.",
    ),
    click.option("--serializer", metavar="NAME", help="json, msgpack, yaml or pickle."),
    click.option("--task-id", metavar="ID", help="An id of your own."),
    click.option("--time-limit", type=float, metavar="SECONDS", help="Hard limit for this run."),
    click.option("--soft-time-limit", type=float, metavar="SECONDS", help="Soft limit for this run."),
    click.option(
        "--protocol", type=click.IntRange(1, 2), metavar="1|2", help="Celery's task message protocol."
    ),
)


def takes_send_options(function: Any) -> Any:
    """Add the options that say how a task is sent."""
    for option in reversed(SEND_OPTIONS):
        function = option(function)
    return function


class CallCommand(click.Command):
    """A command that knows which of its arguments stand after ``--``, where nothing is an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[AFTER_DASHES] = len(args) - args.index("--") - 1 if "--" in args else 0
        return super().parse_args(ctx, args)


@click.command(
    "call",
    cls=CallCommand,
    short_help="Send a task; wait for its value.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[ARG]...", type=click.UNPROCESSED)
@click.option("-a", "--args", "args_json", metavar="JSON", help="The arguments as one list, as in Celery.")
@click.option("-k", "--kwargs", metavar="JSON", help="Keyword arguments, such as '{\"x\": 1}'.")
@takes_send_options
@click.option("-w", "--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait at most this long.")
@takes_source
def call(
    source: Source,
    name: str,
    arguments: Sequence[str],
    args_json: str | None,
    kwargs: str | None,
    wait: bool,
    timeout: float | None,
    **options: Any,
) -> int:
    """Send the task NAME and print its id, or with --wait its value.

    Each ARG is JSON; what is no JSON is text: celeriac call shop.greet Ada '{"lang": "en"}' 3

    After -- nothing is an option: celeriac call shop.greet --wait -- -x
    """
    context = click.get_current_context()
    literal = len(arguments) - context.meta[AFTER_DASHES]
    _note_options(context, arguments[literal:])
    read = [read_argument(text, literal=place >= literal) for place, text in enumerate(arguments)]
    args = [*_list(args_json), *read]
    keywords = _object(kwargs)
    app = load(source)
    waits = wait or patience(timeout) is not None
    if waits and app.backend_url == "disabled://":
        raise ConfigError("--wait needs a result backend, and the app has none: name one with --backend URL")
    _note_unknown(app, name)
    note_alone(app)
    file = absolute_file(app.broker_url) if source.broker is None else None
    given = {key: value for key, value in options.items() if value is not None}
    if "eta" in given:
        given["eta"] = moment_of(app, given["eta"])
    task_id = given.setdefault("task_id", str(uuid4()))
    try:
        return run_with(app, _send(app, name, args, keywords, given, wait=waits, timeout=timeout, file=file))
    except KeyboardInterrupt as interrupt:
        raise CommandFailed(
            typed(f"interrupted; what was sent goes on: celeriac result {task_id} --wait"), Exit.INTERRUPTED
        ) from interrupt


async def _send(
    app: App,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    options: Any,
    *,
    wait: bool,
    timeout: float | None,
    file: Path | None,
) -> int:
    result = await app.send_task(name, args, kwargs, **options)
    if file is not None:
        say(f"sent to {file}", err=True)
    if not wait:
        say(result.id)
        return Exit.OK
    queue = _queue_of(app, name, args, kwargs, options)
    later = "countdown" in options or "eta" in options
    explain = None if queue is None or later else partial(what_it_waits_for, app, queue)
    return show_outcome(str(result), await watch(result, timeout, explain))


def _queue_of(
    app: App, name: str, args: list[Any], kwargs: dict[str, Any], options: Mapping[str, Any]
) -> str | None:
    """Return the queue that the call went to, ``None`` where its exchange decides that."""
    return route(app.call(name, args, kwargs, **options).options, app.settings.default_queue).queue


def _note_options(context: click.Context, after_dashes: Sequence[str]) -> None:
    """Warn of an argument that looks like one of our options: it was perhaps meant as one."""
    known = {name for parameter in context.command.params for name in parameter.opts if name.startswith("-")}
    for word in after_dashes:
        if word in known:
            say(f"note: {word} stands after --, so the task gets it; options stand before --", err=True)


def _note_unknown(app: App, name: str) -> None:
    """Warn that the name looks mistyped. The call is still sent, since other workers may have that task."""
    near = get_close_matches(name, app.tasks, n=1, cutoff=0.8) if name not in app.tasks else []
    if near:
        say(f"note: {app.name} has no task {name}; did you mean {near[0]}? It is sent as it is.", err=True)


def read_argument(text: str, *, literal: bool = False) -> Any:
    """Return what a word of the command line stands for: JSON, or text that does not look like it.

    :param literal: it is no option, whatever it looks like.

    Raises ``ConfigError`` for what begins as JSON and is none, ``NoSuchOption`` for what looks like an option.
    """
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.DecodeError as error:
        if text[:1] in ("[", "{", '"'):
            raise ConfigError(f"argument {text!r} is no JSON: {error}; text needs no quotes") from error
        if text[:1] == "-" and not literal:
            raise _unknown_option(text) from error
        return text


def _unknown_option(text: str) -> click.NoSuchOption:
    context = click.get_current_context(silent=True)
    known = [name for parameter in context.command.params for name in parameter.opts] if context else []
    return click.NoSuchOption(text, possibilities=known, ctx=context)


def _list(text: str | None) -> list[Any]:
    return _decoded(text or "[]", list[Any], "--args takes a JSON list, such as '[2, \"text\"]'")


def _object(text: str | None) -> dict[str, Any]:
    return _decoded(text or "{}", dict[str, Any], "--kwargs takes a JSON object, such as '{\"x\": 1}'")


def _decoded(text: str, kind: type[T], usage: str) -> T:
    try:
        return msgspec.json.decode(text.encode(), type=kind)
    except msgspec.DecodeError as error:
        raise CommandFailed(f"{usage}: {error}", Exit.USAGE) from error
