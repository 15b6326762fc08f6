"""The output of ``celeriac demo``: bars on a terminal, plain lines anywhere else; tables on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from celeriac.cli.drawing import VisibleConsole, cell, console
from celeriac.cli.json_text import as_json
from celeriac.cli.outcome import ending
from celeriac.client.outbox import Call
from celeriac.wire.result import SUCCESS, ResultRecord

NEXT_STEPS = """\
[bold]Now your own.[/bold] shop.py:

    [cyan]from celeriac import Celeriac

    app = Celeriac("shop")

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y[/cyan]

  celeriac -A shop worker                      [dim]in one terminal[/dim]
  celeriac -A shop call shop.add 2 3 --wait    [dim]in another[/dim]
  celeriac demo --broker redis://localhost     [dim]the same on Redis, where Celery's workers may join in[/dim]
"""


UNBOUNDED = 1000
"""Columns of output that is no terminal; a table is only as wide as its content."""


class Kind(msgspec.Struct):
    """Tasks of one kind, and how they ended."""

    label: str
    what: str
    calls: Sequence[Call[Any]]
    succeeded: int = 0
    failed: int = 0
    example: str = ""

    def count(self, call: Call[Any], record: ResultRecord) -> None:
        """Take the final record of one of the calls in."""
        if record.status == SUCCESS:
            self.succeeded += 1
            ended = as_json(record.result)
        else:
            self.failed += 1
            ended = ending(record).partition(": ")[2]
        if call is self.calls[-1]:
            arguments = ", ".join(map(repr, call.args))
            self.example = f"{call.task.rpartition('.')[2]}({arguments}) -> {ended}"


class Burst(msgspec.Struct, frozen=True):
    """A measurement: seconds from the first send until all were sent, and until all results were here."""

    tasks: int
    sending: float
    whole: float


class Display(Protocol):
    """Shows what goes on while the tasks run."""

    def advance(self) -> None:
        """One more task is done."""
        ...

    def progress(self, done: float, total: float, text: str) -> None:
        """The task that reports of itself is so far."""
        ...


class DemoScreen:
    """The demo's output, in the order in which it comes."""

    def __init__(self, console: VisibleConsole, place: str) -> None:
        self._console = console
        self._place = place
        self._display: Display | None = None

    def started(self, pid: int) -> None:
        """Tell of the worker."""
        self._console.print(
            f"[bold]A worker runs[/bold] in process {pid}, [dim]{escape(self._place)}[/dim]", highlight=False
        )

    def sent(self, count: int) -> None:
        """Tell of the tasks."""
        self._console.print(f"[bold]{count} tasks sent[/bold], of eight kinds")

    @contextmanager
    def following(self, total: int) -> Iterator[None]:
        """Show ``advance`` and ``progress`` in this block."""
        if not self._console.is_terminal:
            self._display = _Lines(total, self._print)
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description:<16}"), BarColumn(40), MofNCompleteColumn())
        with Progress(
            *columns, TextColumn("{task.fields[text]}"), console=self._console, transient=True
        ) as bars:
            self._display = _Bars(bars, total)
            yield

    def advance(self) -> None:
        """One more task is done."""
        assert self._display is not None
        self._display.advance()

    def progress(self, done: float, total: float, text: str) -> None:
        """The task that reports of itself is so far."""
        assert self._display is not None
        self._display.progress(done, total, text)

    def show_table(self, kinds: Sequence[Kind]) -> None:
        """Show what became of the tasks."""
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
        for heading in ("kind", "what"):
            table.add_column(heading, overflow="fold")
        table.add_column("succeeded", justify="right", style="green", min_width=9)
        table.add_column("failed", justify="right", style="red", min_width=6)
        table.add_column("one of them", overflow="fold", style="dim")
        for kind in kinds:
            counts = (str(number) if number else "" for number in (kind.succeeded, kind.failed))
            table.add_row(kind.label, kind.what, *counts, cell(kind.example))
        self._console.print()
        self._console.print(table)

    def show_burst(self, burst: Burst) -> None:
        """Show what was measured."""
        rate, sending = burst.tasks / burst.whole, burst.tasks / burst.sending
        self._print("")
        self._print(
            f"[bold green]{rate:,.0f} tasks/s[/bold green]: {burst.tasks:,} more, sent, run, "
            f"and their results read, in {burst.whole:.2f} s [dim](sending alone: {sending:,.0f}/s)[/dim]"
        )
        self._print("")

    def show_next_steps(self) -> None:
        """Show what to try."""
        self._print(NEXT_STEPS)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False)


def screen_for(place: str) -> DemoScreen:
    """Return a screen on stdout."""
    screen = console()
    if not screen.is_terminal:
        screen = console(width=max(screen.width, UNBOUNDED), soft_wrap=True)
    return DemoScreen(screen, place)


class _Bars:
    def __init__(self, bars: Progress, total: int) -> None:
        self._bars = bars
        self._all = bars.add_task("all tasks", total=total, text="")
        self._one: TaskID | None = None

    def advance(self) -> None:
        self._bars.advance(self._all)

    def progress(self, done: float, total: float, text: str) -> None:
        if self._one is None:
            self._one = self._bars.add_task("export reports", total=total, text="")
        self._bars.update(self._one, completed=done, total=total, text=f"[dim]{text}[/dim]")


class _Lines:
    def __init__(self, total: int, write: Callable[[str], None]) -> None:
        self._total = total
        self._write = write
        self._done = 0
        self._told = 0.0

    def advance(self) -> None:
        self._done += 1
        if self._done == self._total or self._done % 100 == 0:
            self._write(f"  {self._done} of {self._total} done")

    def progress(self, done: float, total: float, text: str) -> None:
        if done / total >= self._told + 0.25:
            self._told = done / total
            self._write(f"  export reports {done:g} of {total:g}: {text}")
