"""Passes stored records to the followers of their tasks; every result store's ``follow`` uses this.

Rules: a follower gets each state of a task once, however often the store looks; what cannot be read fails the
follower of that task and nobody else; nothing is kept for tasks that nobody follows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterator
from contextlib import contextmanager

from celeriac.servers.offload import in_thread
from celeriac.wire.result import ResultRecord


class Follower:
    """One ``follow`` block: what it still waits for and what it has not handed out."""

    def __init__(self, task_ids: Collection[str]) -> None:
        self.pending = set(task_ids)
        self._last: dict[str, Hashable] = {}
        self._unread: deque[ResultRecord | Exception | Callable[[], ResultRecord]] = deque()
        self._fed = asyncio.Event()

    def offer(
        self, task_id: str, version: Hashable, read: Callable[[], ResultRecord], *, slow: bool = False
    ) -> None:
        """Take the record unless it is the version that was taken last.

        :param read: makes the record; what it raises is raised to the follower.
        :param slow: leave reading to a thread, when the follower gets to it.
        """
        if self._last.get(task_id) == version:
            return
        self._last[task_id] = version
        if slow:
            self._unread.append(read)
            self._fed.set()
            return
        try:
            record = read()
        except Exception as error:  # noqa: BLE001 - it goes to the follower
            self.fail(error)
        else:
            self._unread.append(record)
            self._fed.set()

    def fail(self, error: Exception) -> None:
        """Raise the error in the follower, after what it has not read yet."""
        self._unread.append(error)
        self._fed.set()

    async def records(self) -> AsyncIterator[ResultRecord]:
        """Yield what was offered until every task is ready."""
        while self.pending or self._unread:
            if not self._unread:
                self._fed.clear()
                await self._fed.wait()
            # Removed only after it was read, since the caller may be cancelled meanwhile.
            record = self._unread[0]
            if not isinstance(record, ResultRecord | Exception):
                record = await _read_aside(record)
            self._unread.popleft()
            if isinstance(record, Exception):
                raise record
            if record.ready:
                self.pending.discard(record.task_id)
            yield record


async def _read_aside(read: Callable[[], ResultRecord]) -> ResultRecord | Exception:
    try:
        return await in_thread(read)
    except Exception as error:  # noqa: BLE001 - it goes to the follower
        return error


class Following:
    """The followers of one result store, by task."""

    def __init__(self) -> None:
        self._followers: dict[str, set[Follower]] = {}

    def __len__(self) -> int:
        return len(self._followers)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._followers

    def followed_by_others(self, task_id: str) -> bool:
        """Whether more than one follower follows the task."""
        return len(self._followers.get(task_id, ())) > 1

    @property
    def pending(self) -> list[str]:
        """Ids of the tasks that are still followed."""
        return [
            task_id
            for task_id, followers in self._followers.items()
            if any(task_id in follower.pending for follower in followers)
        ]

    def fail(self, error: Exception) -> None:
        """Raise the error in every follower."""
        for follower in {follower for followers in self._followers.values() for follower in followers}:
            follower.fail(error)

    def offer(
        self, task_id: str, version: Hashable, read: Callable[[], ResultRecord], *, slow: bool = False
    ) -> None:
        """Pass the record to every follower of the task."""
        for follower in self._followers.get(task_id, ()):
            follower.offer(task_id, version, read, slow=slow)

    @contextmanager
    def register(self, task_ids: Collection[str]) -> Iterator[Follower]:
        """Have a follower of these tasks for the time of the block."""
        follower = Follower(task_ids)
        for task_id in set(task_ids):
            self._followers.setdefault(task_id, set()).add(follower)
        try:
            yield follower
        finally:
            for task_id in set(task_ids):
                self._leave(task_id, follower)

    def _leave(self, task_id: str, follower: Follower) -> None:
        followers = self._followers[task_id]
        followers.discard(follower)
        if not followers:
            del self._followers[task_id]
