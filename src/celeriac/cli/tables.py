"""Tables: drawn to fit a terminal, in full and unadorned anywhere else."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from celeriac.cli.console import say
from celeriac.cli.drawing import cell, console
from celeriac.cli.visible import visible


def show_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
    err: bool = False,
) -> None:
    """Print rows under headings.

    On a terminal that is too narrow the widest columns are folded; nothing is left out.

    :param numbers: the headings whose column is set to the right.
    :param err: print on stderr.
    """
    cells = [[visible(str(value)) for value in row] for row in rows]
    screen = console(err=err)
    if screen.is_terminal:
        screen.print(_drawn(headings, cells, numbers))
        return
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for row in [headings, *cells]:
        line = [
            text.rjust(width) if heading in numbers else text.ljust(width)
            for heading, text, width in zip(headings, row, widths, strict=True)
        ]
        say("  ".join(line).rstrip(), err=err)


def _drawn(headings: Sequence[str], cells: Sequence[Sequence[str]], numbers: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(cell, row))
    return table
