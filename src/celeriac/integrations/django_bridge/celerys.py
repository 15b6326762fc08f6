"""Django's tasks as tasks of a Celery app: sent by Celery's own code, run by its workers and by celeriac's.

Rules: nothing of Celery is imported: the app at hand has all that is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from asgiref.sync import async_to_sync, sync_to_async
from django.db import close_old_connections

from celeriac.context import current_context
from celeriac.integrations.django_bridge.carrier import Runner, as_messages_have_it
from celeriac.integrations.django_bridge.facts import (
    STATE,
    Facts,
    Outcome,
    Stored,
    as_record,
    beside,
    read_facts,
)
from celeriac.integrations.django_bridge.own import as_djangos, aware
from celeriac.integrations.django_bridge.running import Call, is_coroutine, path_of
from celeriac.wire.result import PENDING, read_date

T = TypeVar("T")

_WITHOUT_RESULTS = ("disabled", "rpc", "amqp")


class CeleryCarrier:
    """An app of Celery's; see ``Carrier``."""

    def __init__(self, celery: Any, bridge: Runner) -> None:
        self._celery = celery
        self._bridge = bridge
        self._registered: set[str] = set()

    @property
    def keeps_results(self) -> bool:
        given = self._celery.conf.result_backend
        return bool(given) and str(given).partition(":")[0] not in _WITHOUT_RESULTS

    def register(self, task: Any) -> None:
        name = task.module_path
        if name not in self._registered:
            self._registered.add(name)
            body = _awaited(self._bridge, name) if is_coroutine(task) else _plain(self._bridge, name)
            self._celery.task(body, name=name, bind=True, shared=False, typing=False)

    def send(self, task_id: str, facts: Facts) -> None:
        options: dict[str, Any] = {"eta": aware(facts.run_after)} if facts.run_after else {}
        if facts.queue != "default":
            options["queue"] = facts.queue
        conf = self._celery.conf
        url = conf.broker_write_url or conf.broker_url or "amqp"
        scheme = str(url if isinstance(url, str) else url[0]).partition(":")[0]
        lowest_first = "amqp" not in scheme
        options["priority"] = as_messages_have_it(facts.priority, lowest_first=lowest_first)
        task = self._celery.tasks[facts.task]
        task.apply_async(facts.args, facts.kwargs, task_id=task_id, headers=facts.header(), **options)

    async def asend(self, task_id: str, facts: Facts) -> None:
        await _in_thread(self.send, task_id, facts)

    def keep(self, task_id: str, facts: Facts) -> None:
        self._celery.backend.store_result(beside(task_id), as_record(facts), STATE)

    async def akeep(self, task_id: str, facts: Facts) -> None:
        await _in_thread(self.keep, task_id, facts)

    def load(self, task_id: str) -> Stored:
        # In this order: the facts have the start of each task of which there is an outcome.
        outcome = self._celery.backend.get_task_meta(task_id, cache=False)
        facts = self._celery.backend.get_task_meta(beside(task_id), cache=False)
        return Stored(read_facts(facts.get("result")), _outcome(outcome))

    async def aload(self, task_id: str) -> Stored:
        return await _in_thread(self.load, task_id)


async def _in_thread(work: Callable[..., T], *args: Any) -> T:
    """Do this where Django does what blocks, with connections to a database that can be used."""

    def tidy() -> T:
        close_old_connections()
        return work(*args)

    value: T = await sync_to_async(tidy)()
    return value


def _plain(bridge: Runner, name: str) -> Callable[..., Any]:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return bridge.run(name, _call(self.request, args, kwargs))

    return run


def _awaited(bridge: Runner, name: str) -> Callable[..., Any]:
    async def run(call: Call) -> Any:
        return await bridge.arun(name, call)

    @wraps(run)  # by which celeriac's worker sees that this is a coroutine function
    def run_or_return(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the coroutine to celeriac's worker, which awaits it; with Celery's, run it here."""
        call = _call(self.request, args, kwargs)  # which Celery finds in this thread alone
        if current_context() is not None and not self.request.is_eager:
            return run(call)
        return async_to_sync(run)(call)

    return run_or_return


def _call(request: Any, args: Any, kwargs: Any) -> Call:
    info = request.delivery_info or {}
    return Call(
        id=request.id,
        worker=request.hostname or "",
        headers=request.headers or {},
        args=args,
        kwargs=kwargs,
        is_again=bool(info.get("redelivered")) or request.retries > 0,
    )


def _outcome(meta: Any) -> Outcome | None:
    if meta["status"] == PENDING:
        return None
    value = meta.get("result")
    return Outcome(
        state=meta["status"],
        value=value,
        error=path_of(type(value)) if isinstance(value, BaseException) else None,
        traceback=meta.get("traceback") or "",
        ended_at=as_djangos(read_date(meta.get("date_done"))),
    )
