"""Listeners and lifespans that an app attaches to each of its workers; a lifespan's resource lives with the worker."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeAlias

from celeriac.errors import ConfigError
from celeriac.worker.listeners import AroundBody, Listener
from celeriac.worker.log import Log
from celeriac.worker.slots import Slots

State: TypeAlias = Mapping[str, Any]
Lifespan: TypeAlias = Callable[[], AsyncIterator[State | None]] | Callable[[], Iterator[State | None]]
"""A generator function: what comes before its ``yield`` runs at the start, what comes after it at the stop."""

ChildLifespan: TypeAlias = Callable[[], Iterator[State | None]]
"""The same for a process of the pool, which has no event loop."""


class Working(Protocol):
    """A worker, as what observes it sees it."""

    name: str

    @property
    def queues(self) -> Sequence[str]:
        """The queues that it takes from."""
        ...

    @property
    def slots(self) -> Slots | None:
        """How many of its slots are taken; ``None`` before it has begun."""
        ...


class Attachments:
    """The listeners and lifespans of one app, in the order in which they were given.

    :ivar workers: the app's workers that run in this process.
    :ivar log: writes what becomes of each task; it hears of everything last.
    """

    def __init__(self) -> None:
        self.workers: list[Working] = []
        self.listeners: list[Listener] = []
        self.lifespans: list[Lifespan] = []
        self.child_lifespans: list[ChildLifespan] = []
        self.log: Listener = Log()

    def listen(self, listener: Listener) -> None:
        """Tell this listener what the workers do. Raises ``ConfigError`` for an object that is no listener."""
        if not isinstance(listener, Listener):
            raise ConfigError(
                f"{listener!r:.100} is no listener: give an instance of a subclass of celeriac.Listener"
            )
        self.listeners.append(listener)

    def live(self, lifespan: Lifespan) -> None:
        """Run a generator function around each worker. Raises ``ConfigError`` for anything else."""
        if not inspect.isasyncgenfunction(lifespan) and not inspect.isgeneratorfunction(lifespan):
            raise ConfigError(
                f"{lifespan!r:.100} is no lifespan: write a function, or async function, with one yield"
            )
        self.lifespans.append(lifespan)

    def live_in_children(self, lifespan: ChildLifespan) -> None:
        """Run a generator function around each process of the pool. Raises ``ConfigError`` for anything else."""
        if not inspect.isgeneratorfunction(lifespan):
            raise ConfigError(
                f"{lifespan!r:.100} is no lifespan of a child process: write a plain function with one yield"
            )
        self.child_lifespans.append(lifespan)

    @property
    def around_bodies(self) -> Sequence[AroundBody]:
        """What the listeners want to be entered around each body in a process of the pool."""
        return [
            type(one).around_body
            for one in self.listeners
            if type(one).around_body is not Listener.around_body
        ]


async def begin(lifespans: Sequence[Lifespan]) -> tuple[AsyncExitStack, State]:
    """Run lifespans up to their ``yield``; return the stack that ends them, and the state that they yielded.

    An error of one lifespan is raised after the lifespans that had begun were ended.
    """
    state: dict[str, Any] = {}
    begun = AsyncExitStack()
    try:
        for lifespan in lifespans:
            state |= checked(await _enter(begun, lifespan), lifespan)
    except BaseException:
        await begun.aclose()
        raise
    return begun, state


async def _enter(begun: AsyncExitStack, lifespan: Lifespan) -> Any:
    if inspect.isasyncgenfunction(lifespan):
        return await begun.enter_async_context(asynccontextmanager(lifespan)())
    return begun.enter_context(contextmanager(lifespan)())  # type: ignore[arg-type]


def checked(yielded: Any, lifespan: Lifespan) -> State:
    """Return what a lifespan yielded, if it is a mapping. Raises ``ConfigError`` for anything else."""
    if yielded is None:
        return {}
    if not isinstance(yielded, Mapping):
        name = getattr(lifespan, "__name__", repr(lifespan))
        raise ConfigError(
            f"lifespan {name} yielded {yielded!r:.100}: yield a mapping, such as {{'pool': pool}}, or nothing"
        )
    return yielded
