"""Django's tasks as tasks of an app of celeriac's."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone

from celeriac.client.app import App
from celeriac.client.task import CoroutineTask, FunctionTask, Task, TaskOptions
from celeriac.context import Context
from celeriac.errors import ConfigError, RemoteError
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
from celeriac.integrations.django_bridge.framework import backends_of
from celeriac.integrations.django_bridge.running import Call, is_coroutine, path_of
from celeriac.servers.url_parts import scheme_of
from celeriac.servers.urls import AMQP_SCHEMES
from celeriac.wire.failure import Failure, rebuild
from celeriac.wire.result import ResultRecord


class OwnCarrier:
    """An app of celeriac's; see ``Carrier``."""

    def __init__(self, app: App, bridge: Runner) -> None:
        self._app = app
        self._bridge = bridge

    @property
    def keeps_results(self) -> bool:
        scheme = scheme_of(self._app.backend_url)
        return scheme not in ("disabled", "rpc", *AMQP_SCHEMES)

    def register(self, task: Any) -> None:
        name, app = task.module_path, self._app
        if name in app.tasks:
            if not isinstance(app.tasks[name], PlainTask | AwaitedTask):
                raise ConfigError(
                    f"{name} is a task of {app!r} and a task of Django: give one of them another name"
                )
            return
        kind = AwaitedTask if is_coroutine(task) else PlainTask
        app.tasks[name] = kind(name, self._bridge, app)

    def send(self, task_id: str, facts: Facts) -> None:
        self._app.outbox.delay(self._call(task_id, facts))

    async def asend(self, task_id: str, facts: Facts) -> None:
        await self._app.outbox.send(self._call(task_id, facts))

    def _call(self, task_id: str, facts: Facts) -> Any:
        options: dict[str, Any] = {"eta": aware(facts.run_after)} if facts.run_after else {}
        if facts.queue != "default":
            options["queue"] = facts.queue
        amqp = scheme_of(self._app.broker_url) in AMQP_SCHEMES
        lowest_first = not amqp or self._app.settings.priorities == "lowest_first"
        options["priority"] = as_messages_have_it(facts.priority, lowest_first=lowest_first)
        return self._app.call(
            facts.task, facts.args, facts.kwargs, task_id=task_id, headers=facts.header(), **options
        )

    def keep(self, task_id: str, facts: Facts) -> None:
        self._app.outbox.report(_record(task_id, facts))

    async def akeep(self, task_id: str, facts: Facts) -> None:
        backend = self._app.connections().backend
        await backend.store(backend.encode(_record(task_id, facts)))

    def load(self, task_id: str) -> Stored:
        return self._app.result(task_id).store.run(self.aload(task_id))

    async def aload(self, task_id: str) -> Stored:
        outcome, facts = await self._app.connections().backend.load([task_id, beside(task_id)])
        return Stored(read_facts(facts.result) if facts else None, _outcome(outcome) if outcome else None)


class PlainTask(FunctionTask[..., Any]):
    """A Django task with a plain function."""

    def __init__(self, name: str, bridge: Runner, app: App) -> None:
        self._place = (bridge.package, bridge.alias, name)

        def run(context: Context, *args: Any, **kwargs: Any) -> Any:
            return bridge.run(name, _call(context, args, kwargs))

        super().__init__(name, run, TaskOptions(), app.outbox, bind=True)

    def __reduce__(self) -> Any:
        return found, self._place


class AwaitedTask(CoroutineTask[..., Any]):
    """A Django task with a coroutine function."""

    def __init__(self, name: str, bridge: Runner, app: App) -> None:
        async def run(context: Context, *args: Any, **kwargs: Any) -> Any:
            return await bridge.arun(name, _call(context, args, kwargs))

        super().__init__(name, run, TaskOptions(), app.outbox, bind=True)


def found(package: str, alias: str, name: str) -> Task[..., Any]:
    """Return a task in a child process: that is how one is pickled."""
    import django  # noqa: PLC0415 - a child process sets it up here
    from django.apps import apps  # noqa: PLC0415

    if not apps.ready:
        django.setup()
    bridge = backends_of(package)[alias].bridge
    bridge.know(bridge.find(name))
    bridge.carrier.register(bridge.find(name))
    task: Task[..., Any] = bridge.app.tasks[name]
    return task


def aware(moment: datetime) -> datetime:
    """Return a moment with its time zone, which is Django's own where it has none."""
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)


def as_djangos(moment: datetime | None) -> datetime | None:
    """Return a moment as Django has its moments, with a time zone or without."""
    if moment is None:
        return None
    here = timezone.now()
    return moment if timezone.is_aware(here) else timezone.make_naive(aware(moment))


def _call(context: Context, args: Any, kwargs: Any) -> Call:
    return Call(
        id=context.id,
        worker=context.worker,
        headers=context.headers,
        args=args,
        kwargs=kwargs,
        is_again=context.redelivered or context.retries > 0,
    )


def _record(task_id: str, facts: Facts) -> ResultRecord:
    return ResultRecord(task_id=beside(task_id), status=STATE, result=as_record(facts))


def _error_path(failure: Failure) -> str:
    """Return the dotted path of its class; of what is stored under a name of Celery's, that of celeriac's class."""
    error = rebuild(failure)
    if isinstance(error, RemoteError):
        return f"{failure.exc_module or 'builtins'}.{failure.exc_type}"
    return path_of(type(error))


def _outcome(record: ResultRecord) -> Outcome:
    return Outcome(
        state=record.status,
        value=record.result,
        error=_error_path(record.result) if isinstance(record.result, Failure) else None,
        traceback=record.traceback or "",
        ended_at=as_djangos(record.date_done),
    )
