"""Celery's names that are others here, with what to write in their place.

Rules: pure text. A name that is not found on an object of celeriac's is looked up here only then, so it costs nothing
where all is right; type checkers do not see this, and go on to refuse unknown names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

C = TypeVar("C", bound=type)

PAGE = "docs/how-to/move-a-celery-app.md"
"""The page that errors name; it also says how a Celery app runs as it is."""

APP: Mapping[str, str] = {
    "AsyncResult": "app.result(task_id)",
    "GroupResult": "the result that sending a group returns",
    "Task": "functions with @app.task; what a base class did, a Listener or a decorator does",
    "add_periodic_task": "a schedule of `celery beat`, which sends to celeriac's workers",
    "amqp": "Celeriac(default_queue=..., routes=...)",
    "autodiscover_tasks": "import lines for the modules of tasks in the module that -A names",
    "backend": "app.connections().backend",
    "bugreport": "celeriac doctor -A module",
    "conf": "Celeriac(name, broker, backend, ...) to set, app.settings to read",
    "config_from_envvar": "Celeriac(name, broker, backend, ...)",
    "config_from_object": "Celeriac(name, broker, backend, ...), or Celeriac(settings=Settings(...))",
    "connection": "app.connections()",
    "connection_for_read": "app.connections()",
    "connection_for_write": "app.connections()",
    "current_task": "celeriac.current_context()",
    "finalize": "nothing: an app needs no finishing",
    "gen_task_name": "@app.task(name=...)",
    "main": "app.name",
    "on_after_configure": "@app.lifespan",
    "on_after_finalize": "@app.lifespan",
    "producer_pool": "await app.send_many(calls)",
    "register_task": "app.register(name, object)",
    "set_current": "nothing: there is no current app",
    "set_default": "nothing: there is no default app",
    "start": "app.worker(), or the command celeriac worker",
    "steps": "a Listener, or @app.lifespan",
    "user_options": "variables of the environment",
    "worker_main": "app.worker(), or the command celeriac worker",
}

TASK: Mapping[str, str] = {
    "AsyncResult": "app.result(task_id)",
    "acks_late": "task.options.delivery",
    "app": "the app that defined it",
    "apply": "task(...), which calls the function; in tests with app.testing(): task.delay(...)",
    "after_return": "a Listener",
    "autoretry_for": "@app.task(retry=Retry(on=...))",
    "backend": "app.connections().backend",
    "before_start": "a Listener",
    "delay_on_commit": "transaction.on_commit(lambda: task.delay(...))",
    "apply_async_on_commit": "transaction.on_commit(lambda: task.using(...).delay(...))",
    "default_retry_delay": "@app.task(retry=Retry(backoff=...))",
    "max_retries": "@app.task(retry=Retry(max_attempts=...)), which counts the first run too",
    "on_failure": "a Listener",
    "on_retry": "a Listener",
    "on_success": "a Listener",
    "rate_limit": "task.options.rate_limit",
    "replace": "a parameter ctx: Context, and ctx.replace(...)",
    "request": "a parameter ctx: Context, and ctx.id, ctx.retries, ctx.args and the rest",
    "retry": "a parameter ctx: Context, and ctx.retry(...)",
    "signature": "task.s(...), with .set(...) for options",
    "signature_from_request": "ctx.retry(...)",
    "subtask": "task.s(...), with .set(...) for options",
    "time_limit": "task.options.timeout",
    "soft_time_limit": "task.options.soft_timeout",
    "update_state": "a parameter ctx: Context, and ctx.update_state(...) or ctx.progress(...)",
}

RESULT: Mapping[str, str] = {
    "args": "(await result.info()).args, with the setting result_extended",
    "as_tuple": "result.id",
    "backend": "app.connections().backend",
    "collect": "result.children()",
    "date_done": "(await result.info()).date_done",
    "get_leaf": "result.get(), which is the value of the last step",
    "graph": "result.children()",
    "iterdeps": "result.children()",
    "join": "result.get()",
    "kwargs": "(await result.info()).kwargs, with the setting result_extended",
    "maybe_throw": "result.get()",
    "name": "result.task",
    "result": "(await result.info()).result, or result.get() for the value once it is there",
    "results": "list(result)",
    "revoke_by_stamped_headers": "app.revoke(ids)",
    "status": "result.state, or (await result.info()).status in asyncio code",
    "task_id": "result.id",
    "then": "await result, or a callback: task.s(...).link(...)",
    "worker": "(await result.info()).worker, with the setting result_extended",
}

CONTEXT: Mapping[str, str] = {
    "backend": "app.connections().backend",
    "called_directly": "ctx.worker, which is empty where the function is called",
    "chord": "ctx.message.chord",
    "delivery_info": "ctx.queue and ctx.redelivered",
    "errbacks": "ctx.message.errbacks",
    "get": "the attribute itself",
    "group": "ctx.group_id",
    "hostname": "ctx.worker",
    "max_retries": "the Retry of the task, and ctx.attempt",
    "name": "ctx.task",
    "origin": "ctx.message.origin",
    "request": "the context itself: ctx.id, ctx.retries, ctx.args and the rest",
    "timelimit": "ctx.deadline",
}

SIGNATURE: Mapping[str, str] = {
    "apply": "task(...), which calls the function",
    "apply_async": ".set(...).delay(), or await .set(...).send() in asyncio code",
    "delay_on_commit": "transaction.on_commit(lambda: signature.delay())",
    "freeze": ".delay(), and the id of its result",
    "get": "the value: attributes are read, as in signature.task",
    "replace": ".clone(...) or .set(...)",
    "skew": ".set(countdown=...) on each part",
    "stamp_links": ".stamp(...)",
    "tasks": ".parts",
    "unchain_tasks": ".parts",
}

MODULE: Mapping[str, str] = {
    "Celery": "celeriac.Celeriac; a celery.Celery app runs as it is under `celeriac worker -A module`",
    "bugreport": "the command celeriac doctor",
    "chunks": "task.chunks(...)",
    "current_app": "the app itself: there is no current one",
    "current_task": "celeriac.current_context()",
    "maybe_signature": "celeriac.from_dict(...)",
    "shared_task": "@app.task, or app.register(name, function) in each app",
    "signals": "a Listener, given to app.listen(...)",
    "signature": "app.signature(name, ...), or celeriac.from_dict(...)",
    "states": "the texts themselves, such as 'SUCCESS'",
    "uuid": "uuid.uuid4()",
    "xmap": "task.map(...)",
    "xstarmap": "task.starmap(...)",
}


RETRY: Mapping[str, str] = {
    "eta": "countdown=, in seconds",
    "exc": "cause=",
    "max_retries": "max_attempts=, which counts the first run too",
    "throw": "nothing: ctx.retry() always raises",
}
"""Celery's arguments of ``retry``."""


def explains(owner: str, names: Mapping[str, str]) -> Callable[[C], C]:
    """Let the objects of a class say what to write in place of a name of Celery's that they have not; a decorator.

    The class gets no ``__getattr__``: with one, each look at any attribute of its objects would take ten times as long.

    :param owner: what such an object is, such as ``a task``.
    """

    def listed(self: Any) -> list[str]:
        return [name for name in object.__dir__(self) if name not in names]

    def add(kind: C) -> C:
        for name in names:
            if not hasattr(kind, name):
                setattr(kind, name, _Explained(missing(owner, name, names)))
        setattr(kind, "__dir__", listed)  # noqa: B010 - a checker goes on to refuse unknown names
        return kind

    return add


class _Explained:
    """Stands in a class for a name that its objects have not: to look there raises the error that says so."""

    def __init__(self, error: AttributeError) -> None:
        self._text = str(error)

    def __get__(self, instance: Any, owner: type) -> NoReturn:
        raise AttributeError(self._text)


def missing(owner: str, name: str, names: Mapping[str, str]) -> AttributeError:
    """Return the error for a name that an object has not, with what to write where it is one of Celery's."""
    if name not in names:
        return AttributeError(f"{owner} has no {name!r}")
    return AttributeError(f"{owner} has no {name!r}; that is Celery's name: write {names[name]} (see {PAGE})")
