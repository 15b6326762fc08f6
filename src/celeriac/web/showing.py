"""How values look on a page."""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from celeriac.monitor.masking import HIDDEN, Mask
from celeriac.monitor.rows import MinuteRow, TaskRow

SHAPES = {
    "PENDING": "○",
    "RECEIVED": "◔",
    "STARTED": "◑",
    "RETRY": "↻",
    "SUCCESS": "●",
    "FAILURE": "✕",
    "REVOKED": "⊘",
    "REJECTED": "⊘",
}
"""A shape for each state, so that it is not told by colour alone."""

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_MOST_ITEMS = 200
_LONGEST_COMMAND = 4_000


def shape(state: str) -> str:
    """Return the shape of a state."""
    return SHAPES.get(state, "◇")


def ago(at: float | None, now: float) -> str:
    """Return how long ago a moment was, or in how long it will be."""
    if at is None:
        return ""
    distance = now - at
    text = "now" if abs(distance) < 1 else span(abs(distance))
    if text == "now":
        return text
    return f"{text} ago" if distance > 0 else f"in {text}"


def span(seconds: float | None) -> str:
    """Return a length of time in two figures."""
    if seconds is None:
        return ""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def exact(at: float | None) -> str:
    """Return a moment as ISO 8601 in UTC."""
    if at is None:
        return ""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return ""


def moment(at: float | None, now: float) -> Markup:
    """Return a ``time`` element: relative, with the exact moment in it."""
    if at is None:
        return Markup("")
    stamp = exact(at)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp, stamp, ago(at, now))


def tree(text: str, mask: Mask) -> Markup:
    """Return a value's text as nested lists that fold; text that is no literal stays text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return Markup("<code>{}</code>").format(text)
    if not isinstance(value, (dict, list, tuple)):
        return Markup("<code>{}</code>").format(text)
    return _branch(value, mask, 0)


def call_of(task: TaskRow, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return the command that sends such a task; empty for values that JSON cannot carry, and where it is too long."""
    parts = ["celeriac", "call", task.name]
    if task.queue:
        parts += ["--queue", task.queue]
    try:
        parts += ["--args", json.dumps(list(args))]
        parts += ["--kwargs", json.dumps(dict(kwargs))] if kwargs else []
    except (TypeError, ValueError, RecursionError):
        return ""
    command = shlex.join(parts)
    return command if task.name and len(command) <= _LONGEST_COMMAND else ""


def per_minute(rows: Sequence[MinuteRow], now: float, minutes: int = 60) -> list[tuple[int, int]]:
    """Return, for each of the last minutes, how many tasks ended well and how many failed."""
    first = int(now // 60) - minutes + 1
    counts = [[0, 0] for _ in range(minutes)]
    for row in rows:
        if 0 <= row.minute - first < minutes:
            counts[row.minute - first][row.state == "FAILURE"] += row.tasks
    return [(well, failed) for well, failed in counts]


def bars(counts: Sequence[tuple[int, int]], width: int = 600, height: int = 80) -> Markup:
    """Return a bar chart of successes and failures as SVG, with its numbers as text for readers who cannot see it."""
    highest = max((well + failed for well, failed in counts), default=0) or 1
    step = width / max(1, len(counts))
    parts = []
    for index, (well, failed) in enumerate(counts):
        tall, low = height * well / highest, height * failed / highest
        title = f"{len(counts) - index - 1} min ago: {well} ended well, {failed} failed"
        bar = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
        parts.append(
            Markup("<g><title>{}</title>{}{}</g>").format(
                title,
                bar.format("well", index * step, height - tall - low, step * 0.8, tall),
                bar.format("failed", index * step, height - low, step * 0.8, low),
            )
        )
    total, failures = sum(map(sum, counts)), sum(failed for _, failed in counts)
    label = (
        f"{total} tasks ended in {len(counts)} minutes, {failures} of them failed; at most {highest} a minute"
    )
    return Markup(
        '<svg class="bars" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(width, height, label, Markup("").join(parts))


def spark(counts: Sequence[int], width: int = 96, height: int = 20) -> Markup:
    """Return how often something came up in each of the last hours, as small bars with their sum as text."""
    highest, step = max(counts, default=0) or 1, width / max(1, len(counts))
    bar = Markup('<rect class="failed" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    drawn = [
        bar.format(index * step, height - tall, step * 0.8, tall)
        for index, number in enumerate(counts)
        if (tall := max(1.0, height * number / highest) if number else 0.0)
    ]
    label = f"{sum(counts)} in {len(counts)} hours"
    return Markup(
        '<svg class="spark" width="{}" height="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(width, height, width, height, label, Markup("").join(drawn))


def _branch(value: Any, mask: Mask, depth: int) -> Markup:
    if isinstance(value, dict):
        items = [(str(key), HIDDEN if mask.hides(key) else item) for key, item in value.items()]
        brackets = ("{", "}")
    elif isinstance(value, (list, tuple)):
        items = [(str(index), item) for index, item in enumerate(value)]
        brackets = ("[", "]") if isinstance(value, list) else ("(", ")")
    else:
        return Markup("<code>{}</code>").format(repr(value))
    if not items:
        return Markup("<code>{}{}</code>").format(*brackets)
    lines = [
        Markup("<li><span>{}</span> {}</li>").format(name, _branch(item, mask, depth + 1))
        for name, item in items[:_MOST_ITEMS]
    ]
    if len(items) > _MOST_ITEMS:
        lines.append(Markup("<li>and {} more</li>").format(len(items) - _MOST_ITEMS))
    summary = escape(f"{brackets[0]}{len(items)}{brackets[1]}")
    opened = Markup(" open") if depth < 2 else Markup("")
    return Markup('<details class="tree"{}><summary>{}</summary><ul>{}</ul></details>').format(
        opened, summary, Markup("").join(lines)
    )
