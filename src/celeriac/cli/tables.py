"""Tables: drawn to fit a terminal, in full and unadorned anywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str] = ()
) -> None:
    """Print rows under headings.

    :param numbers: the headings whose column is set to the right. The last column gives way on a narrow terminal.
    """
    cells = [[" ".join(str(cell).split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(_drawn(headings, cells, widths, numbers))
        return
    for row in [headings, *cells]:
        line = [
            cell.rjust(width) if heading in numbers else cell.ljust(width)
            for heading, cell, width in zip(headings, row, widths, strict=True)
        ]
        click.echo("  ".join(line).rstrip())


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
        table.add_row(*map(Text, row))
    return table
