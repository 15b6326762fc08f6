"""Describes messages to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.client.app import App
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.preview import preview
from celeriac.wire.task import Malformed, decode

LONGEST = 200
SHORTEST = 4
"""The fewest characters of an id that may stand for the whole; fewer could fit another message's id by chance."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A message in words.

    :param task: empty where it could not be read.
    :param arguments: as they would stand in a call; where there is no call, what is wrong.
    """

    id: str = ""
    task: str = ""
    arguments: str = ""
    retries: int = 0
    eta: str = ""


def too_short(id: str) -> str:
    """Return what to add where a text is no id, and too short to be the beginning of one."""
    return "" if len(id) >= SHORTEST else f"; a beginning of an id has at least {SHORTEST} characters"


def summary_of(content: Envelope | Unreadable, app: App) -> Summary:
    """Read a message as a worker of this app would. Never raises."""
    if isinstance(content, Unreadable):
        return Summary(arguments=f"unreadable: {content.reason}")
    message = decode(content, app.codecs)
    if isinstance(message, Malformed):
        return Summary(id=message.id or "", task=message.task or "", arguments=f"malformed: {message.reason}")
    return Summary(
        id=message.id,
        task=message.task,
        arguments=_call(message.args, message.kwargs),
        retries=message.retries,
        eta=message.eta.isoformat(sep=" ", timespec="seconds") if message.eta else "",
    )


def _call(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    parts = [preview(arg, LONGEST) for arg in args]
    parts += [f"{name}={preview(value, LONGEST)}" for name, value in kwargs.items()]
    text = ", ".join(parts)
    return f"({text})" if len(text) <= LONGEST else f"({text[:LONGEST]}...)"
