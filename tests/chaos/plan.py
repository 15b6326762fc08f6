"""How much of everything, and the calls that are made, chosen by a seed."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

QUEUE = "chaos"
LEASE, VISIBILITY_TIMEOUT = 2.0, 15.0
NAP = 0.05
"""Seconds that a slow body takes, and a retry waits."""

KINDS = {"chaos.quick": 70, "chaos.slow": 14, "chaos.thread": 8, "chaos.retry": 8}
"""Shares of the calls."""

COUNTDOWNS = (None,) * 9 + (1.0,)
BATCH = 50


@dataclass(frozen=True)
class Plan:
    """One chaos run.

    :param seconds: for which calls are sent and things go wrong.
    :param celeriac: celeriac workers at any time.
    :param celery: Celery workers of two processes each.
    """

    seed: int
    tasks: int
    seconds: float
    celeriac: int = 3
    celery: int = 1
    restarts: int = 2


@dataclass(frozen=True)
class PlannedCall:
    """One call; its id is known before it is sent."""

    id: str
    task: str
    countdown: float | None

    @property
    def attempts(self) -> int:
        """How many runs it takes."""
        return 2 if self.task == "chaos.retry" else 1


def calls_of(plan: Plan) -> Sequence[PlannedCall]:
    """The calls of a run, in the order they are sent."""
    dice = random.Random(plan.seed)
    names = dice.choices(list(KINDS), weights=list(KINDS.values()), k=plan.tasks)
    return [
        PlannedCall(str(uuid.UUID(int=dice.getrandbits(128), version=4)), name, dice.choice(COUNTDOWNS))
        for name in names
    ]
