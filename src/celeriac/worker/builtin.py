"""The tasks that every worker has, since Celery's workflows count on them (Celery: built-in tasks).

Rules: a task of the app's own goes before a built-in one of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from celeriac.client.app import App
from celeriac.client.task import CoroutineTask, TaskOptions
from celeriac.context import Context
from celeriac.errors import MalformedMessage, TaskNotFound
from celeriac.wire.result import ResultRecord
from celeriac.wire.signature import ACCUMULATE, MAP, STARMAP, read
from celeriac.worker.calling import Calling
from celeriac.worker.runnable import Runnable
from celeriac.worker.workflows import Workflows

CHORD_UNLOCK = "celery.chord_unlock"
UNLOCK_INTERVAL = 1.0
"""Seconds between looks at a header (Celery: ``result_chord_retry_interval``)."""

ENDLESS = 1 << 62


class Repertoire(Mapping[str, Runnable]):
    """The tasks that a worker can run: the app's, and the built-in ones."""

    def __init__(self, app: App, calling: Calling, workflows: Workflows) -> None:
        self._own = app.tasks
        self._calling = calling
        self._workflows = workflows
        self._load = app.connections().backend.load
        built_in: dict[str, Callable[..., Any]] = {
            ACCUMULATE: self._accumulate,
            MAP: self._map,
            STARMAP: self._starmap,
            CHORD_UNLOCK: self._chord_unlock,
        }
        options = {CHORD_UNLOCK: TaskOptions(ignore_result=True)}
        self._built_in: dict[str, Runnable] = {
            name: CoroutineTask(name, function, options.get(name, TaskOptions()), app.outbox)
            for name, function in built_in.items()
        }

    def __getitem__(self, name: str) -> Runnable:
        task = self._own.get(name)
        return self._built_in[name] if task is None else task

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._built_in

    def __iter__(self) -> Iterator[str]:
        return iter({**self._built_in, **self._own})

    def __len__(self) -> int:
        return len({**self._built_in, **self._own})

    async def _accumulate(self, *args: Any, **kwargs: Any) -> Any:
        """Return the arguments, or the one at ``index``."""
        index = kwargs.get("index")
        return list(args) if index is None else args[index]

    async def _map(self, ctx: Context, task: Any, it: list[Any]) -> list[Any]:
        """Call a task with each item."""
        return [await self._call(ctx, task, [item]) for item in it]

    async def _starmap(self, ctx: Context, task: Any, it: list[list[Any]]) -> list[Any]:
        """Call a task with each list of arguments."""
        return [await self._call(ctx, task, list(arguments)) for arguments in it]

    async def _call(self, ctx: Context, signature: Any, given: list[Any]) -> Any:
        wire = read(signature)
        task = self.get(wire.task)
        if task is None:
            raise TaskNotFound(wire.task)
        return await self._calling.bound(task, ctx, [*given, *wire.args], dict(wire.kwargs))

    async def _chord_unlock(
        self,
        ctx: Context,
        group_id: str,
        callback: Any,
        interval: float | None = None,
        max_retries: int | None = None,
        result: Any = None,
        **kwargs: Any,
    ) -> None:
        """Send a chord's body once its header is ready; look again later until it is.

        Celery sends this task with chords whose result backend cannot count.
        """
        ids = [leaf for member in result or () for leaf in _leaf_ids(member)]
        found = dict(zip(ids, await self._load(ids), strict=True)) if ids else {}
        if any(record is None or not record.ready for record in found.values()):
            attempts = ENDLESS if max_retries is None else max_retries + 1
            ctx.retry(countdown=UNLOCK_INTERVAL if interval is None else interval, max_attempts=attempts)
        records = {task_id: record for task_id, record in found.items() if record is not None}
        values = [_arranged(member, records) for member in result or ()]
        await self._workflows.unlock(ctx.message, group_id, callback, values)


def _leaf_ids(member: Any) -> Iterator[str]:
    task_id, members = _parts(member)
    if members is None:
        yield task_id
    else:
        for one in members:
            yield from _leaf_ids(one)


def _arranged(member: Any, records: Mapping[str, ResultRecord]) -> Any:
    task_id, members = _parts(member)
    return records[task_id] if members is None else [_arranged(one, records) for one in members]


def _parts(member: Any) -> tuple[str, Sequence[Any] | None]:
    """Return the id and the members of a Celery result tuple."""
    try:
        (task_id, _), members = member
    except (TypeError, ValueError):
        raise MalformedMessage(f"no result tuple: {member!r:.100}") from None
    return task_id, members
