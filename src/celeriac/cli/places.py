"""URLs as people may see them: without their passwords."""

from __future__ import annotations

from celeriac.client.app import App
from celeriac.servers.url_parts import masked


def broker_place(app: App) -> str:
    """Return the app's broker, for people."""
    return masked(app.broker_url) or "an object of the app's own"


def backend_place(app: App) -> str:
    """Return the app's result backend, for people."""
    if app.backend_url == "disabled://":
        return "none: results are not kept"
    return masked(app.backend_url) or "an object of the app's own"
