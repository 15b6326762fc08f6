"""What a person can have done to tasks: run again, cancel, kill, forget.

Rules: a task that is run again gets a new id, and the header ``x-celeriac-retry-of`` names the old one. Its arguments
come from the result store where that keeps them, else from the text of its event, if that text is whole and reads back
as the same values; otherwise it is refused, and a person may write the arguments.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from celeriac.client.app import App
from celeriac.client.revoking import revoke
from celeriac.errors import CeleriacError
from celeriac.monitor.history import History
from celeriac.monitor.masking import HIDDEN
from celeriac.monitor.rows import TaskRow

RETRY_OF = "x-celeriac-retry-of"
"""The header that names the task that is run again."""


class Arguments(msgspec.Struct, frozen=True):
    """The arguments of a task."""

    args: list[Any]
    kwargs: dict[str, Any]


class Refused(CeleriacError):
    """It cannot be done; the text says why, and what to do."""


class Partly(Refused):
    """Some of it was done.

    :param done: how many.
    """

    def __init__(self, done: int, text: str) -> None:
        super().__init__(text)
        self.done = done


class Actions:
    """Does what a person asks for.

    :param history: what is known of the tasks.
    """

    def __init__(self, app: App, history: History) -> None:
        self._app = app
        self._history = history

    async def retry(self, id: str, arguments: Arguments | None = None) -> str:
        """Run a task again; return the new id.

        :param arguments: to use in place of its own.

        Raises ``Refused`` where the arguments are not known, and as sending does.
        """
        row = await self._known(id)
        given = arguments or await self.arguments(row)
        options: dict[str, Any] = {"headers": {RETRY_OF: id}}
        if row.queue:
            options["queue"] = row.queue
        result = await self._app.send_task(row.name, given.args, given.kwargs, **options)
        return result.id

    async def retry_all(self, ids: Sequence[str]) -> int:
        """Run tasks again; return how many. Raises ``Partly`` after all were tried, where some cannot be."""
        refused = list[str]()
        for id in ids:
            try:
                await self.retry(id)
            except Refused as error:
                refused.append(str(error))
        if refused:
            raise Partly(
                len(ids) - len(refused), f"{refused[0]}" + (f" ({len(refused)} such)" if refused[1:] else "")
            )
        return len(ids)

    async def arguments(self, row: TaskRow) -> Arguments:
        """Return the arguments that a task was called with. Raises ``Refused`` where they are not known whole."""
        stored = await self._stored(row.id)
        if stored is not None:
            return stored
        args, kwargs = _read_back(row.args or "()"), _read_back(row.kwargs or "{}")
        if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
            raise Refused(
                f"the arguments of task {row.id} are not known whole: write them, or let the workers keep them with"
                " result_extended"
            )
        return Arguments(list(args), {str(name): value for name, value in kwargs.items()})

    async def cancel(self, ids: Sequence[str], *, terminate: bool = False, workflow: bool = False) -> int:
        """Revoke tasks, or whole workflows by the ids of their roots; return how many were named."""
        roots = list(ids) if workflow else []
        await revoke(self._app.connections(), [] if workflow else list(ids), roots=roots, terminate=terminate)
        return len(ids)

    async def forget(self, ids: Sequence[str]) -> int:
        """Delete tasks from the history; return how many were known."""
        return await self._history.delete(ids)

    async def _known(self, id: str) -> TaskRow:
        row = await self._history.task(id)
        if row is None:
            raise Refused(f"task {id} is not known here")
        if not row.name:
            raise Refused(f"the name of task {id} is not known: no event told it")
        return row

    async def _stored(self, id: str) -> Arguments | None:
        """Return the arguments that the result store keeps as values."""
        record = (await self._app.connections().backend.load([id]))[0]
        if record is None or record.args is None or isinstance(record.args, str):
            return None
        kwargs = record.kwargs
        if not isinstance(record.args, (list, tuple)) or not isinstance(kwargs or {}, Mapping):
            return None
        return Arguments(list(record.args), dict(kwargs or {}))


def _read_back(text: str) -> Any:
    """Return the values that the text of an event stands for; ``None`` where it is cut, hidden, or no literal."""
    if "..." in text or "…" in text or HIDDEN in text:
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if repr(value) == text or not _is_doubtful(text) else None


def _is_doubtful(text: str) -> bool:
    return "<" in text and " object at " in text
