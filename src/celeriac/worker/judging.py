"""Judges attempts by the app's settings: the pure rules of ``outcome``, given what they depend on."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from celeriac.canvas.nodes import Signature
from celeriac.context import Context
from celeriac.contracts.backend import Backend, SelectiveBackend, keeper
from celeriac.errors import EncodeError, ReplaceRequested, WorkerLost
from celeriac.servers.offload import in_thread
from celeriac.settings import Settings
from celeriac.wire.task import TaskMessage
from celeriac.worker.attempt import SPENT, Attempt
from celeriac.worker.bodies import CUT_SHORT
from celeriac.worker.concluding import Conclusion, Paused
from celeriac.worker.decision import Decision, Ending, Raised, Settle, Terms, WorkerTerms
from celeriac.worker.gate import Decline
from celeriac.worker.outcome import declined, failed, judge
from celeriac.worker.plans import Plans
from celeriac.worker.rejections import Rejections
from celeriac.worker.runnable import Runnable

logger = logging.getLogger("celeriac.worker")


class Judge:
    """Gives attempts their decisions.

    :param now: seconds since the epoch.
    :param inline: tells whether an errback with that signature is called in this worker.
    :param node: the worker's name.
    """

    def __init__(
        self,
        settings: Settings,
        plans: Plans,
        backend: Backend,
        tasks: Mapping[str, Runnable],
        inline: Callable[[Signature[Any]], bool],
        now: Callable[[], float],
        node: str,
    ) -> None:
        self._settings = settings
        self._tasks = tasks
        self._plans = plans
        self._check_id = backend.check_id if isinstance(backend, SelectiveBackend) else None
        self._now = now
        self._worker = WorkerTerms(
            backend.encode,
            random.random,
            inline,
            node,
            backend.chords.encode if backend.chords else None,
            settings.keep_failed > 0,
            Rejections().note,
            keeper(backend),
        )

    def judge(self, attempt: Attempt) -> Awaitable[None] | None:
        """Decide what the ending of the attempt's body means.

        Where that may take long, it is left to a thread: what is returned is then to be awaited.
        """
        ending, context = attempt.ending, attempt.context
        assert ending is not None
        assert context is not None
        if type(ending) is Raised or context.joiners or not attempt.is_light:
            return self._judge_slowly(attempt, context, ending)
        attempt.decision = self.decide(attempt, ending)
        return None

    async def _judge_slowly(self, attempt: Attempt, context: Context, ending: Ending) -> None:
        task = attempt.task
        assert task is not None
        outside = task.conduct.outside
        if outside is not None and isinstance(ending, Raised):
            conclusion = Conclusion(partial(self.decide, attempt))
            rest = await in_thread(partial(outside, context, ending.error, conclusion))
            attempt.decision, attempt.paused = conclusion.decision, _Rest(rest)
            return
        replaces = isinstance(ending, Raised) and isinstance(ending.error, ReplaceRequested)
        if replaces or context.joiners or not attempt.is_light:
            attempt.decision = await in_thread(partial(self.decide, attempt, ending))
        else:
            attempt.decision = self.decide(attempt, ending)

    def decide(self, attempt: Attempt, ending: Ending) -> Decision:
        """Return what an ending of the body means; it changes nothing, so any thread may call it."""
        task, context = attempt.task, attempt.context
        assert task is not None
        assert context is not None
        tag, gone = attempt.delivery.envelope.delivery_tag, attempt.receipt is SPENT
        return self.decide_for(task, context, ending, tag, gone=gone)

    def decide_for(
        self, task: Runnable, context: Context, ending: Ending, tag: str | None, *, gone: bool
    ) -> Decision:
        """Do as ``decide`` where there is no attempt, as in a child process."""
        message, plan = context.message, self._plans[task]
        # In the order of the fields: looking the names up would cost as much again.
        terms = Terms(
            self._worker,
            plan.retry,
            plan.keeps(message, failed=type(ending) is Raised),
            context.queue,
            datetime.fromtimestamp(self._now(), UTC),
            tag,
            context.redelivered,
            gone,
            plan.require_same,
            plan.back,
            plan.bury,
        )
        return judge(message, ending, context.children, terms, context.joiners)

    def abandon(self, attempt: Attempt) -> None:
        """Decide for a body that cannot be stopped, and whose message must not run a second time."""
        attempt.ending = Raised(WorkerLost(CUT_SHORT))
        attempt.decision = self.decide(attempt, attempt.ending)

    def decline(self, attempt: Attempt, verdict: Decline) -> None:
        """Decide what a verdict against running means."""
        attempt.decision = declined(verdict, self._terms_of(attempt))

    def unkept(self, message: TaskMessage) -> EncodeError | None:
        """Return why the result of a message could not be kept, ``None`` where it can, or nobody wants it."""
        if self._check_id is None or not message.id:
            return None
        try:
            self._check_id(message.id)
        except EncodeError as error:
            return error if self._keeps_result(message, None, failed=True) else None
        return None

    def fail(self, attempt: Attempt, error: Exception) -> None:
        """Decide for a message on which the worker itself failed.

        The message is not requeued: it would make workers fail again and again, without end.
        """
        attempt.decision = failed(attempt.message, error, self._terms_of(attempt), settle=Settle.BURY)

    def fail_instead(self, attempt: Attempt, error: EncodeError) -> None:
        """Decide that the task fails, because its result or a follow-up cannot be encoded."""
        children = attempt.context.children if attempt.context is not None else None
        attempt.decision = failed(attempt.message, error, self._terms_of(attempt), children=children)

    def _terms_of(self, attempt: Attempt) -> Terms:
        """Return the terms for an attempt that did not run, or on which the worker itself failed."""
        message, task = attempt.message, attempt.task
        keeps = bool(message.id) and self._keeps_result(message, task, failed=True)
        return Terms(
            self._worker,
            retry=None,
            keep_result=keeps and self.unkept(message) is None,
            queue=attempt.delivery.queue,
            now=datetime.fromtimestamp(self._now(), UTC),
            tag=None if task is None else attempt.delivery.envelope.delivery_tag,
            redelivered=attempt.delivery.redelivered,
            gone=attempt.receipt is SPENT,
        )

    def _keeps_result(self, message: TaskMessage, task: Runnable | None, *, failed: bool) -> bool:
        task = task or self._tasks.get(message.task)
        if task is not None:
            return self._plans[task].keeps(message, failed=failed)
        ignored = message.ignore_result
        return not (self._settings.ignore_result if ignored is None else ignored)


class _Rest(Paused):
    """Work that follows an ending, done in a thread once the ending is on record."""

    def __init__(self, rest: Callable[[], None]) -> None:
        self._rest = rest

    async def resume(self, error: Exception | None) -> None:
        """Do the work; an error is logged, since the ending stands."""
        try:
            await in_thread(self._rest)
        except Exception:
            logger.exception("what follows the end of a task failed")
