"""What all runs of one task have in common in one worker, so that it is looked up once and not for each message.

Rules: an option of the task goes before the setting of the app.
"""

from __future__ import annotations

import msgspec

from celeriac.settings import Settings
from celeriac.worker.runnable import Runnable


class Plan(msgspec.Struct, frozen=True):
    """How one worker runs one task.

    :param is_early: whether a message is acknowledged before the body runs.
    :param is_tracked: whether the state STARTED is stored.
    :param concludes: whether the function hands over its ending by itself.
    :param takes_context: whether the function gets its context.
    :param soft: the soft time limit in seconds, ``None`` for none.
    :param hard: the hard time limit in seconds, ``None`` for none.
    :param max_deliveries: how often a message is delivered before it is set aside.
    """

    is_early: bool
    is_tracked: bool
    concludes: bool
    takes_context: bool
    soft: float | None
    hard: float | None
    max_deliveries: int


class Plans(dict[Runnable, Plan]):
    """The plan of each task, made when the first message of the task comes."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def __missing__(self, task: Runnable) -> Plan:
        options, settings = task.options, self._settings
        tracked, soft, hard = options.track_started, options.soft_timeout, options.timeout
        self[task] = plan = Plan(
            is_early=(options.delivery or settings.delivery) == "at_most_once",
            is_tracked=settings.track_started if tracked is None else tracked,
            concludes=task.conduct.concludes,
            takes_context=task.arguments.context_parameter is not None,
            soft=settings.soft_time_limit if soft is None else soft,
            hard=settings.time_limit if hard is None else hard,
            max_deliveries=options.max_deliveries or settings.max_deliveries,
        )
        return plan
