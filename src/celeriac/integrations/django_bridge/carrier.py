"""What carries Django's tasks: an app of celeriac's, or one of Celery's."""

from __future__ import annotations

from typing import Any, Protocol

from celeriac.integrations.django_bridge.facts import Facts, Stored
from celeriac.integrations.django_bridge.running import Call

LEVELS = 9
"""The highest priority of a message; the lowest is 0."""

_LOWEST, _HIGHEST = -100, 100


class Carrier(Protocol):
    """Sends tasks, registers them with the app's workers, and reads their results.

    What begins with ``a`` is for coroutines. Each raises what the app raises: ``BrokerUnavailable`` and its like for
    one of celeriac's, kombu's ``OperationalError`` for one of Celery's.
    """

    @property
    def keeps_results(self) -> bool:
        """Whether a result can be read by its id."""
        ...

    def register(self, task: Any) -> None:
        """Let workers of the app run a task under its dotted path; a second time changes nothing."""
        ...

    def send(self, task_id: str, facts: Facts) -> None:
        """Send a call."""
        ...

    async def asend(self, task_id: str, facts: Facts) -> None: ...

    def keep(self, task_id: str, facts: Facts) -> None:
        """Keep the facts of a call beside its result, in place of those that were kept before."""
        ...

    async def akeep(self, task_id: str, facts: Facts) -> None: ...

    def load(self, task_id: str) -> Stored:
        """Return what is kept of a task."""
        ...

    async def aload(self, task_id: str) -> Stored: ...


class Runner(Protocol):
    """Runs Django's tasks for a worker of the app; a backend of the setting ``TASKS``.

    :ivar package: of the framework.
    :ivar alias: the backend's name in ``TASKS``.
    """

    package: str
    alias: str

    def run(self, path: str, call: Call) -> Any:
        """Run the plain function of that path; return its value."""
        ...

    async def arun(self, path: str, call: Call) -> Any:
        """Run the coroutine function of that path; return its value."""
        ...


def as_messages_have_it(priority: int, *, lowest_first: bool) -> int:
    """Return the priority of a message for one of Django's, of which the highest goes first.

    :param lowest_first: whether 0 goes first at this broker, as on Redis, or last, as on RabbitMQ.
    """
    level = (priority - _LOWEST) * LEVELS // (_HIGHEST - _LOWEST)
    return LEVELS - level if lowest_first else level
