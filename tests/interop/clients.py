"""One way to call for both clients, so that each test says once what must hold whoever calls whom."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from celery import Celery, chain
from celery.result import AsyncResult

from celeriac import Celeriac, Result
from tests.celery_connections import disconnect
from tests.interop.workflows import Build, CeleriacKit, CeleryKit

T = TypeVar("T")
OnState = Callable[[str, Any], None]
Linked = tuple[str, dict[str, Any]]
TIMEOUT = 20.0


class Sent(Protocol):
    """A task that was sent."""

    id: str

    async def value(self) -> Any:
        """The task's value; raises what the task raised."""
        ...

    async def watch(self, on_state: OnState) -> Any:
        """The task's value; ``on_state`` is called with each state and its meta as soon as they are seen."""
        ...

    async def state(self) -> str:
        """The state that the client sees now."""
        ...


class Client(Protocol):
    """Sends tasks by name."""

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
    ) -> Sent:
        """Send one task; return when the broker has it. The options' names are Celery's.

        :param link: name and keyword arguments of the task to run with this one's value in front.
        :param link_error: name and keyword arguments of the task to run when this one fails.
        """
        ...


class CelerySent:
    """What Celery's client holds of a task."""

    def __init__(self, result: AsyncResult, thread: ThreadPoolExecutor) -> None:
        self.id = result.id
        self._result = result
        self._thread = thread

    async def value(self) -> Any:
        return await _in(self._thread, lambda: self._result.get(timeout=TIMEOUT))

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


class CeleriacSent:
    """What celeriac's client holds of a task."""

    def __init__(self, result: Result[Any]) -> None:
        self.id = result.id
        self._result = result

    async def value(self) -> Any:
        return await self._result.wait(timeout=TIMEOUT)

    async def watch(self, on_state: OnState) -> Any:
        async for record in self._result.watch():
            on_state(record.status, record.result)
        return await self.value()

    async def state(self) -> str:
        return (await self._result.info()).status


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


def _celery(url: str, backend: str, protocol: int) -> Celery:
    app = Celery("client", broker=url, backend=backend, set_as_current=False)
    app.conf.task_protocol = protocol
    return app


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


async def _in(thread: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, function)
