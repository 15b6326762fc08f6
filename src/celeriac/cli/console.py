"""The one way to the terminal: whatever a command prints passes here, and is visible after it.

Rules: no other module of the command line writes to stdout or stderr (the linter forbids it); text from outside
cannot act on the terminal, and cannot begin a line of its own where one line is printed.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Any, NamedTuple, TextIO

import click

from celeriac.cli.visible import visible, visible_lines


class Styled(NamedTuple):
    """A part of a line, with the look that it has on a terminal (click: ``style``)."""

    text: str
    look: dict[str, Any]


def styled(text: str, **look: Any) -> Styled:
    """Return a part of a line with a look."""
    return Styled(text, look)


def say(*parts: str | Styled, err: bool = False) -> None:
    """Print one line of these parts; newlines and control characters in them are made visible."""
    click.echo("".join(_drawn(part, lines=False) for part in parts), file=_stream(err=err))


def say_lines(*parts: str | Styled, err: bool = False) -> None:
    """Print text that has several lines, such as a traceback; control characters in it are made visible."""
    click.echo("".join(_drawn(part, lines=True) for part in parts), file=_stream(err=err))


def ask(question: str) -> bool:
    """Ask for yes or no. Raises ``click.Abort`` when there is no answer."""
    return click.confirm(visible(question), err=True)


def write_anything() -> None:
    """Let stdout and stderr take every text: what their encoding has no character for is escaped, not refused."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _stream(*, err: bool) -> TextIO:
    """Return where to print: past the log that Celery makes of whatever a Celery app's tasks print."""
    now, first = (sys.stderr, sys.__stderr__) if err else (sys.stdout, sys.__stdout__)
    is_celerys = type(now).__module__.startswith("celery.")
    return first if is_celerys and first is not None else now


def _drawn(part: str | Styled, *, lines: bool) -> str:
    shown = visible_lines if lines else visible
    return shown(part) if isinstance(part, str) else click.style(shown(part.text), **part.look)
