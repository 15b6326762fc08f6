"""URLs as people may see them: without their passwords."""

from __future__ import annotations

import re

from celeriac.client.app import App

USER_INFO = re.compile(r"(?<=://)(?P<user>[^:@/;?]*):(?P<password>[^;?]*)@")
OPTION = re.compile(r"(?P<name>\w*password)=[^&;]*")


def masked(url: str) -> str:
    """Return the URL with ``***`` for every password, those of options included."""
    return OPTION.sub(r"\g<name>=***", USER_INFO.sub(r"\g<user>:***@", url))


def broker_place(app: App) -> str:
    """Return the app's broker, for people."""
    return masked(app.broker_url) or "an object of the app's own"


def backend_place(app: App) -> str:
    """Return the app's result backend, for people."""
    if app.backend_url == "disabled://":
        return "none: results are not kept"
    return masked(app.backend_url) or "an object of the app's own"
