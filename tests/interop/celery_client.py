"""Celery's own client, of whatever version is installed where this is imported."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from celery import Celery, chain, chord, group
from celery.result import AsyncResult

from tests.celery_connections import disconnect
from tests.interop.clients import TIMEOUT, Build, Linked, OnState

T = TypeVar("T")


class CeleryKit:
    def __init__(self, app: Celery, queues: Sequence[str]) -> None:
        self._app = app
        self._queues = itertools.cycle(queues)
        self.group = group
        self.chain = chain
        self.chord = partial(chord, app=app)

    def s(self, task: str, *args: Any, **options: Any) -> Any:
        return self._app.signature(f"interop.{task}", args, options={"queue": next(self._queues), **options})

    def si(self, task: str, *args: Any) -> Any:
        return self.s(task, *args).set(immutable=True)

    def s_with(self, task: str, kwargs: dict[str, Any]) -> Any:
        return self.s(task).clone(kwargs=kwargs)


class CelerySent:
    """What Celery's client holds of a task."""

    def __init__(self, result: AsyncResult, thread: ThreadPoolExecutor) -> None:
        self.id = result.id
        self._result = result
        self._thread = thread

    async def value(self) -> Any:
        return await _in(self._thread, lambda: self._result.get(timeout=TIMEOUT, interval=0.02))

    async def watch(self, on_state: OnState) -> Any:
        def on_message(meta: dict[str, Any]) -> None:
            on_state(meta["status"], meta["result"])

        return await _in(self._thread, lambda: self._result.get(timeout=TIMEOUT, on_message=on_message))

    async def state(self) -> str:
        return await _in(self._thread, lambda: self._result.state)


class CeleryClient:
    """Celery's own client, in one thread of its own: its result consumer is not made for several."""

    def __init__(self, url: str, backend: str | None = None) -> None:
        self._apps = {protocol: _celery(url, backend or url, protocol) for protocol in (1, 2)}
        self._thread = ThreadPoolExecutor(1)

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
    ) -> CelerySent:
        app = self._apps[protocol]
        for name, linked in (("link", link), ("link_error", link_error)):
            if linked is not None:
                options[name] = app.signature(linked[0], kwargs=linked[1], options={"queue": queue})
        result = await _in(self._thread, lambda: app.send_task(task, args, kwargs, queue=queue, **options))
        return CelerySent(result, self._thread)

    async def send_chain(self, *steps: tuple[str, Sequence[Any], str]) -> list[CelerySent]:
        """Send a chain of (task, arguments, queue); each step gets the value of the one before in front."""
        signatures = [
            self._apps[2].signature(task, args=args, options={"queue": queue}) for task, args, queue in steps
        ]
        result = await _in(self._thread, lambda: chain(*signatures, app=self._apps[2]).apply_async())
        sent = []
        while result is not None:
            sent.insert(0, CelerySent(result, self._thread))
            result = result.parent
        return sent

    async def send_workflow(self, build: Build, queues: Sequence[str]) -> CelerySent:
        """Send a workflow, its tasks on these queues in turn; what gives its value."""
        workflow = build(CeleryKit(self._apps[2], queues))
        result = await _in(self._thread, workflow.apply_async)
        return CelerySent(result, self._thread)

    def close(self) -> None:
        self._thread.submit(self._disconnect).result()
        self._thread.shutdown()

    def _disconnect(self) -> None:
        for app in self._apps.values():
            disconnect(app)


def _celery(url: str, backend: str, protocol: int) -> Celery:
    app = Celery("client", broker=url, backend=backend, set_as_current=False)
    app.conf.task_protocol = protocol
    return app


async def _in(thread: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, function)
