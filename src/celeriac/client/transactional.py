"""Sends within a transaction of the caller's: what is sent is there once the transaction commits.

Rules: the statements are executed where the caller is: in its event loop, or in its thread.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar, overload

from celeriac.canvas.nodes import Node
from celeriac.client.outbox import Call, Outbox
from celeriac.client.result import Result
from celeriac.client.task import Sender, Task
from celeriac.errors import ArgumentError
from celeriac.servers.caller_connection import Caller

P = ParamSpec("P")
R = TypeVar("R")


class Transactional:
    """Sends with a connection of the caller's; made by ``app.using(connection)``.

    :param connection: of SQLAlchemy, psycopg, asyncpg, Django or sqlite3.

    Each method raises ``ConfigError`` where the broker is no database with transactions. Results can be asked for after
    the commit.
    """

    def __init__(self, outbox: Outbox, connection: Any) -> None:
        self._outbox = outbox
        self._caller = Caller(connection)

    @overload
    def send(
        self, what: Task[P, R] | Sender[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Result[R]]: ...
    @overload
    def send(self, what: Call[R], /) -> Coroutine[Any, Any, Result[R]]: ...
    @overload
    def send(self, what: Node[Any], /) -> Coroutine[Any, Any, Any]: ...
    def send(self, what: Any, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Send a task with its arguments, a call, or a workflow; to be awaited.

        Raises as ``Task.send``, and what the caller's connection raises.
        """
        if isinstance(what, Node):
            return self._outbox.send_workflow(what, self._caller)
        return self._outbox.send(_call(what, args, kwargs), self._caller)

    @overload
    def delay(self, what: Task[P, R] | Sender[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Result[R]: ...
    @overload
    def delay(self, what: Call[R], /) -> Result[R]: ...
    @overload
    def delay(self, what: Node[Any], /) -> Any: ...
    def delay(self, what: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Send as ``send`` and block until it is written. For code without an event loop."""
        if isinstance(what, Node):
            return self._outbox.delay_workflow(what, self._caller)
        return self._outbox.delay(_call(what, args, kwargs), self._caller)

    async def send_many(self, calls: Sequence[Call[R]]) -> list[Result[R]]:
        """Send calls made by ``task.call(...)`` or ``app.call(...)``; results are in their order."""
        return await self._outbox.send_many(calls, self._caller)

    def delay_many(self, calls: Sequence[Call[R]]) -> list[Result[R]]:
        """Send calls as ``send_many`` and block until they are written."""
        return self._outbox.delay_many(calls, self._caller)


def _call(what: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
    if isinstance(what, Task | Sender):
        return what.call(*args, **kwargs)
    if isinstance(what, Call) and not args and not kwargs:
        return what
    raise ArgumentError(
        f"{what!r:.200}: give a task and its arguments, a call made by task.call(...) or app.call(...), or a workflow"
    )
