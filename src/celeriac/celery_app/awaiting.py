"""Lets tasks whose function is a coroutine function be run by Celery's tracer, which awaits nothing itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from types import CoroutineType
from typing import Any, get_type_hints

from celeriac.celery_app.capture import RUN
from celeriac.celery_app.coroutines import Coroutines, RequestStack

_MARK = "_celeriac_awaited"


def let_await(task: Any, coroutines: Coroutines) -> None:
    """Let a task whose function is a coroutine function run it to its end, where the tracer calls it; once."""
    if _MARK in vars(task) or not inspect.iscoroutinefunction(inspect.unwrap(task.run)):
        return
    setattr(task, _MARK, True)
    task.request_stack = RequestStack()
    if "_orig_run" in vars(task):  # what ``autoretry_for`` calls, which catches nothing that is awaited later
        task._orig_run = _awaited(task, task._orig_run, coroutines)  # noqa: SLF001 - Celery's own way
    else:
        task.run = _awaited(task, task.run, coroutines)


def _awaited(task: Any, body: Callable[..., Any], coroutines: Coroutines) -> Callable[..., Any]:
    """Return a plain function that runs the coroutine of a body; one that is called directly stays a coroutine."""
    dump = _dumping(task, body)

    @wraps(body)
    def awaited(*args: Any, **kwargs: Any) -> Any:
        value = body(*args, **kwargs)
        if isinstance(value, CoroutineType) and _is_run(task):
            return dump(coroutines.run(value))
        return value

    return awaited


def _is_run(task: Any) -> bool:
    """Whether the tracer calls it: for a worker, or here and now (Celery: ``apply``, ``task_always_eager``)."""
    request, run = task.request_stack.top, RUN.get()
    return request is not None and (bool(request.is_eager) or (run is not None and run.is_of(request)))


def _dumping(task: Any, body: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return what makes of a model what Celery stores, where the task has ``pydantic=True``.

    Celery's wrapper does so with what the function returns, which is a coroutine here. So it is put around a plain
    function that returns what that gave.
    """
    outside = inspect.getclosurevars(body).nonlocals if inspect.isroutine(body) else {}
    if "dump_kwargs" not in outside or body.__globals__.get("pydantic_wrapper") is None:
        return _same
    function = inspect.unwrap(body)
    hints = getattr(function, "__annotations__", {})
    with suppress(NameError, AttributeError, TypeError):
        hints = get_type_hints(function)

    def returned(value: Any) -> Any:
        return value

    returned.__annotations__ = {"return": hints["return"]} if "return" in hints else {}
    wrap = body.__globals__["pydantic_wrapper"]
    dumping: Callable[[Any], Any] = wrap(task.app, returned, task.name, dump_kwargs=outside["dump_kwargs"])
    return dumping


def _same(value: Any) -> Any:
    return value
