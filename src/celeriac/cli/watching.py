"""Waits for a result and shows what the task reports meanwhile, on stderr.

Rules: a terminal sees a bar that goes away; anything else gets a line for each report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from celeriac.cli.console import say
from celeriac.cli.drawing import console
from celeriac.cli.exits import CommandFailed, Exit
from celeriac.cli.source import typed
from celeriac.cli.visible import visible
from celeriac.client.result import Result
from celeriac.context import PROGRESS
from celeriac.errors import CeleriacError
from celeriac.quantities import patience
from celeriac.wire.failure import Failure, rebuild
from celeriac.wire.preview import preview
from celeriac.wire.result import PENDING, ResultRecord

TEXT_LIMIT = 60


WAITING = 2.0
"""Seconds without a sign of the task after which it is said what it waits for."""


class Explain(Protocol):
    """Finds out what a task that has not begun waits for."""

    async def __call__(self) -> str:
        """Return it in a few words. Raises ``CeleriacError`` where it cannot be found out."""
        ...


class Report(Protocol):
    """Shows what is known of one task."""

    def record(self, record: ResultRecord) -> None:
        """Show what the task reports."""
        ...

    def note(self, text: str) -> None:
        """Show what is found out about it."""
        ...


async def watch(result: Result[Any], timeout: float | None, explain: Explain | None = None) -> ResultRecord:
    """Return the final record, showing progress and states until then.

    :param timeout: seconds; ``None`` waits for ever.
    :param explain: asked once, when the task has not begun after some seconds.

    Raises ``CommandFailed`` with ``Exit.TIMEOUT``, saying what the task was last seen doing.
    """
    seen = _Seen()
    deadline = asyncio.timeout(patience(timeout))
    with _reporting(str(result)) as report:
        explaining = asyncio.create_task(_explain(explain, seen, report))
        try:
            async with deadline:
                async for record in result.watch():
                    seen.status = record.status
                    if record.ready:
                        return record
                    report.record(record)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise CommandFailed(_too_late(result, timeout, seen), Exit.TIMEOUT) from error
        finally:
            explaining.cancel()
    raise CommandFailed(f"the result backend stopped telling of {result} while it was {seen.status}")


class _Seen:
    """What was last known of the task.

    :ivar found: what it waits for.
    """

    status = PENDING
    found = ""


async def _explain(explain: Explain | None, seen: _Seen, report: Report) -> None:
    await asyncio.sleep(WAITING)
    if explain is not None and seen.status == PENDING:
        with suppress(CeleriacError):
            seen.found = await explain()
            if seen.status == PENDING:
                report.note(seen.found)


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
        yield _Lines(name)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=screen, transient=True) as bar:
        yield _Bar(bar, name)


class _Lines:
    """Prints a line for each report."""

    def __init__(self, name: str) -> None:
        self._name = name

    def record(self, record: ResultRecord) -> None:
        self.note(_line(record))

    def note(self, text: str) -> None:
        say(f"{self._name} {text}", err=True)


class _Bar:
    """Moves a bar."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar = bar
        self._name = name
        self._row = bar.add_task(escape(visible(name)), total=None, count="")

    def record(self, record: ResultRecord) -> None:
        done, total, text = progress_of(record)
        self._bar.update(self._row, completed=done or 0, total=total, count=_count(done, total))
        self.note(text)

    def note(self, text: str) -> None:
        self._bar.update(self._row, description=escape(visible(f"{self._name} {text}".strip())))


def _line(record: ResultRecord) -> str:
    done, total, text = progress_of(record)
    return f"{_count(done, total)} {text}".strip()


def _count(done: float | None, total: float | None) -> str:
    if done is None:
        return ""
    return f"{done:g}" if total is None else f"{done:g}/{total:g}"


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _too_late(result: Result[Any], timeout: float | None, seen: _Seen) -> str:
    if seen.status != PENDING:
        hint = "it goes on"
    else:
        hint = seen.found or "no worker has reported on it; does one take its queue?"
    return typed(
        f"{result} was not ready within {timeout:g} s, last seen {seen.status}: {hint} "
        f"(celeriac result {result.id} --wait)"
    )
