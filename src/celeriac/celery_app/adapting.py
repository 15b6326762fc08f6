"""Lets the verbs of a task (retry, replace) and its backend work with celeriac, wherever it runs as a worker's task.

Rules: only instances are changed, never Celery's classes; what is changed asks for the run that it is in, and does as
ever outside of one: a task that is called directly, or applied inside another one, is Celery's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from celery.app.trace import task_has_custom

from celeriac.celery_app.awaiting import let_await
from celeriac.celery_app.capture import RUN, CapturingBackend
from celeriac.celery_app.coroutines import Coroutines
from celeriac.celery_app.run import Run
from celeriac.celery_app.writing import keeping

_MARK = "_celeriac_adapted"


def adapt(task: Any, coroutines: Coroutines) -> None:
    """Adapt a task, once.

    :param coroutines: runs its coroutine, if its function is a coroutine function.
    """
    if _MARK in vars(task):
        return
    setattr(task, _MARK, True)
    own = task._backend  # noqa: SLF001 - what ``Task.backend`` looks at first
    task._backend = CapturingBackend((lambda: task.app.backend) if own is None else (lambda: own))  # noqa: SLF001
    task.signature_from_request = _held(task, task.signature_from_request)
    task.replace = _replacing(task, task.replace)
    let_await(task, coroutines)
    if task_has_custom(task, "__call__"):
        kind = type(task)
        if _MARK not in vars(kind.__call__):
            kind.__call__ = _followed(kind.__call__)  # its own class: Celery makes one for each task
    else:
        task.run = _followed(task.run, task)


def _current(task: Any) -> Run | None:
    run = RUN.get()
    return run if isinstance(run, Run) and run.is_of(task.request_stack.top) else None


def _followed(body: Callable[..., Any], task: Any = None) -> Callable[..., Any]:
    """Return a body after which the run keeps what the tracer sends."""

    @wraps(body)
    def followed(*args: Any, **kwargs: Any) -> Any:
        run = _current(args[0] if task is None else task)
        value = body(*args, **kwargs)
        if run is not None:
            run.expect_follow_ups()
        return value

    setattr(followed, _MARK, True)
    return followed


def _held(task: Any, make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``signature_from_request`` whose signature, which ``Task.retry`` sends at once, is kept for the end."""

    @wraps(make)
    def signature_from_request(*args: Any, **kwargs: Any) -> Any:
        signature = make(*args, **kwargs)
        run = _current(task)
        if run is not None:
            kept, usual = run.keep(), signature.apply_async

            def apply_async(*given: Any, **options: Any) -> Any:
                with keeping(kept):
                    return usual(*given, **options)

            signature.__dict__["apply_async"] = apply_async
        return signature

    return signature_from_request


def _replacing(task: Any, replace: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``replace`` whose messages are kept for the end."""

    @wraps(replace)
    def replacing(*args: Any, **kwargs: Any) -> Any:
        run = _current(task)
        if run is None:
            return replace(*args, **kwargs)
        run.replaced = True
        with keeping(run.keep()):
            return replace(*args, **kwargs)

    return replacing
