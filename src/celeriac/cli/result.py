"""``celeriac result``: shows what is known of a task."""

from __future__ import annotations

from typing import Any

import click
import msgspec
from rich.table import Table
from rich.text import Text

from celeriac.cli.console import say_lines, styled
from celeriac.cli.drawing import cell, console
from celeriac.cli.exits import Exit
from celeriac.cli.json_text import as_json
from celeriac.cli.loading import load_existing
from celeriac.cli.outcome import ending
from celeriac.cli.running import run_with
from celeriac.cli.source import Source, takes_source
from celeriac.cli.watching import progress_of, watch
from celeriac.client.app import App
from celeriac.errors import ConfigError
from celeriac.wire.failure import Failure
from celeriac.wire.result import EXCEPTION_STATES, PENDING, SUCCESS, ResultRecord

COLOURS = {"SUCCESS": "green", "FAILURE": "red", "REVOKED": "red", "RETRY": "yellow"}


@click.command("result", short_help="Show what is known of a task.")
@click.argument("task_id")
@click.option("-w", "--wait", is_flag=True, help="Wait until the task is done.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait at most this long.")
@click.option("--traceback", "-t", is_flag=True, help="Only the traceback.")
@click.option("--json", "as_object", is_flag=True, help="The whole record as one JSON object.")
@takes_source
def result(
    source: Source, task_id: str, wait: bool, timeout: float | None, traceback: bool, as_object: bool
) -> int:
    """Show state, value, traceback and children of the task TASK_ID.

    Ends with 0 when the task succeeded, 1 when it failed, 4 when it is not done.
    """
    app = load_existing(source)
    if app.backend_url == "disabled://":
        raise ConfigError("the app keeps no results: name its result backend with --backend URL")
    record = run_with(app, _find(app, task_id, timeout, wait=wait or timeout is not None))
    if as_object:
        say_lines(as_json(_plain(record)))
    elif traceback:
        say_lines(record.traceback or "")
    else:
        _show(record)
    return _code(record)


async def _find(app: App, task_id: str, timeout: float | None, *, wait: bool) -> ResultRecord:
    found = app.result(task_id)
    return await watch(found, timeout) if wait else await found.info()


def _code(record: ResultRecord) -> Exit:
    if not record.ready:
        return Exit.TIMEOUT
    return Exit.OK if record.status == SUCCESS else Exit.FAILED


def _show(record: ResultRecord) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for label, value in _rows(record):
        table.add_row(label, value)
    screen = console(soft_wrap=not console().is_terminal)
    screen.print(table)
    if record.traceback:
        say_lines()
        say_lines(styled(record.traceback.rstrip(), dim=True))


def _rows(record: ResultRecord) -> list[tuple[str, Text]]:
    hint = "  (not sent, not begun, or forgotten)" if record.status == PENDING else ""
    rows = [("state", cell(record.status, COLOURS.get(record.status, "cyan")).append(hint, "dim"))]
    if record.status == SUCCESS:
        rows.append(("value", Text(as_json(record.result))))
    elif record.status in EXCEPTION_STATES:
        rows.append(("error", cell(ending(record).partition(": ")[2])))
    elif record.result is not None:
        done, total, text = progress_of(record)
        counted = f"{done:g} of {total:g} " if done is not None and total is not None else ""
        rows.append(
            ("progress", cell(f"{counted}{text}") if counted or text else Text(as_json(record.result)))
        )
    more: dict[str, Any] = {
        "task": record.name,
        "done at": record.date_done and record.date_done.isoformat(sep=" ", timespec="milliseconds"),
        "worker": record.worker,
        "queue": record.queue,
        "retries": record.retries,
        "parent": record.parent_id,
        "group": record.group_id,
    }
    rows += [(label, cell(str(value))) for label, value in more.items() if value]
    ids = _child_ids(record)
    return [*rows, ("children", Text("\n").join(map(cell, ids)))] if ids else rows


def _child_ids(record: ResultRecord) -> list[str]:
    """Read the ids out of Celery's result tuples, ``[[id, parent], children]``."""
    ids = []
    for child in record.children or ():
        while isinstance(child, list | tuple) and child:
            child = child[0]
        ids.append(str(child))
    return ids


def _plain(record: ResultRecord) -> dict[str, Any]:
    plain = msgspec.structs.asdict(record)
    if isinstance(record.result, Failure):
        plain["result"] = msgspec.structs.asdict(record.result)
    return plain
