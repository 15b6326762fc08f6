"""A Celery task as celeriac's worker runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery.app.task import Context as Request

from celeriac.arguments.convert import Arguments, Returns
from celeriac.celery_app.adapting import adapt
from celeriac.celery_app.beside_loop import beside_loop
from celeriac.celery_app.children import task_of
from celeriac.celery_app.request import request_of
from celeriac.celery_app.run import Run, Tracers, is_inline
from celeriac.client.conduct import Conduct, Errback
from celeriac.client.task import TaskOptions
from celeriac.context import CURRENT, Context
from celeriac.wire.result import ResultRecord
from celeriac.worker.concluding import CONCLUSION, Conclusion
from celeriac.worker.decision import Decision, Ending

if TYPE_CHECKING:
    from celeriac.celery_app.app import CeleryApp

OWN_WAY = frozenset({"celery.accumulate", "celery.chord_unlock"})
"""Built-in tasks of Celery's that celeriac runs its own way."""


class CeleryTask:
    """The worker's view of one Celery task."""

    is_coroutine = False
    bind = False

    def __init__(self, task: Any, tracers: Tracers, app: CeleryApp) -> None:
        adapt(task, app.coroutines)
        self.name: str = task.name
        self.task = task
        self._app = app
        self._tracers = tracers
        self.function = self._run
        self.arguments = Arguments(_anything, strict=False)
        self.returns = Returns(_anything)
        self.options = TaskOptions(
            timeout=_positive(task.time_limit),
            soft_timeout=_positive(task.soft_time_limit),
            ignore_result=bool(task.ignore_result),
            track_started=False,  # the tracer stores it
            delivery="at_least_once" if task.acks_late else "at_most_once",
            rate_limit=None if task.app.conf.worker_disable_rate_limits else task.rate_limit or None,
        )
        self.conduct = Conduct(
            concludes=True,
            soft_error=SoftTimeLimitExceeded,
            keep_errors=bool(task.store_errors_even_if_ignored),
            bury_failed=bool(task.acks_late and not _acknowledges(task, "acks_on_failure")),
            requeue_lost=bool(task.acks_late and task.reject_on_worker_lost),
            requeue_late=bool(task.acks_late and not _acknowledges(task, "acks_on_timeout")),
            errback=self._errback,
            outside=self._fail_outside,
        )

    def __repr__(self) -> str:
        return f"<Celery task {self.name}>"

    def require_same(self, value: Any) -> None:
        """Do nothing: Celery writes records as they are."""

    def __reduce__(self) -> Any:
        return task_of, (self._app.target, self.name)

    def connect_to(self, broker: str, backend: str) -> None:
        """Use these URLs, in a child process of a worker that was told to."""
        if (broker, backend) != (self._app.broker_url, self._app.backend_url):
            self._app.connect_to(broker, backend)

    def conclusion(self, context: Context, tag: str | None, *, gone: bool) -> Conclusion:
        """Return what decides for a run in a child process."""

        def decide(ending: Ending) -> Decision:
            return self._app.judge.decide_for(self, context, ending, tag, gone=gone)

        return Conclusion(decide, tag, gone=gone)

    def report(self, record: ResultRecord) -> None:
        """Do nothing: Celery's own backend stores what ``update_state`` reports."""

    def _run(self, *args: Any, **kwargs: Any) -> None:
        context, conclusion = CURRENT.get(), CONCLUSION.get()
        assert context is not None
        assert conclusion is not None
        with beside_loop():  # in the pool solo it is that of the loop's thread
            self._tracers.run(self.task, context, conclusion, args, kwargs)

    def _fail_outside(
        self, context: Context, error: BaseException, conclusion: Conclusion
    ) -> Callable[[], None]:
        return Run(self.task, context, conclusion).fail_outside(error)

    def _errback(self, signature: Mapping[str, Any]) -> Errback | None:
        return partial(self._call_back, signature) if is_inline(self.task.app, signature) else None

    def _call_back(
        self, signature: Mapping[str, Any], context: Context, error: BaseException, traceback: str
    ) -> Any:
        return self.task.app.signature(dict(signature))(Request(request_of(context)), error, traceback)


class Repertory(Mapping[str, CeleryTask]):
    """The tasks of a Celery app, looked up when they are wanted: more may be registered at any time."""

    def __init__(self, app: CeleryApp) -> None:
        self._standing = app
        # Each look at ``app.tasks`` passes a property of kombu's; it is one and the same object for as long as the app.
        self._registry = app.celery.tasks
        self._tracers = Tracers(app.celery)
        self._made: dict[str, CeleryTask] = {}

    def __getitem__(self, name: str) -> CeleryTask:
        made = self._made.get(name)
        if made is None or made.task is not dict.get(self._registry, name):
            if name in OWN_WAY or name not in self._registry:
                raise KeyError(name)
            made = self._made[name] = CeleryTask(self._registry[name], self._tracers, self._standing)
        return made

    def __contains__(self, name: object) -> bool:
        return name not in OWN_WAY and name in self._registry

    def __iter__(self) -> Iterator[str]:
        return (name for name in list(self._registry) if name not in OWN_WAY)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _anything(*args: Any, **kwargs: Any) -> Any:
    """Take whatever was sent: Celery's function says itself what does not fit."""


def _acknowledges(task: Any, name: str) -> bool:
    """Whether a task is acknowledged after such an end; before Celery 5.7 one attribute said it for all of them."""
    own = getattr(task, name, None)
    return bool(task.acks_on_failure_or_timeout if own is None else own)


def _positive(seconds: float | None) -> float | None:
    return float(seconds) if seconds else None
