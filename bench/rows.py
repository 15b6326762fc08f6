"""One line of the table: what was measured in each round, on both sides, and what it should be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isinf
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A bound.

    :param of: of ``value``, or of the ``ratio`` to Celery, in which more is always better.
    :param most: the bound is an upper one.
    """

    bound: float
    of: str
    most: bool = False

    def reached(self, row: "Row") -> bool:
        """Whether the row keeps to it."""
        measured = row.value if self.of == "value" else row.ratio
        assert measured is not None, f"{row.name}: a ratio needs Celery's side"
        return measured <= self.bound if self.most else measured >= self.bound

    def text(self, unit: str) -> str:
        """The bound for readers."""
        if self.of == "ratio":
            return f"≥ {self.bound:g}x"
        return f"{'≤' if self.most else '≥'} {self.bound:,g} {unit}"


def at_least_times(bound: float) -> Goal:
    """That many times as good as Celery."""
    return Goal(bound, "ratio")


def at_least(bound: float) -> Goal:
    """No less than that."""
    return Goal(bound, "value")


def at_most(bound: float) -> Goal:
    """No more than that."""
    return Goal(bound, "value", most=True)


@dataclass(frozen=True)
class Row:
    """A measurement.

    :param values: one a round.
    :param celery: Celery's in the same rounds, where there are such.
    :param less_is_better: so that the ratio is Celery's over ours.
    :param details: what else the JSON file is to tell.
    """

    name: str
    unit: str
    values: Sequence[float]
    celery: Sequence[float] = ()
    goal: Goal | None = None
    less_is_better: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    @property
    def celery_value(self) -> float | None:
        """Celery's median."""
        return median(self.celery) if self.celery else None

    @property
    def ratio(self) -> float | None:
        """How many times as good as Celery: the median of the rounds' own ratios, since the machine's speed drifts."""
        if not self.celery:
            return None
        pairs = zip(self.values, self.celery, strict=True)
        return median(_times_as_good(ours, theirs, self.less_is_better) for ours, theirs in pairs)

    @property
    def verdict(self) -> str:
        """``ok`` or ``below``; nothing where there is no goal."""
        if self.goal is None:
            return ""
        return "ok" if self.goal.reached(self) else "below"

    def as_json(self) -> dict[str, Any]:
        """Everything, for ``--json``."""
        return {
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "celery": self.celery_value,
            "ratio": None if self.ratio is None or isinf(self.ratio) else self.ratio,
            "goal": self.goal.text(self.unit) if self.goal else None,
            "verdict": self.verdict or None,
            "rounds": list(self.values),
            "celery_rounds": list(self.celery),
            **self.details,
        }


def _times_as_good(ours: float, theirs: float, less_is_better: bool) -> float:
    good, bad = (theirs, ours) if less_is_better else (ours, theirs)
    return good / bad if bad else float("inf")
