"""Waits for a result and shows what the task reports meanwhile, on stderr.

Rules: a terminal sees a bar that goes away; anything else gets a line for each report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from celeriac.cli.console import say
from celeriac.cli.drawing import console
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.cli.visible import visible
from celeriac.client.result import Result
from celeriac.context import PROGRESS
from celeriac.quantities import patience
from celeriac.wire.failure import Failure, rebuild
from celeriac.wire.preview import preview
from celeriac.wire.result import PENDING, ResultRecord

TEXT_LIMIT = 60


class Report(Protocol):
    """Shows one record."""

    def __call__(self, record: ResultRecord, /) -> None: ...


async def watch(result: Result[Any], timeout: float | None) -> ResultRecord:
    """Return the final record, showing progress and states until then.

    :param timeout: seconds; ``None`` waits for ever.

    Raises ``CommandFailed`` with ``Exit.TIMEOUT``, saying what the task was last seen doing.
    """
    seen = PENDING
    deadline = asyncio.timeout(patience(timeout))
    with _reporting(str(result)) as report:
        try:
            async with deadline:
                async for record in result.watch():
                    seen = record.status
                    if record.ready:
                        return record
                    report(record)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise CommandFailed(_too_late(result, timeout, seen), Exit.TIMEOUT) from error
    raise CommandFailed(f"the result backend stopped telling of {result} while it was {seen}")


def progress_of(record: ResultRecord) -> tuple[float | None, float | None, str]:
    """Return done, total and text of what a task reported of itself, as far as it said them."""
    meta = record.result if isinstance(record.result, dict) else {}
    done, total = _number(meta.get("current")), _number(meta.get("total"))
    if record.status != PROGRESS and done is None:
        told = rebuild(record.result) if isinstance(record.result, Failure) else record.result
        return None, None, record.status if told is None else f"{record.status} {preview(told, TEXT_LIMIT)}"
    return done, total, str(meta.get("message") or meta.get("status") or "")


@contextmanager
def _reporting(name: str) -> Iterator[Report]:
    screen = console(err=True)
    if not screen.is_terminal:
        yield lambda record: say(f"{name} {_line(record)}", err=True)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=screen, transient=True) as bar:
        row = bar.add_task(escape(visible(name)), total=None, count="")

        def show(record: ResultRecord) -> None:
            done, total, text = progress_of(record)
            bar.update(row, completed=done or 0, total=total, count=_count(done, total))
            bar.update(row, description=escape(visible(f"{name} {text}".strip())))

        yield show


def _line(record: ResultRecord) -> str:
    done, total, text = progress_of(record)
    return f"{_count(done, total)} {text}".strip()


def _count(done: float | None, total: float | None) -> str:
    if done is None:
        return ""
    return f"{done:g}" if total is None else f"{done:g}/{total:g}"


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _too_late(result: Result[Any], timeout: float | None, seen: str) -> str:
    hint = "no worker has reported on it; does one take its queue?" if seen == PENDING else "it goes on"
    return f"{result} was not ready within {timeout:g} s, last seen {seen}: {hint} (celeriac result {result.id} --wait)"
