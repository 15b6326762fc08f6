"""Shows how a task ended: the value on stdout as JSON, anything else on stderr."""

from __future__ import annotations

from celeriac.cli.console import say, say_lines, styled
from celeriac.cli.exits import Exit
from celeriac.cli.json_text import as_json
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
