"""This tree beside an earlier commit: the same measurements, in turns, and what became of each row.

Rules: both run with this tree's bench, tasks and packages, so only ``src`` differs; who begins changes from pair to
pair; Celery's turns are taken once and remembered, since nothing is compared with them.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measures import MEASURES
from bench.plan import Plan, tell
from bench.report import WIDTH, heading, number
from bench.rows import Row
from bench.workers import ROOT

COMPARED = tuple(name for name in MEASURES if name != "guarantees")
"""What can be measured of an earlier commit: ``guarantees`` replaces parts of the package by name."""


@dataclass
class Pairs:
    """A row of both trees.

    :param now: this tree's values, one a pair.
    :param then: the earlier commit's.
    """

    name: str
    unit: str
    less_is_better: bool
    now: list[float] = field(default_factory=list)
    then: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """This tree's value over the earlier one's, in each pair."""
        return [now / then for now, then in zip(self.now, self.then, strict=True) if then]

    def as_json(self) -> dict[str, Any]:
        """Everything, for ``--json``."""
        return {
            "name": self.name,
            "unit": self.unit,
            "less_is_better": self.less_is_better,
            "ratio": median(self.ratios) if self.ratios else None,
            "ratios": self.ratios,
            "now": self.now,
            "then": self.then,
        }


def compare(plan: Plan, commit: str, names: Sequence[str], pairs: int) -> list[Pairs]:
    """Measure both trees in turns. Raises ``WorkerFailed`` when one fails, ``CalledProcessError`` when git does."""
    plan = replace(plan, sizes=replace(plan.sizes, rounds=1), remembered={})
    found: dict[str, Pairs] = {}
    with earlier(commit) as then:
        for name in names:
            for pair in range(pairs):
                sides = [("now", ROOT), ("then", then)]
                for side, tree in sides if pair % 2 == 0 else reversed(sides):
                    tell(f"pair {pair + 1} of {pairs}: {'this tree' if side == 'now' else commit}")
                    with in_use(tree):
                        note(found, side, MEASURES[name](plan))
    return list(found.values())


def note(found: dict[str, Pairs], side: str, rows: Sequence[Row]) -> None:
    """Add what one turn measured."""
    for row in rows:
        pairs = found.setdefault(row.name, Pairs(row.name, row.unit, row.less_is_better))
        (pairs.now if side == "now" else pairs.then).append(row.value)


@contextmanager
def earlier(commit: str) -> Iterator[Path]:
    """A work tree of the commit, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="celeriac-against-") as directory:
        tree = Path(directory, "tree")
        git("worktree", "add", "--detach", "--quiet", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


@contextmanager
def in_use(tree: Path) -> Iterator[None]:
    """Let what is started in the block import the package of that tree."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tree / "src")
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def git(*arguments: str) -> None:
    """Run git in this tree."""
    subprocess.run(("git", "-C", str(ROOT), *arguments), check=True)


def show(machine: dict[str, Any], commit: str, rows: Sequence[Pairs]) -> None:
    """Print the table."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    table = Table("measure", "this tree", commit, "ratio", "range", "better", title=f"against {commit}")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    for line in heading(machine):
        console.print(line, style="dim", highlight=False)


def cells(row: Pairs) -> tuple[str, ...]:
    """What stands in a row of the table."""
    ratios = row.ratios
    ratio = f"{median(ratios):.3f}" if ratios else "-"
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}" if ratios else "-"
    better = "less" if row.less_is_better else "more"
    then = number(median(row.then))
    return row.name, f"{number(median(row.now))} {row.unit}", then, ratio, spread, better
