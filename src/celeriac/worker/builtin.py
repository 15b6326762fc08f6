"""The tasks that every worker has, because Celery's workflows send messages to them (Celery: built-in tasks).

Rules: a task of the app takes precedence over a built-in task of the same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from time import monotonic
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
BUILT_IN = frozenset({ACCUMULATE, MAP, STARMAP, CHORD_UNLOCK})
UNLOCK_INTERVAL = 1.0
"""The fewest seconds between two looks at a chord's header (Celery: ``result_chord_retry_interval``)."""

GROWTH, LONGEST_INTERVAL = 1.05, 60.0
"""The factor from one interval to the next, and the longest interval in seconds. A ready header is noticed after at
most a twentieth of the time that it took."""

GROWING = 100
"""Looks after which the interval grows no more."""

LOOKED_FOR = 7 * 86400.0
"""Seconds that a chord waits for its header where results never expire."""

AT_ONCE = 500
"""Results that are read from the store in one go."""

WITHOUT_PAUSE = 0.01
"""Seconds of calls after which the event loop gets a turn."""


class Repertoire(Mapping[str, Runnable]):
    """The tasks that a worker can run: the app's, and the built-in ones."""

    def __init__(self, app: App, calling: Calling, workflows: Workflows) -> None:
        self._own = app.tasks
        self._calling = calling
        self._workflows = workflows
        self._load = app.connections().backend.load
        self._patience = app.settings.result_expires or LOOKED_FOR
        self._most = app.settings.max_follow_ups
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

    def find(self, name: str) -> Runnable | None:
        """Return the task of that name; a call of a method costs half as much as a look by ``[]``."""
        task = self._own.get(name)
        return self._built_in.get(name) if task is None else task

    def __getitem__(self, name: str) -> Runnable:
        task = self.find(name)
        if task is None:
            raise KeyError(name)
        return task

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
        return await self._calls(ctx, task, ([item] for item in it))

    async def _starmap(self, ctx: Context, task: Any, it: list[list[Any]]) -> list[Any]:
        """Call a task with each list of arguments."""
        return await self._calls(ctx, task, (list(arguments) for arguments in it))

    async def _calls(self, ctx: Context, task: Any, calls: Iterable[list[Any]]) -> list[Any]:
        values = []
        pause_at = monotonic() + WITHOUT_PAUSE
        for given in calls:
            values.append(await self._call(ctx, task, given))
            if monotonic() > pause_at:
                await asyncio.sleep(0)
                pause_at = monotonic() + WITHOUT_PAUSE
        return values

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

        Celery sends this task with chords whose result backend cannot count. The body fails when the header is not
        ready after ``max_retries`` looks, or when the first results of it are not kept any longer.
        """
        leaves = (leaf for member in result or () for leaf in _leaf_ids(member))
        ids = list(islice(leaves, self._most + 1))
        if len(ids) > self._most:
            raise MalformedMessage(f"a header of more tasks than max_follow_ups={self._most}")
        records: dict[str, ResultRecord] = {}
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            found = zip(some, await self._load(some), strict=True)
            records |= {task_id: record for task_id, record in found if record is not None and record.ready}
            if any(task_id not in records for task_id in some):
                await self._look_again(ctx, group_id, callback, interval, max_retries)
                return
        values = [_arranged(member, records) for member in result or ()]
        await self._workflows.unlock(ctx.message, group_id, callback, values)

    async def _look_again(
        self, ctx: Context, chord_id: str, body: Any, interval: Any, max_retries: Any
    ) -> None:
        given = isinstance(interval, int | float) and UNLOCK_INTERVAL < interval < LOOKED_FOR
        first = float(interval) if given else UNLOCK_INTERVAL
        looks = ctx.retries + 1
        over = isinstance(max_retries, int) and looks > max_retries
        if over or _waited(looks, first) > self._patience:
            reason = f"its header was not ready after {looks} looks"
            await self._workflows.give_up(ctx.message, chord_id, body, reason)
            return
        ctx.retry(countdown=_wait(looks, first), max_attempts=looks + 1)


def _wait(look: int, first: float) -> float:
    """Return the seconds after a look."""
    return min(first * GROWTH ** min(look - 1, GROWING), max(first, LONGEST_INTERVAL))


def _waited(looks: int, first: float) -> float:
    """Return the seconds from the first look to this one."""
    growing = min(looks, GROWING)
    return sum(_wait(look, first) for look in range(1, growing)) + (looks - growing) * _wait(looks, first)


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
