"""Shows how a task ended: the value on stdout as JSON, anything else on stderr."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from celeriac.cli.exits import Exit
from celeriac.client.result import error_of
from celeriac.wire.result import SUCCESS, ResultRecord


def show_outcome(name: str, record: ResultRecord) -> Exit:
    """Print a final record's value, or its traceback and error; return what the command ends with."""
    if record.status == SUCCESS:
        click.echo(as_json(record.result))
        return Exit.OK
    if record.traceback:
        click.echo(click.style(record.traceback.rstrip(), dim=True), err=True)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {name} {ending(record)}", err=True)
    return Exit.FAILED


def ending(record: ResultRecord) -> str:
    """Return one line on a record that holds no value."""
    error = error_of(record)
    text = " ".join(str(error).split())
    verb = {"FAILURE": "failed", "REVOKED": "was revoked"}.get(record.status, record.status)
    kind = getattr(error, "type_name", None)
    return f"{verb}: {text}" if kind else f"{verb}: {type(error).__name__}: {text}"


def as_json(value: Any) -> str:
    """Return the value as JSON, in lines where a person reads it; its repr where JSON has no word for it."""
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return repr(value)
    return (msgspec.json.format(encoded) if sys.stdout.isatty() else encoded).decode()
