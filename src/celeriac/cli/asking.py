"""What ``status``, ``inspect`` and ``control`` share: which workers are meant, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

from celeriac.cli.completing import complete_nodes
from celeriac.cli.console import say
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.cli.methods import Method
from celeriac.client.control import TIMEOUT, Asked, Control
from celeriac.wire.preview import counted

T = TypeVar("T")


class Meant(NamedTuple):
    """Which workers are asked, and for how long.

    :param destination: their names; ``None`` where all are meant, or those of the pattern.
    :param timeout: seconds.
    """

    destination: Sequence[str] | None
    pattern: str | None
    timeout: float

    async def ask(
        self, control: Control, method: str, arguments: Mapping[str, Any] | None = None, **hearing: Any
    ) -> Asked:
        """Ask them. Raises as ``Control.ask``."""
        return await control.ask(
            method,
            arguments,
            destination=self.destination,
            pattern=self.pattern,
            timeout=self.timeout,
            **hearing,
        )


def takes_meant(function: Callable[..., T]) -> Callable[..., T]:
    """Add Celery's options ``-t``, ``-d`` and ``-j``, and ``--pattern``; the command gets a ``Meant`` as ``meant``."""

    @wraps(function)
    def command(
        *args: Any, destination: Sequence[str], pattern: str | None, timeout: float, **options: Any
    ) -> T:
        names = [name.strip() for text in destination for name in text.split(",") if name.strip()]
        if names and pattern:
            raise click.UsageError("give -d or --pattern, not both", click.get_current_context())
        return function(*args, meant=Meant(names or None, pattern, timeout), **options)

    decorated: Any = command
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    result: Callable[..., T] = decorated
    return result


OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "-t",
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="Wait at most this long for answers.",
    ),
    click.option(
        "-d",
        "--destination",
        multiple=True,
        metavar="NODE,...",
        shell_complete=complete_nodes,
        help="Only these workers.",
    ),
    click.option("--pattern", metavar="GLOB", help="Only workers of such names, as in 'celery@web*'."),
    click.option(
        "-j", "--json", "as_objects", is_flag=True, help="Print the answers as JSON, and nothing else."
    ),
)


def takes_method(methods: Mapping[str, Method]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Add the argument METHOD, what follows it as ``words``, and ``--list``."""

    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        return [
            CompletionItem(name, help=one.help) for name, one in methods.items() if name.startswith(typed)
        ]

    def show(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            width = max(len(f"{name} {one.usage}") for name, one in methods.items())
            for name, one in methods.items():
                say(f"{name} {one.usage}".ljust(width), "  ", one.help)
            context.exit()

    def add(function: Callable[..., T]) -> Callable[..., T]:
        function = click.argument("words", nargs=-1, metavar="[ARG]...")(function)
        function = click.argument("method", shell_complete=complete)(function)
        return click.option(
            "--list",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=show,
            help="List the methods.",
        )(function)

    return add


async def ask(control: Control, meant: Meant, method: str, arguments: Mapping[str, Any]) -> Asked:
    """Ask the workers that are meant. Raises as ``check_answered``."""
    asked = await meant.ask(control, method, arguments)
    await check_answered(control, meant, asked)
    return asked


async def check_answered(control: Control, meant: Meant, asked: Asked) -> None:
    """Say on stderr which workers did not answer. Raises ``CommandFailed`` with ``Exit.NO_ANSWER`` where none did."""
    missing = [node for node in meant.destination or () if node not in asked.by_node]
    hints = await _similar(control, missing, meant.timeout) if missing else ""
    if not asked.answers:
        raise CommandFailed(
            f"no nodes replied within time constraint: {_nobody(meant, asked)}{hints}", Exit.NO_ANSWER
        )
    late = 0 if meant.destination or meant.pattern else (asked.listeners or 0) - len(asked.answers)
    if missing:
        say(f"note: no answer within {meant.timeout:g} s: {', '.join(missing)}{hints}", err=True)
    elif late > 0:
        say(
            f"note: {late} of {counted(asked.listeners or 0, 'worker')} did not answer within {meant.timeout:g} s",
            err=True,
        )


def _nobody(meant: Meant, asked: Asked) -> str:
    if asked.listeners == 0:
        return "no worker listens on this broker"
    if meant.destination:
        return f"{', '.join(meant.destination)} within {meant.timeout:g} s"
    if meant.pattern:
        return f"no worker named like {meant.pattern} within {meant.timeout:g} s"
    if asked.listeners:
        return f"{counted(asked.listeners, 'worker')} heard it, and did not answer within {meant.timeout:g} s"
    return f"no worker within {meant.timeout:g} s"


async def _similar(control: Control, missing: Sequence[str], timeout: float) -> str:
    """Return which other names were perhaps meant."""
    known = list((await control.ask("ping", timeout=timeout)).by_node)
    near = [name for node in missing for name in get_close_matches(node, known, n=1, cutoff=0.75)]
    if near:
        return f"; did you mean {' or '.join(dict.fromkeys(near))}?"
    return f"; those that answer: {', '.join(sorted(known))}" if known else ""
