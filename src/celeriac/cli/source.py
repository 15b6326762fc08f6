"""The options that say which app, and where it connects; taken before and after the command.

Rules: what stands after the command wins; a command that needs no code does with a URL alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

import click
import msgspec

from celeriac.celeriac import Celeriac
from celeriac.cli.places import absolute_file
from celeriac.cli.target import load_app
from celeriac.client.app import App
from celeriac.client.environment import BROKER_VARIABLES
from celeriac.errors import ConfigError
from celeriac.servers.url_parts import masked

T = TypeVar("T")


class Source(msgspec.Struct, frozen=True):
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

    def load(self) -> App:
        """Return the app. Raises ``ConfigError`` when nothing says where to connect, and as ``load_app``."""
        if self.target is None and self.broker is None and not any(map(os.environ.get, BROKER_VARIABLES)):
            raise ConfigError(
                "which broker? Name your app (-A module), or a URL (-b redis://host), or set CELERIAC_BROKER"
            )
        return self.load_or_default()

    def load_existing(self) -> App:
        """Return the app, for a look at what is there. Raises ``ConfigError`` where a file is missing, too."""
        app = self.load()
        for url in (app.broker_url, app.backend_url):
            if (path := absolute_file(url)) is not None and not path.exists():
                raise ConfigError(
                    f"{masked(url)} names no file that exists: {path}; is this the directory that it is seen from?"
                )
        return app

    def load_or_default(self) -> App:
        """Return the app; without any hint one on the embedded default."""
        app: App = load_app(self.target) if self.target is not None else Celeriac()
        if self.broker is not None or self.backend is not None:
            app.connect_to(self.broker, self.backend)
        return app


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


OPTIONS = (
    click.option("-A", "--app", "target", metavar="MODULE[:ATTR]", help="The app, as Python imports it."),
    click.option("-b", "--broker", metavar="URL", help="Use this broker in place of the app's own."),
    click.option(
        "--backend",
        "--result-backend",
        "backend",
        metavar="URL",
        help="Use this result backend in place of its own.",
    ),
)


def run_with(app: App, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own and close the app's connections after it."""

    async def closing() -> T:
        async with app:
            return await work

    return asyncio.run(closing())
