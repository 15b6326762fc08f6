"""celeriac's client."""

import itertools
from collections.abc import Sequence
from typing import Any

from celeriac import Celeriac, Result, chain, chord, group
from tests.interop.clients import TIMEOUT, Build, Linked, OnState


class CeleriacKit:
    def __init__(self, app: Celeriac, queues: Sequence[str]) -> None:
        self._app = app
        self._queues = itertools.cycle(queues)
        self.group = group
        self.chain = chain
        self.chord = chord

    def s(self, task: str, *args: Any, **options: Any) -> Any:
        errbacks = options.pop("link_error", [])
        signature = self._app.signature(f"interop.{task}", *args).set(queue=next(self._queues), **options)
        return signature.link_error(*errbacks) if errbacks else signature

    def si(self, task: str, *args: Any) -> Any:
        return self.s(task, *args).set(immutable=True)

    def s_with(self, task: str, kwargs: dict[str, Any]) -> Any:
        return self.s(task).clone(kwargs=kwargs)


class CeleriacSent:
    """What celeriac's client holds of a task."""

    def __init__(self, result: Result[Any]) -> None:
        self.id = result.id
        self.result = result

    async def value(self) -> Any:
        return await self.result.wait(timeout=TIMEOUT)

    async def watch(self, on_state: OnState) -> Any:
        async for record in self.result.watch():
            on_state(record.status, record.result)
        return await self.value()

    async def state(self) -> str:
        return (await self.result.info()).status


class CeleriacClient:
    """celeriac's client, with no task of its own: everything is sent by name."""

    def __init__(self, url: str, backend: str | None = None) -> None:
        self.app = Celeriac("client", broker=url, backend=backend or url)

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
    ) -> CeleriacSent:
        for name, linked in (("link", link), ("link_error", link_error)):
            if linked is not None:
                options[name] = _signature(*linked, queue)
        result = await self.app.send_task(task, args, kwargs, queue=queue, protocol=protocol, **options)
        return CeleriacSent(result)

    async def send_workflow(self, build: Build, queues: Sequence[str]) -> CeleriacSent:
        """Send a workflow, its tasks on these queues in turn; what gives its value."""
        return CeleriacSent(await build(CeleriacKit(self.app, queues)).send())

    async def close(self) -> None:
        await self.app.close()


def _signature(task: str, kwargs: dict[str, Any], queue: str) -> dict[str, Any]:
    """A signature as Celery writes it."""
    return {
        "task": task,
        "args": [],
        "kwargs": kwargs,
        "options": {"queue": queue},
        "subtask_type": None,
        "immutable": False,
    }
