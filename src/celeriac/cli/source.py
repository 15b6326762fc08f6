"""The options that say which app, and where it connects; taken before and after the command.

Rules: what stands after the command wins. ``loading.py`` makes an app of what they say: this module is imported for
every command line, and costs nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import click

T = TypeVar("T")

_COMMANDS = re.compile(r"\bceleriac (?:-A MODULE )?((?:worker|dead|queues|control|result)\b)")
"""The commands that advice names."""


class Source(NamedTuple):
    """Where the app of a command comes from.

    :param target: ``module[:attribute]``.
    :param broker: URL to use in place of the app's own.
    :param backend: the same for results.
    """

    target: str | None = None
    broker: str | None = None
    backend: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.target}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []  # what prints fields one by one prints none

    def over(self, outer: Source) -> Source:
        """Return this, with what it leaves open taken from what stood before the command."""
        return Source(self.target or outer.target, self.broker or outer.broker, self.backend or outer.backend)


def typed(text: str) -> str:
    """Return text with its commands as they are to be typed here: they name the app that this command was given.

    Without it ``celeriac result ID`` would be answered by "which broker?". A URL is not repeated: it may hold a
    password.
    """
    context = click.get_current_context(silent=True)
    target = context.obj.target if context is not None and isinstance(context.obj, Source) else None
    if target is None:
        return text
    start = f"celeriac -A {shlex.quote(target)} "
    return _COMMANDS.sub(lambda found: start + found[1], text)


def takes_source(function: Callable[..., T]) -> Callable[..., T]:
    """Add ``-A``, ``--broker`` and ``--backend`` to a command, which gets them as its first parameter."""

    @wraps(function)
    def command(
        context: click.Context,
        /,
        *args: Any,
        target: str | None,
        broker: str | None,
        backend: str | None,
        **options: Any,
    ) -> T:
        context.obj = Source(target, broker, backend).over(context.obj or Source())
        return function(context.obj, *args, **options)

    decorated: Any = click.pass_context(command)
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    result: Callable[..., T] = decorated
    return result


def _change_directory(_: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        try:
            os.chdir(value)
        except OSError as error:
            raise click.BadParameter(f"{value}: {error.strerror}", param=option) from error


OPTIONS = (
    click.option("-A", "--app", "target", metavar="MODULE[:ATTR]", help="The app, as Python imports it."),
    click.option(
        "--workdir",
        metavar="DIRECTORY",
        is_eager=True,
        expose_value=False,
        callback=_change_directory,
        help="Change to this directory first.",
    ),
    click.option("-b", "--broker", metavar="URL", help="Use this broker in place of the app's own."),
    click.option(
        "--backend",
        "--result-backend",
        "backend",
        metavar="URL",
        help="Use this result backend in place of its own.",
    ),
)
