"""Access to the results of an app."""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

import msgspec

from celeriac.client.connections import ConnectionTable, RunBlocking
from celeriac.client.following import Outages, Outlasting
from celeriac.contracts.backend import Backend

T = TypeVar("T")


class ResultStore(msgspec.Struct, frozen=True):
    """Where the results of an app are read, by code with a loop and code without."""

    connections: ConnectionTable
    run: RunBlocking
    outages: Outages = msgspec.field(default_factory=Outages)

    def wait(self, coroutine: Coroutine[Any, Any, T], /) -> T:
        """Run a coroutine that waits for a task to end."""
        return self.run(coroutine, for_a_result=True)

    @property
    def backend(self) -> Backend:
        """The running loop's backend."""
        return self.connections.current().backend

    def follow(self, task_ids: Collection[str]) -> Outlasting:
        """Return a follower of these tasks that survives outages."""
        return Outlasting(self.backend, task_ids, self.outages)
