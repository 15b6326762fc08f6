"""One way to call for every client, so that each test says once what must hold whoever calls whom.

No client is imported here: one of them runs where nothing of celeriac is installed.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

OnState = Callable[[str, Any], None]
Linked = tuple[str, dict[str, Any]]
TIMEOUT = 60.0


class Kit(Protocol):
    """What workflows are made with. ``s`` and ``si`` put each task on the next queue of a round."""

    chain: Any
    group: Any
    chord: Any

    def s(self, task: str, *args: Any, **options: Any) -> Any: ...
    def si(self, task: str, *args: Any) -> Any: ...
    def s_with(self, task: str, kwargs: dict[str, Any]) -> Any: ...


Build = Callable[[Kit], Any]


class Sent(Protocol):
    """A task that was sent."""

    id: str

    async def value(self) -> Any:
        """The task's value; raises what the task raised."""
        ...

    async def watch(self, on_state: OnState) -> Any:
        """The task's value; ``on_state`` is called with each state and its meta as soon as they are seen."""
        ...

    async def state(self) -> str:
        """The state that the client sees now."""
        ...


class Client(Protocol):
    """Sends tasks by name."""

    async def send(
        self,
        task: str,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        queue: str,
        protocol: int = 2,
        link: Linked | None = None,
        link_error: Linked | None = None,
        **options: Any,
    ) -> Sent:
        """Send one task; return when the broker has it. The options' names are Celery's.

        :param link: name and keyword arguments of the task to run with this one's value in front.
        :param link_error: name and keyword arguments of the task to run when this one fails.
        """
        ...
