"""The table: for a terminal, and for a page of the documentation."""

from collections.abc import Sequence
from math import isinf
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.rows import Row

HEADINGS = ("measure", "celeriac", "Celery", "ratio", "goal", "")
WIDTH = 110
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
COLOURS = {"ok": "green", "below": "red", "": ""}


def cells(row: Row) -> tuple[str, ...]:
    """What stands in a row of the table."""
    celery = "-" if row.celery_value is None else number(row.celery_value)
    ratio = "-" if row.ratio is None else "∞" if isinf(row.ratio) else f"{row.ratio:.1f}x"
    goal = row.goal.text(row.unit) if row.goal else "-"
    return row.name, f"{number(row.value)} {row.unit}", celery, ratio, goal, row.verdict


def number(value: float) -> str:
    """Three digits that matter, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def heading(machine: dict[str, Any]) -> list[str]:
    """Lines on the machine, the versions and the conditions."""
    versions = {"Python": machine["python"], "Redis": machine["redis_server"]}
    versions |= machine.get("servers", {}) | machine["packages"]
    speeds = machine["fixed_loop_ms"]
    where = (
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gb']} GB, {machine['system']}"
    )
    pace = f"took {machine['seconds']:.0f} s; a fixed loop took {min(speeds):.0f} to {max(speeds):.0f} ms"
    return [
        f"{machine['date']}, {where}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"{pace}; other programs used {machine['cores_used_by_others']} cores",
    ]


def show(machine: dict[str, Any], rows: Sequence[Row]) -> None:
    """Print the table."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    table = Table(*HEADINGS, title="celeriac beside Celery", title_justify="left")
    for column in table.columns[1:4]:
        column.justify = "right"
    for row in rows:
        *plain, verdict = cells(row)
        table.add_row(*plain, f"[{COLOURS[verdict]}]{verdict}[/]" if verdict else "")
    console.print(table)
    for line in heading(machine):
        console.print(line, style="dim", highlight=False)


def write_into(page: Path, machine: dict[str, Any], rows: Sequence[Row]) -> None:
    """Put the table between the marks of a page of the documentation. Raises ``ValueError`` where it has none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{page} has no place for the table: put {BEGIN} and {END} where it is to stand")
    page.write_text(f"{before}{begin}\n\n{markdown(machine, rows)}\n{end}{after}")


def markdown(machine: dict[str, Any], rows: Sequence[Row]) -> str:
    """The table for the documentation."""
    lines = [HEADINGS, ("---", "---:", "---:", "---:", "---", "---"), *(cells(row) for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n" + "\n".join(f"- {line}" for line in heading(machine)) + "\n"
