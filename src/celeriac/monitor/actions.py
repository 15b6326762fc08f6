"""What a person can have done to tasks: run again, cancel, kill, forget.

Rules: a task that is run again gets a new id, and the header ``x-celeriac-retry-of`` names the old one. If its message
is in the failed list, that is sent. Otherwise its arguments come from the result store where that keeps them, else from
the text of its event, if that is whole and reads back as the same values; otherwise it is refused, and a person may
write the arguments. What is asked for twice within ``TWICE`` seconds is done once.
"""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from celeriac.client.app import App
from celeriac.client.removing import Waiting, remove_waiting
from celeriac.client.revoking import revoke
from celeriac.clock import Clock
from celeriac.errors import CeleriacError
from celeriac.monitor.again import (
    RETRY_OF,
    Arguments,
    Refused,
    SentAlready,
    send_again,
    send_all_again,
)
from celeriac.monitor.history import History
from celeriac.monitor.jobs import Partly, Progress
from celeriac.monitor.masking import HIDDEN
from celeriac.monitor.rows import TaskRow
from celeriac.monitor.served import Served
from celeriac.wire.result import ResultRecord

TWICE = 10.0
"""Seconds within which a second wish to run the same task again is taken for a double click."""


class Lately:
    """The tasks that were sent again of late.

    :param clock: tells the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sent: dict[tuple[str, str], float] = {}

    def note(self, id: str, changes: str) -> None:
        """Note that a task is sent again. Raises ``Refused`` if it was, the same way, within ``TWICE`` seconds."""
        now = self._clock.monotonic()
        if now - self._sent.get((id, changes), now - TWICE) < TWICE:
            raise Refused(f"task {id} was sent again a moment ago")
        self.mark(id, changes)

    def mark(self, id: str, changes: str) -> None:
        """Note that a task was sent again."""
        now = self._clock.monotonic()
        while self._sent and now - self._sent[first := next(iter(self._sent))] >= TWICE:
            del self._sent[first]
        self._sent.pop((id, changes), None)
        self._sent[id, changes] = now

    def forget(self, id: str, changes: str) -> None:
        """Let it be tried anew: it was not sent after all."""
        self._sent.pop((id, changes), None)


class Actions:
    """Does what a person asks for.

    :param history: what is known of the tasks; it keeps which were run again.
    :param served: the queues of workers.
    """

    def __init__(self, app: App, history: History, lately: Lately, served: Served) -> None:
        self._app = app
        self._history = history
        self._lately = lately
        self._served = served

    async def retry(self, id: str, arguments: Arguments | None = None) -> str:
        """Run a task again; return the new id.

        :param arguments: to use in place of its own.

        Raises ``Refused`` where the arguments are not known, and as sending does.
        """
        changes = "" if arguments is None else repr((arguments.args, arguments.kwargs))
        self._lately.note(id, changes)
        try:
            new = await self._retry(id, arguments)
        except SentAlready:
            await self._history.note_again([id])
            raise
        except BaseException:
            self._lately.forget(id, changes)
            raise
        await self._history.note_again([id])
        return new

    async def _retry(self, id: str, arguments: Arguments | None) -> str:
        for letter in await self._app.connections().broker.failed.find([id]):
            return await send_again(self._app, letter, arguments)
        row = await self._known(id)
        record = None if arguments is not None and row.queue else await self._record(id)
        given = arguments or _arguments(row, record)
        options: dict[str, Any] = {"headers": {RETRY_OF: id}}
        if queue := row.queue or (record and record.queue) or self._queue_of(row.worker):
            options["queue"] = queue
        result = await self._app.send_task(row.name, given.args, given.kwargs, **options)
        return result.id

    def _queue_of(self, worker: str) -> str:
        """Return a queue that the worker of a task takes from, where it takes none from the app's own.

        Celery's events do not say where a task came from, and no worker would take it from another fleet's queue.
        """
        queues = self._served.of(worker)
        return queues[0] if queues and self._app.settings.default_queue not in queues else ""

    async def retry_all(self, ids: Sequence[str]) -> int:
        """Run tasks again; return how many. Raises ``Partly`` after all were tried, where some cannot be."""
        kept = {letter.id: letter for letter in await self._app.connections().broker.failed.find(ids)}
        answers = await send_all_again(self._app, list(kept.values()))
        refused = [str(answer) for _, answer in answers if isinstance(answer, CeleriacError)]
        for id in kept:
            self._lately.mark(id, "")
        await self._history.note_again(_sent(answers))
        for id in ids:
            try:
                if id not in kept:
                    await self.retry(id)
            except Refused as error:
                refused.append(str(error))
        if refused:
            raise Partly(
                len(ids) - len(refused), f"{refused[0]}" + (f" ({len(refused)} such)" if refused[1:] else "")
            )
        return len(ids)

    async def arguments(self, row: TaskRow) -> Arguments:
        """Return the arguments of a task that is not in the failed list. Raises ``Refused`` if they are not known."""
        return _arguments(row, await self._record(row.id))

    async def retry_failed(self, ids: Sequence[str]) -> int:
        """Run tasks of the failed list again; return how many. Raises ``Partly`` where some were not sent."""
        letters = await self._app.connections().broker.failed.find(ids)
        answers = await send_all_again(self._app, letters)
        await self._history.note_again(_sent(answers))
        refused = [str(answer) for _, answer in answers if isinstance(answer, CeleriacError)]
        if refused:
            raise Partly(len(answers) - len(refused), refused[0])
        return len(answers)

    async def cancel(self, ids: Sequence[str], *, terminate: bool = False, workflow: bool = False) -> int:
        """Revoke tasks, or whole workflows by the ids of their roots; return how many were named."""
        roots = list(ids) if workflow else []
        await revoke(self._app.connections(), [] if workflow else list(ids), roots=roots, terminate=terminate)
        return len(ids)

    async def remove(
        self, queue: str, chosen: Callable[[Waiting], bool], most: int | None = None
    ) -> AsyncIterator[Progress]:
        """Remove waiting tasks from a queue and note it in the history; yield what each step did.

        :param most: end once so many were removed.

        Raises as ``celeriac.client.removing.remove_waiting`` does.
        """
        done = 0
        async for step in remove_waiting(self._app, queue, chosen):
            done += len(step.removed)
            await self._history.take([self._removed(one, queue) for one in step.removed if one.id])
            yield Progress(step.looked, len(step.removed))
            if most is not None and done >= most:
                return

    def _removed(self, one: Waiting, queue: str) -> dict[str, Any]:
        """Return an event as a worker would send it that drops a revoked task."""
        return {
            "type": "task-revoked",
            "uuid": one.id,
            "name": one.task,
            "queue": queue,
            "timestamp": self._app.clock.now(),
        }

    async def forget(self, ids: Sequence[str]) -> int:
        """Delete tasks from the history; return how many were known."""
        return await self._history.forget(ids)

    async def _known(self, id: str) -> TaskRow:
        row = await self._history.task(id)
        if row is None:
            raise Refused(f"task {id} is not known here")
        if not row.name:
            raise Refused(f"the name of task {id} is not known: no event told it")
        return row

    async def _record(self, id: str) -> ResultRecord | None:
        return (await self._app.connections().backend.load([id]))[0]


def _sent(answers: Sequence[tuple[str, str | CeleriacError]]) -> list[str]:
    """Return the tasks whose messages were sent again, now or before; the others may be tried anew."""
    return [
        id
        for id, answer in answers
        if isinstance(answer, SentAlready) or not isinstance(answer, CeleriacError)
    ]


def _arguments(row: TaskRow, record: ResultRecord | None) -> Arguments:
    """Return the arguments that the result store keeps as values, else those of the event, if its text is whole."""
    stored = _stored(record)
    if stored is not None:
        return stored
    args, kwargs = _read_back(row.args or "()"), _read_back(row.kwargs or "{}")
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
        raise Refused(
            f"the arguments of task {row.id} are not known whole: write them, or let the workers keep them with"
            " result_extended"
        )
    return Arguments(list(args), {str(name): value for name, value in kwargs.items()})


def _stored(record: ResultRecord | None) -> Arguments | None:
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
