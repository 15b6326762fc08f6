"""From the options that say which app to the app.

Rules: a command that needs no code does with a URL alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from celeriac.cli.console import say
from celeriac.cli.places import absolute_file
from celeriac.cli.source import Source
from celeriac.cli.target import load_app
from celeriac.client.app import App
from celeriac.client.blocking import BACKGROUND
from celeriac.client.environment import BROKER_VARIABLES
from celeriac.errors import ConfigError
from celeriac.servers.url_parts import masked, scheme_of


def load(source: Source, include: Sequence[str] = ()) -> App:
    """Return the app.

    :param include: modules to import beside that of the app.

    Raises ``ConfigError`` when nothing says where to connect, and as ``load_app``.
    """
    if source.target is None and source.broker is None and not any(map(os.environ.get, BROKER_VARIABLES)):
        raise ConfigError(
            "which broker? Name your app (-A module), or a URL (-b redis://host), or set CELERIAC_BROKER"
        )
    return load_or_default(source, include)


def note_alone(app: App) -> None:
    """Warn where nobody but this command can see what it does: a worker with the same URL has other queues."""
    if scheme_of(app.broker_url) == "memory":
        say("note: memory:// is in this process alone; workers in other processes have their own", err=True)


def load_existing(source: Source) -> App:
    """Return the app, for a look at what is there, as ``existing``."""
    app = existing(source)
    note_alone(app)
    return app


def existing(source: Source) -> App:
    """Return the app. Raises ``ConfigError`` where a file is missing, too."""
    app = load(source)
    for url in (app.broker_url, app.backend_url):
        if (path := absolute_file(url)) is not None and not path.exists():
            raise ConfigError(
                f"{masked(url)} names no file that exists: {path}; is this the directory that it is seen from?"
            )
    return app


def load_or_default(source: Source, include: Sequence[str] = ()) -> App:
    """Return the app; without any hint one on the embedded default."""
    app: App = load_app(source.target, include) if source.target is not None else App(run=BACKGROUND.run)
    if source.broker is not None or source.backend is not None:
        app.connect_to(source.broker, source.backend)
    return app
