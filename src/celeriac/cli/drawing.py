"""Tables and bars: drawn by rich, with control characters made visible in whatever they show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from celeriac.cli.visible import visible, visible_lines


def cell(text: str, style: str = "") -> Text:
    """Return a text for tables and bars, on one line."""
    return Text(visible(text), style)


def console(*, err: bool = False, **options: Any) -> VisibleConsole:
    """Return what draws tables and bars."""
    return VisibleConsole(stderr=err, highlight=False, **options)


class VisibleConsole(Console):
    """A console that makes control characters visible in whatever it draws."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible_lines(segment.text), segment.style)
