"""Tables: drawn to fit a terminal, in full and unadorned anywhere else."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from celeriac.cli.console import cell, console, say
from celeriac.cli.visible import visible


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str] = ()
) -> None:
    """Print rows under headings.

    :param numbers: the headings whose column is set to the right. The last column gives way on a narrow terminal.
    """
    cells = [[visible(str(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    screen = console()
    if screen.is_terminal:
        screen.print(_drawn(headings, cells, widths, numbers))
        return
    for row in [headings, *cells]:
        line = [
            text.rjust(width) if heading in numbers else text.ljust(width)
            for heading, text, width in zip(headings, row, widths, strict=True)
        ]
        say("  ".join(line).rstrip())


def _drawn(
    headings: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[int], numbers: Sequence[str]
) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for heading, width in zip(headings, widths, strict=True):
        gives_way = heading == headings[-1] and len(headings) > 1
        table.add_column(
            heading,
            justify="right" if heading in numbers else "left",
            no_wrap=True,
            overflow="ellipsis" if gives_way else "fold",
            min_width=None if gives_way else width,
        )
    for row in cells:
        table.add_row(*map(cell, row))
    return table
