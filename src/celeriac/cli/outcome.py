"""Shows how a task ended: the value on stdout as JSON, anything else on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from celeriac.cli.console import say, say_lines, styled
from celeriac.cli.exits import Exit
from celeriac.cli.visible import visible, visible_json
from celeriac.client.result import error_of
from celeriac.wire.result import SUCCESS, ResultRecord


def show_outcome(name: str, record: ResultRecord) -> Exit:
    """Print a final record's value, or its traceback and error; return what the command ends with."""
    if record.status == SUCCESS:
        say_lines(as_json(record.result))
        return Exit.OK
    if record.traceback:
        say_lines(styled(record.traceback.rstrip(), dim=True), err=True)
    say(styled("error:", fg="red", bold=True), f" {name} {ending(record)}", err=True)
    return Exit.FAILED


def ending(record: ResultRecord) -> str:
    """Return one line on a record that holds no value."""
    error = error_of(record)
    text = str(error)
    verb = {"FAILURE": "failed", "REVOKED": "was revoked"}.get(record.status, record.status)
    kind = getattr(error, "type_name", None)
    return f"{verb}: {text}" if kind else f"{verb}: {type(error).__name__}: {text}"


def as_json(value: Any, *, lines: bool = True) -> str:
    """Return the value as JSON, in lines where a person reads it; its repr where JSON has no word for it.

    No control character is left in it, only newlines between its lines.

    :param lines: may have several lines.
    """
    spread = lines and sys.stdout.isatty()
    try:
        text = _written(value, spread)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return visible(repr(value))
    return visible_json(text)


def _written(value: Any, spread: bool) -> str:
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:  # half of a surrogate pair, for which JSON has an escape
        separators = None if spread else (",", ":")
        return json.dumps(msgspec.to_builtins(value), indent=2 if spread else None, separators=separators)
    return (msgspec.json.format(encoded) if spread else encoded).decode()
