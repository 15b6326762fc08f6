"""Tables: drawn to fit a terminal, in full and unadorned anywhere else."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 10_000


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str] = ()
) -> None:
    """Print rows under headings.

    :param numbers: the headings whose column is set to the right. The last column gives way on a narrow terminal.
    """
    console = Console(highlight=False)
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        gives_way = heading == headings[-1] and len(headings) > 1
        table.add_column(
            heading,
            justify="right" if heading in numbers else "left",
            no_wrap=True,
            overflow="ellipsis" if gives_way else "fold",
            min_width=None if gives_way else max(len(str(cell)) for cell in _column(headings, rows, heading)),
        )
    for row in rows:
        table.add_row(*(Text(" ".join(str(cell).split())) for cell in row))
    console.print(table)


def _column(headings: Sequence[str], rows: Sequence[Sequence[object]], heading: str) -> list[object]:
    place = headings.index(heading)
    return [heading, *(row[place] for row in rows)]
