"""One run of one Celery task, by Celery's own tracer, in a thread or a child process."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import celery.app.trace
import msgspec
from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Celery, signals, states
from celery.app.task import Context as Request
from celery.app.trace import task_has_custom
from celery.exceptions import Ignore as CelerysIgnore
from celery.exceptions import Reject as CelerysReject
from celery.exceptions import Retry as CelerysRetry
from celery.result import ResultBase
from celery.utils.functional import arity_greater
from kombu.exceptions import EncodeError as KombusEncodeError
from kombu.utils.json import dumps as kombus_json

from celeriac.celery_app.capture import RUN
from celeriac.celery_app.request import request_of
from celeriac.celery_app.tracing import traced
from celeriac.celery_app.transactions import end_open_transactions
from celeriac.celery_app.writing import KEPT, keeping
from celeriac.context import Context
from celeriac.errors import EncodeError, Ignore, Reject, TaskAborted, WorkerLost
from celeriac.errors import TimeLimitExceeded as OurTimeLimitExceeded
from celeriac.wire.result import FAILURE
from celeriac.worker.concluding import Conclusion
from celeriac.worker.decision import Decision, Raised, Replaced, Resent, Returned, Written

logger = logging.getLogger("celeriac.celery")


class Run:
    """One run: it takes what Celery's code says and writes, and decides by it how the task ended.

    :ivar replaced: whether the task put another one in its place.
    """

    def __init__(self, task: Any, context: Context, conclusion: Conclusion) -> None:
        self._task = task
        self._context = context
        self._conclusion = conclusion
        self._own: list[Written] = []
        self._follow_ups: list[Written] = []
        self._refused: Exception | None = None
        self._has_waited = False
        self.replaced = False

    def is_of(self, request: Any) -> bool:
        """Whether a request is that of this run."""
        return request is not None and request.id == self._context.message.id and not request.is_eager

    def keep(self) -> list[Written]:
        """Return the list for messages by which the task itself goes on: a retry, what replaces it."""
        return self._own

    def expect_follow_ups(self) -> None:
        """Keep what the tracer is about to send: callbacks and the next step of the chain."""
        message = self._context.message
        if message.callbacks or message.chain:
            KEPT.set(self._follow_ups)

    # --- told by the tracer, through the backend

    def returned(self, value: Any, request: Any) -> None:
        """Decide for success, and let it be recorded before the hooks if anything looks at it."""
        KEPT.set(None)
        if isinstance(value, ResultBase) and self._task.app.conf.result_serializer != "pickle":
            value = value.as_tuple()
        self._note_children(request)
        self._trace_chord()
        sent = [*self._own, *self._follow_ups]
        decision = self._conclusion.judge(Returned(value, sent))
        if decision.state == FAILURE:
            decision = self._conclusion.judge(Returned(_as_kombu_writes(value, decision), sent))
        if decision.state == FAILURE:
            raise KombusEncodeError(str(decision.error)) from decision.error
        if self._looks("on_success", signals.task_success):
            self._wait()
            if self._refused is not None:
                raise KombusEncodeError(str(self._refused)) from self._refused

    def failed(self, error: BaseException, traceback: Any, request: Any) -> None:
        """Decide for failure; call the errbacks that Celery calls in the worker once it is recorded."""
        KEPT.set(None)
        if self._has_waited:
            return  # the worker has recorded another failure already
        self._note_children(request)
        inline = self._write_errbacks(error, traceback, request)
        text = None if traceback is None else str(traceback)
        self._conclusion.judge(Raised(error, [*self._own, *self._follow_ups], text))
        if inline or self._looks("on_failure", signals.task_failure):
            self._wait()
            _call_errbacks(self._task, request, inline, error, traceback)

    def retried(self, error: BaseException | None, traceback: Any, request: Any) -> None:
        """Decide for another run."""
        self._note_children(request)
        self._conclusion.judge(Resent(error, self._own, None if traceback is None else str(traceback)))
        if self._looks("on_retry", signals.task_retry):
            self._wait()

    # --- after the tracer

    def end(self, state: str | None, ending: Any) -> None:
        """Decide for an ending of which the tracer tells no backend.

        :param state: Celery's state, ``None`` for success.
        :param ending: the exception that the body raised.
        """
        if self._conclusion.decision is None or state in {states.REJECTED, states.IGNORED}:
            self._decide_unsaid(state, ending)

    def reject(self, rejection: CelerysReject) -> None:
        """Decide for a task, or a hook of it, that rejected the message."""
        if self._has_waited:
            return
        error = Reject(str(rejection.reason), requeue=bool(rejection.requeue))
        if error.requeue:
            self._conclusion.judge(Raised(error, self._own))
            return
        request = Request(request_of(self._context))
        inline = self._write_errbacks(rejection, None, request)
        self._conclusion.judge(Raised(error, [*self._own, *self._follow_ups]))
        if inline or signals.task_failure.receivers:
            self._wait()
            _call_errbacks(self._task, request, inline, rejection, None)
            _say_failed(self._task, self._context, rejection)

    def fail_outside(self, error: BaseException) -> Callable[[], None]:
        """Decide for a failure outside of the tracer, as Celery's main process does; return what comes after."""
        if isinstance(error, TaskAborted):  # it raised SystemExit, which ends a process of Celery's
            error = WorkerLost(str(error))
        decision = self._conclusion.judge(Raised(error))
        if decision.state != FAILURE:
            return _nothing
        request = Request(request_of(self._context))
        known = as_celerys(error)
        inline = self._write_errbacks(known, None, request)
        self._conclusion.judge(Raised(known, self._follow_ups))
        return partial(self._after_failure_outside, request, inline, known)

    def _after_failure_outside(self, request: Any, inline: Sequence[Any], error: BaseException) -> None:
        task, message = self._task, self._context.message
        _call_errbacks(task, request, inline, error, None)
        if isinstance(error, TimeLimitExceeded):
            task.on_failure(error, message.id, message.args, message.kwargs, informed(error))
            if task_has_custom(task, "after_return"):
                task.after_return(states.FAILURE, error, message.id, message.args, message.kwargs, None)

    def _decide_unsaid(self, state: str | None, ending: Any) -> None:
        if isinstance(ending, CelerysReject):
            self.reject(ending)
        elif isinstance(ending, CelerysRetry):
            self._conclusion.judge(Resent(ending.exc, self._own))
        elif self.replaced:
            self._conclusion.judge(Replaced(self._own))
        elif state is None or isinstance(ending, CelerysIgnore):
            self._conclusion.judge(Raised(Ignore(), self._own))
        else:
            self._conclusion.judge(Raised(ending, self._own))

    def _note_children(self, request: Any) -> None:
        children = self._context.children
        children[:] = [child.as_tuple() for child in request.children] if request._children else ()  # noqa: SLF001 - the property makes a list

    def _trace_chord(self) -> None:
        """Let the body of the chord that this is a part of, if it is sent by this ending, go on in the run's trace."""
        message = self._context.message
        if message.chord is not None:
            self._context.message = msgspec.structs.replace(message, chord=traced(message.chord))

    def _write_errbacks(self, error: BaseException, traceback: Any, request: Any) -> list[Any]:
        """Write the errbacks that are sent as messages, by Celery's own code; return those that are called here."""
        self._follow_ups.clear()
        errbacks = request.errbacks
        if not errbacks:
            return []
        inline = [errback for errback in errbacks if is_inline(self._task.app, errback)]
        sent = [errback for errback in errbacks if errback not in inline]
        if sent:
            with keeping(self._follow_ups):
                _call_errbacks(self._task, request, sent, error, traceback)
        return inline

    def _looks(self, hook: str, signal: Any) -> bool:
        """Whether anything runs after the ending, which then has to be on record."""
        return bool(
            signal.receivers
            or signals.task_postrun.receivers
            or task_has_custom(self._task, hook)
            or task_has_custom(self._task, "after_return")
        )

    def _wait(self) -> None:
        if self._has_waited:
            return
        message = self._context.message
        end_open_transactions(self._task.app.backend, f"{message.task}[{message.id}]")
        if self._conclusion.wait is not None:
            self._has_waited = True
            self._refused = self._conclusion.wait()


class Tracers:
    """Celery's tracers of an app's tasks, made when they are first needed."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._made: dict[str, Any] = {}

    def tracer(self, task: Any, hostname: str) -> Any:
        """Return the tracer of a task."""
        made = self._made.get(task.name)
        if made is None:
            # By its module: what others put in its place (Sentry, New Relic) counts.
            build = celery.app.trace.build_tracer
            made = build(task.name, task, loader=self._app.loader, hostname=hostname, app=self._app)
            self._made[task.name] = made
        return made

    def run(self, task: Any, context: Context, conclusion: Conclusion, args: Any, kwargs: Any) -> None:
        """Run a task from its first hook to its last; how it ended is in the conclusion."""
        run = Run(task, context, conclusion)
        token = RUN.set(run)
        try:
            trace = self.tracer(task, context.worker)
            # Hooks get what the message has: a list of JSON, mostly a tuple of pickle.
            given = tuple(args) if type(context.message.args) is tuple else list(args)
            ended = trace(context.message.id, given, kwargs, request_of(context))
            if ended.info is not None or conclusion.decision is None:
                info = ended.info
                run.end(None if info is None else info.state, None if info is None else info.retval)
        except CelerysReject as rejection:
            run.reject(rejection)
        finally:
            KEPT.set(None)
            RUN.reset(token)


def as_celerys(error: BaseException) -> BaseException:
    """Return an error of celeriac's as the one that users of Celery know."""
    known = error
    if isinstance(error, WorkerLost):
        known = WorkerLostError(f"Worker exited prematurely: {error}")
    elif isinstance(error, OurTimeLimitExceeded):
        known = TimeLimitExceeded(*error.args)
    return known


def _nothing() -> None:
    """Do nothing: the message goes back to its queue."""


def is_inline(app: Celery, errback: Mapping[str, Any]) -> bool:
    """Whether Celery calls an errback in the worker, with request, exception and traceback."""
    signature = app.signature(dict(errback))
    header = getattr(dict.get(app.tasks, signature.task), "__header__", None)
    if header is None or isinstance(header, partial):
        return False
    if not signature.immutable and (signature.args or signature.kwargs):
        try:
            return bool(arity_greater(partial(header, *signature.args, **signature.kwargs), 1))
        except (TypeError, ValueError):
            return bool(arity_greater(header, 1))
    return bool(arity_greater(header, 1))


def _call_errbacks(
    task: Any, request: Any, errbacks: Sequence[Any], error: BaseException, traceback: Any
) -> None:
    """Call and send errbacks as Celery does."""
    if errbacks:
        partly = copy.copy(request)
        partly.errbacks = list(errbacks)
        task.app.backend._call_task_errbacks(partly, error, traceback)  # noqa: SLF001 - Celery's own way


def informed(error: BaseException) -> ExceptionInfo:
    """Return what hooks and receivers are told of an error beside it."""
    try:
        raise error
    except BaseException:  # noqa: BLE001 - it is that error, whatever it is
        return ExceptionInfo()
    finally:
        del error  # its traceback holds this frame


def _say_failed(task: Any, context: Context, error: BaseException) -> None:
    message = context.message
    einfo = informed(error)
    signals.task_failure.send(
        sender=task,
        task_id=message.id,
        exception=error,
        args=message.args,
        kwargs=message.kwargs,
        traceback=einfo.traceback,  # the text, as from Celery's main process
        einfo=einfo,
    )


def _as_kombu_writes(value: Any, decision: Decision) -> Any:
    """Return a value in the form that kombu gives it, which knows the types that the app registered there."""
    if not isinstance(decision.error, EncodeError):
        return value
    try:
        return json.loads(kombus_json(value))
    except Exception:  # noqa: BLE001 - the types' own code
        return value
