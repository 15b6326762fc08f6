"""The chart: how many times as good as Celery, a bar for each row of the same run that Celery has a side in."""

from collections.abc import Sequence
from html import escape
from math import isinf
from pathlib import Path
from typing import Any

from bench.report import heading
from bench.rows import Row

WIDTH, LEFT, RIGHT, TOP, LINE, BAR = 800, 370, 60, 58, 24, 15
"""Pixels: of the whole, of the names, of the numbers, above the first bar, from bar to bar, of a bar."""

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .small { font-size: 11px; fill: #59636e }
.title { font-weight: 600; font-size: 15px } .bar { fill: #2da44e } .celery { stroke: #8c959f; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) { text { fill: #f0f6fc } .small { fill: #9198a1 } .bar { fill: #3fb950 } }
"""


def charted(rows: Sequence[Row]) -> list[tuple[str, float]]:
    """Return the name and the ratio of each row that has a bar: those with Celery's side, but for what it costs."""
    return [
        (row.name, row.ratio)
        for row in rows
        if row.ratio is not None and not isinf(row.ratio) and "CPU" not in row.name
    ]


def draw(machine: dict[str, Any], rows: Sequence[Row]) -> str:
    """Return the chart as SVG. Raises ``ValueError`` where no row has a side of Celery."""
    bars = charted(rows)
    if not bars:
        raise ValueError("nothing to draw: no row has a side of Celery; measure consume, slots or processes")
    most = max(ratio for _, ratio in bars)
    scale = (WIDTH - LEFT - RIGHT) / most
    height = TOP + LINE * len(bars) + 34
    one = LEFT + scale
    when, *_, conditions = heading(machine)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>celeriac beside Celery: {escape(when)}</title>",
        f"<style>{STYLE}</style>",
        '<text class="title" x="10" y="22">celeriac, times as good as Celery on the same servers</text>',
        f'<text class="small" x="10" y="40">{escape(when)}</text>',
        f'<line class="celery" x1="{one:.1f}" x2="{one:.1f}" y1="{TOP - 6}" y2="{height - 30}"/>',
    ]
    for number, (name, ratio) in enumerate(bars):
        top = TOP + LINE * number
        base = top + BAR - 3
        lines += [
            f'<text x="{LEFT - 8}" y="{base}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="bar" x="{LEFT}" y="{top}" width="{ratio * scale:.1f}" height="{BAR}" rx="2"/>',
            f'<text x="{LEFT + ratio * scale + 6:.1f}" y="{base}">{ratio:.1f}x</text>',
        ]
    lines.append(f'<text class="small" x="10" y="{height - 10}">dashed: Celery. {escape(conditions)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def write_chart(file: Path, machine: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write the chart of a run. Raises ``ValueError`` as ``draw``."""
    file.write_text(draw(machine, rows))
