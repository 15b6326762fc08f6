"""URLs as people may see them: without their passwords, and with the whole path of a file."""

from __future__ import annotations

from pathlib import Path

from celeriac.client.app import App
from celeriac.errors import ConfigError
from celeriac.servers.url_parts import FILE_SCHEMES, file_of, masked, scheme_of


def broker_place(app: App) -> str:
    """Return the app's broker, for people."""
    return place(app.broker_url) or "an object of the app's own"


def backend_place(app: App) -> str:
    """Return the app's result backend, for people."""
    if app.backend_url == "disabled://":
        return "none: results are not kept"
    return place(app.backend_url) or "an object of the app's own"


def place(url: str) -> str:
    """Return a URL for people; that of a file with its absolute path."""
    path = absolute_file(url)
    return masked(url) if path is None else f"{url.partition('://')[0]}:///{path}"


def absolute_file(url: str) -> Path | None:
    """Return the absolute path of the file that a URL names, ``None`` where it names none."""
    if scheme_of(url) not in FILE_SCHEMES:
        return None
    try:
        return Path(file_of(url)).absolute()
    except ConfigError:
        return None
